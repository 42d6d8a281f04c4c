"""Whether a script can tell a session: each thing that it cannot hold is one line of refusal."""

from __future__ import annotations

from collections.abc import Sequence

from tlnb.engine.data.augment import NONE
from tlnb.engine.training.recipe import StageRecipe
from tlnb.engine.training.records import StageResult
from tlnb.errors import ExportError

STAGE_KEYS = frozenset(
    (
        "text", "frozen", "epochs", "lr", "decay", "batch", "optimizer", "schedule", "momentum",
        "weight_decay", "smoothing", "patience", "augment", "precision", "views", "micro", "keep", "asked",
        "bn", "blend", "guard", "kind", "init", "adapted", "by", "average", "contrast", "merges",
    )
)  # fmt: skip
"""The settings of a stage that the writers know; a script never leaves one out in silence."""

SAME = {"network": "network", "layers": "division into layers", "step": "training step", "device": "device",
        "threads": "number of threads"}  # fmt: skip
"""What one script can hold one of."""


def check(results: Sequence[StageResult]) -> None:
    """See whether these stages can be written down.

    Raises:
        ExportError: names what a script cannot hold, and what to do.
    """
    if not results:
        raise ExportError("nothing was trained yet, so there is nothing to write; train first: %tl_train")
    before: StageResult | None = None
    for result in results:
        _check_stage(result, results[0])
        if before is not None:
            _check_between(before, result)
        before = result


def recipe_of(result: StageResult) -> StageRecipe:
    """How a stage was set up.

    Raises:
        ExportError: that is not known.
    """
    if result.recipe is None:
        raise ExportError(f"how stage {result.number} was set up is not known, so it cannot be written down")
    return result.recipe


def _check_stage(result: StageResult, first: StageResult) -> None:
    number = result.number
    if result.stopped:
        raise ExportError(
            f"stage {number} was stopped in the middle of an epoch; go on with it or undo it first"
        )
    if result.untold:
        raise ExportError(f"stage {number}: {result.untold} cannot be written into a script")
    recipe = recipe_of(result)
    for key, words in SAME.items():
        if getattr(recipe, key) != getattr(recipe_of(first), key):
            raise ExportError(
                f"stage {number} had another {words} than stage {first.number}; one script holds one"
            )
    unknown = [k for k, v in vars(result.stage).items() if k not in STAGE_KEYS and v]
    if unknown:
        raise ExportError(f"stage {number} used {unknown[0]}, which a script cannot hold")
    if result.stage.views and recipe.augment != NONE:
        raise ExportError("views that are kept cannot be written into a script")
    if recipe.micro != result.stage.micro:
        raise ExportError(f"memory ran short in stage {number}, so its batches were cut at places of chance")


def _check_between(before: StageResult, result: StageResult) -> None:
    """Whether training and blends alone changed the weights of the body."""
    recipe, earlier = recipe_of(result), recipe_of(before)
    now, after = recipe.checksums.body[0], earlier.checksums.body[1]
    if now not in (None, after) and recipe.blend is None:
        raise ExportError(
            f"the weights were changed before stage {result.number} by something other than training, "
            "which a script cannot tell"
        )
    put_back = before.diverged or earlier.epochs != len(before.records)
    if recipe.moments and put_back:
        raise ExportError(
            f"stage {result.number} goes on with the optimizer of a stage whose last epochs were not kept, "
            "which a script cannot tell"
        )
