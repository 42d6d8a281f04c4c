"""What a tracker of experiments can be told, and how one is opened by name."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol

from tlnb.errors import BadArguments, NotReady, did_you_mean

OFF = "off"


class Tracker(Protocol):
    """One run in a tracker. All of it is called from one thread, and may take long or raise anything.

    Attributes:
        where: what it writes to, and how that is looked at, in one line.
    """

    where: str

    def facts(self, values: Mapping[str, str]) -> None:
        """Settings that do not change; no name comes twice."""

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Figures at a step; steps count epochs, from 0, and never fall."""

    def text(self, name: str, text: str) -> None:
        """A file of text; one of the same name takes its place."""

    def picture(self, name: str, png: bytes, step: int) -> None:
        """A picture, as a PNG file."""

    def close(self) -> None:
        """Nothing more will come."""


TRACKERS = {
    "mlflow": ("mlflow", "tlnb.tracking.with_mlflow", "MLflow"),
    "tensorboard": ("tensorboard", "tlnb.tracking.with_tensorboard", "TensorBoard"),
    "trackio": ("trackio", "tlnb.tracking.with_trackio", "Trackio"),
    "wandb": ("wandb", "tlnb.tracking.with_wandb", "WandB"),
}
"""Name -> the library that it needs, the module here, and the class in it: ``Class(where, name)``."""


def opener(tracker: str, where: str | os.PathLike[str] | None) -> Callable[[], Tracker]:
    """What opens a run in a tracker; its library is imported here, the rest comes when it is called.

    Args:
        tracker: its name.
        where: what it writes to: a folder, an address or the name of a project; None for its usual place.

    Raises:
        BadArguments: no tracker of that name.
        NotReady: its library is not installed.
    """
    if not isinstance(tracker, str) or tracker not in TRACKERS:
        near = did_you_mean(str(tracker), (*TRACKERS, OFF))
        raise BadArguments(f"no tracker {tracker!r}: there are {', '.join(TRACKERS)}{near}")
    if where is not None and not isinstance(where, str | os.PathLike):
        raise BadArguments(
            f"a tracker writes to a folder, an address or a project by name, not {type(where).__name__}"
        )
    place = None if where is None else os.fspath(where)
    library, module, name = TRACKERS[tracker]
    try:
        importlib.import_module(library)
    except ImportError as error:
        raise NotReady(f'{error}; for {tracker}: pip install "tlnb[{tracker}]"') from None
    make = getattr(importlib.import_module(module), name)
    title = f"tlnb-{datetime.now():%Y%m%d-%H%M%S}"
    return lambda: make(place, title)
