"""The model card beside an export (Mitchell et al. 2019): what the network is, from what, and how good."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from tlnb.engine.data.sealed import Look, seen
from tlnb.engine.export.own_files import CARD
from tlnb.engine.forgetting.measure import Forgetting
from tlnb.engine.models.loaded import LoadedModel
from tlnb.engine.results.results import Results
from tlnb.engine.training.records import StageResult, show_rate, spans

LICENCE = """## Licence and use

To be filled in by you: the licence, who may use it and for what, what the data may be used for, and what the
network should not be trusted with."""
PACKAGES = ("tlnb", "torch", "torchvision", "numpy", "scikit-learn")


def card(
    loaded: LoadedModel, results: Results, stages: Sequence[StageResult], files: Sequence[str], checked: str,
    forgotten: Forgetting | None, *, takes: str, looks: tuple[Look, ...] | None = None,
) -> str:  # fmt: skip
    """The card as Markdown.

    Args:
        loaded: the network.
        results: of the validation samples.
        stages: what was trained.
        files: names of the files that belong to it.
        checked: what the check after writing found.
        forgotten: what is left of the old task; None where that was not measured.
        takes: what goes in, and how it is prepared.
        looks: each time that the test part was measured; None where there is none.
    """
    parts = [
        f"# {clean(loaded.name)} on {clean(results.name)}",
        f"From {clean(loaded.name)} with the weights {clean(loaded.weights)}, {CARD}",
        "## Files\n\n" + "\n".join(f"- `{clean(name)}`" for name in files) + f"\n\n{clean(checked)}",
        f"## What goes in and comes out\n\n{clean(takes)}\n\nOut: {_out(results)}",
        "## How it was trained\n\n" + _stages(stages),
        "## How good it is\n\n" + _figures(results),
        *([] if looks is None else ["## The test part\n\n" + "\n\n".join(map(clean, seen(looks)))]),
        "## What it forgot\n\n" + _forgotten(forgotten),
        "## Versions\n\n" + ", ".join(versions()),
        LICENCE,
    ]
    return "\n\n".join(parts) + "\n"


def clean(text: str) -> str:
    """Text that Markdown takes as it is: names from outside may hold its signs, or HTML."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))


def versions() -> list[str]:
    """``torch 2.9.0`` and so on, and the Python."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return [*found, f"Python {platform.python_version()}"]


def _out(results: Results) -> str:
    what = {"classes": "a probability for each class", "labels": "a probability for each label"}
    names = ", ".join(clean(name) for name in results.classes)
    return f"{what.get(results.kind, 'a value each')}, in this order: {names}."


def _stages(stages: Sequence[StageResult]) -> str:
    rows = ["| stage | line | trains | rate | epochs | figure | frozen layers |", "|" + "---|" * 7]
    for result in stages:
        figure = "-" if result.accuracy is None else f"{result.accuracy:.4f}"
        cells = (str(result.number), result.stage.text, spans(result.trained), show_rate(result.rate),
                 f"{len(result.records)}/{result.stage.epochs}", figure, result.proof)  # fmt: skip
        rows.append("| " + " | ".join(clean(cell) for cell in cells) + " |")
    return "\n".join(rows) if stages else "Not trained in this session."


def _forgotten(found: Forgetting | None) -> str:
    """The old task before, after each stage and now."""
    if found is None or found.forgotten is None:
        return "Not measured. `%tl_forget` measures it; export again afterwards."
    lost, table = 100 * found.forgotten, found.table
    rows = [f"| {' | '.join(clean(str(cell)) for cell in row)} |" for row in (table.headers, *table.rows)]
    verb = f"It lost {lost:.1f} points" if lost >= 0 else f"It gained {-lost:.1f} points"
    return "\n".join([
        f"{verb} of what it knew of {clean(found.task)} before, measured on {clean(found.source)} under the head",
        "that came with its weights.", "", rows[0], "|---|---|---:|", *rows[1:],
    ])  # fmt: skip


def _figures(results: Results) -> str:
    rows = [
        clean(results.summary) + ", on samples that were not trained on but may have been used to choose."
    ]
    if results.sureness is not None:
        rows += [f"\n{clean(line)}" for line in results.sureness.lines]
    if results.kind != "values":
        rows += ["", "| class | precision | recall | F1 | samples |", "|" + "---|" * 5]
        rows += [
            f"| {clean(name)} | {p:.3f} | {r:.3f} | {f:.3f} | {count} |"
            for name, p, r, f, count in results.rows
        ]
    return "\n".join(rows)
