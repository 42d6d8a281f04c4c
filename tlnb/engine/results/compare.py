"""Runs side by side: out of memory, or out of the files that ``%tl_save`` wrote."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from tlnb.display.tables import printable
from tlnb.engine.checkpoint import file as checkpoint
from tlnb.engine.checkpoint.fields import BROKEN
from tlnb.engine.checkpoint.schema import result_from
from tlnb.engine.core.arguments import others_code, path_of
from tlnb.engine.training.curves import Comparison, Line
from tlnb.engine.training.records import StageResult
from tlnb.errors import CheckpointError, NotReady


def compare(sources: Sequence[object]) -> Comparison:
    """Runs side by side.

    Args:
        sources: each a run, a history, a session, or a file that ``%tl_save`` wrote.

    Raises:
        NotReady: one of them holds no epoch.
        CheckpointError: no such file.
    """
    lines = []
    for number, source in enumerate(sources, start=1):
        name, stages = _read(source, number)
        trained = tuple(stage for stage in stages if stage.records)
        if not trained:
            raise NotReady(f"nothing was trained in {name}, so there is nothing to draw")
        lines.append(Line(name, trained))
    return Comparison(lines)


def _read(source: Any, number: int) -> tuple[str, Sequence[StageResult]]:
    if isinstance(source, str | os.PathLike):
        path = path_of(source, CheckpointError)
        path = path if path.suffix or path.exists() else path.with_suffix(checkpoint.SUFFIX)
        found = checkpoint.read(path)
        try:
            return printable(path.stem), [result_from(plain) for plain in found.about["history"]]
        except BROKEN:
            raise CheckpointError(f"{printable(path.name)} holds no history that can be read") from None
    with others_code(source, NotReady):
        held = getattr(source, "history", source)
        stages = getattr(held, "stages", None)
    if not isinstance(stages, list):
        raise NotReady(
            f"a {type(source).__name__} holds no run; give what %tl_train answered, or a saved file"
        )
    return f"run {number}", stages
