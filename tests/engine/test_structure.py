"""Dataclasses from plain values and back: whatever does not fit is named by its place, in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from tlnb.engine.checkpoint.schema import upgraded
from tlnb.engine.core.structure import Unfit, plain, structure
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.data.tokens import AnyPreprocess
from tlnb.engine.models.loaded import Input
from tlnb.engine.training.recipe import Checksums, DataUsed, HeadRecipe, NetworkRecipe, StageRecipe
from tlnb.engine.training.records import EpochRecord, PlanProgress, ResumePoint, StageResult
from tlnb.engine.training.stage import Stage

RECIPE = StageRecipe(
    Checksums((1.0, 2.0), (None, 3.0)), None, True, (2, None, None), NetworkRecipe("net", "random", 3, False),
    (("body.0",), ("head",)), HeadRecipe("cats", 0, True, 2, ("nn.Linear(4, 2)", None)), 16, "train", None, None,
    False, False, "none", 2, 1, "float32", False, "cuda:0", 4, (DataUsed({"source": "digits"}, "ab", 0, (2, 0)),),
    adapters={"body.0.weight": "rank 8"},
)  # fmt: skip
RESULT = StageResult(
    1, Stage("train", (0,), lr=0.1, blend="auto", adapted=((1, "bias"),)), (1,), 0.1,
    records=[EpochRecord(1, 1, 2, (1,), 0.1, 1.0, float("inf"), 0.5, 2.0, "ff")], left=ResumePoint(0.1, epoch=1),
    recipe=RECIPE,
)  # fmt: skip


def told() -> dict[str, Any]:
    """A stage as JSON."""
    found: dict[str, Any] = json.loads(json.dumps(plain(RESULT)))
    return found


def test_what_is_written_is_read() -> None:
    again = structure(StageResult, told())
    assert again == RESULT
    assert again.recipe == RECIPE
    assert again.left == RESULT.left
    sizes = Input((), torch.int64, (("ids", Input((12,), torch.int64)),))
    assert structure(Input, json.loads(json.dumps(plain(sizes)))) == sizes
    plan = PlanProgress((RESULT.stage,), 1, 1, result=RESULT)
    assert structure(PlanProgress, plain(plan)) == plan


def test_tensors_and_what_is_known_in_memory_alone_are_not_written() -> None:
    scored = replace(RESULT.records[0], answers=torch.ones(2, 2))
    assert scored.to_dict() == RESULT.records[0].to_dict()
    assert "from_file" not in plain(replace(RECIPE, from_file=True))


def recipe(**changes: object) -> Callable[[dict[str, Any]], object]:
    return lambda stage: stage["recipe"].update(changes)


def head(**changes: object) -> Callable[[dict[str, Any]], object]:
    return lambda stage: stage["recipe"]["head"].update(changes)


def used(**changes: object) -> Callable[[dict[str, Any]], object]:
    return lambda stage: stage["recipe"]["data"][0]["asked"].update(changes)


WRONG: dict[str, Callable[[dict[str, Any]], object]] = {
    "recipe.threads is 'x', not a whole number from 1 up": recipe(threads="x"),
    "recipe.threads is 0, not a whole number from 1 up": recipe(threads=0),
    "recipe.threads is True, not a whole number from 1 up": recipe(threads=True),
    "recipe.bn is 'auto', not one of 'train', 'frozen'": recipe(bn="auto"),
    "recipe.layers[0] is 'body', not a list": recipe(layers=["body"]),
    "recipe.asked has 2 values, not 3": recipe(asked=[1, None]),
    "recipe.head.code[0] is no code that makes a head: ValueError": head(code=["exit()"]),
    "recipe.adapters['w'] is no adapter: 'rank 0' is no adapter: rank 8, bias or norm": recipe(
        adapters={"w": "rank 0"}
    ),
    "recipe.data[0].asked.progress is no argument of the data": used(progress=1),
    "recipe.moments is missing": lambda s: s["recipe"].pop("moments"),
    "records[0].rate is None, not a number": lambda s: s["records"][0].update(rate=None),
    "left.rate is nan, not a number from 0 to below inf": lambda s: s["left"].update(rate=float("nan")),
    "stage does not hold together: epochs takes a whole number from 1 up, not 0": lambda s: s["stage"].update(epochs=0),
    "numbr is not known to this version; did you mean 'number'?": lambda s: s.update(numbr=1),
}  # fmt: skip


@pytest.mark.parametrize("line", WRONG)
def test_a_value_that_does_not_fit_is_named_by_its_place(line: str) -> None:
    stage = told()
    WRONG[line](stage)
    with pytest.raises(Unfit) as caught:
        structure(StageResult, stage)
    assert str(caught.value) == line


def test_a_plan_of_no_stage_is_none() -> None:
    with pytest.raises(Unfit, match="has a stage at least"):
        structure(PlanProgress, plain(PlanProgress((RESULT.stage,), 1, 1)) | {"stages": []})


def test_of_two_kinds_the_one_with_the_same_names_is_read() -> None:
    values = plain(Preprocess()) | {"size": [8, -1]}
    with pytest.raises(Unfit, match=r"^size\[1\] is -1, not a whole number from 1 to 32,768$"):
        structure(AnyPreprocess, values)


def test_what_an_earlier_version_could_not_tell_of_a_stage_is_kept() -> None:
    old = {name: value for name, value in told().items() if name not in ("recipe", "untold", "left")}
    setup = told()["recipe"]
    setup |= {"marks": setup.pop("checksums"), "unknown": "a step", "from_file": True}
    setup["data"][0]["print"] = setup["data"][0].pop("fingerprint")
    about = {"format": 1, "history": [old | {"setup": setup}, old | {"setup": {"unknown": "a step"}}, old]}
    known, unknown, silent = structure(list[StageResult], upgraded(about)["history"])
    assert (known.recipe, known.untold) == (RECIPE, "a step")
    assert (unknown.recipe, unknown.untold) == (None, "a step")
    assert (silent.recipe, silent.untold) == (None, "")
