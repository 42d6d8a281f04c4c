"""Weights & Biases: a run of a project, offline where nobody is logged in."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

PROJECT = "tlnb"


class WandB:
    """A run of its own: one that the notebook has under way is left alone.

    Args:
        where: the project, or ``team/project``; None for ``tlnb``.
        name: of the run.
    """

    def __init__(self, where: str | None, name: str):
        import wandb

        self._image = wandb.Image
        mode = os.environ.get("WANDB_MODE") or ("online" if wandb.setup().settings.api_key else "offline")
        team, _, project = (where or PROJECT).rpartition("/")
        # It must not ask for a key, nor take over what the notebook writes.
        quiet = wandb.Settings(console="off", silent=True)
        self._run = wandb.init(
            project=project, entity=team or None, name=name, mode=mode, reinit="create_new", settings=quiet
        )
        self._folder = folder = Path(self._run.dir)
        if mode == "offline":
            self.where = f"{folder.parent}, offline; wandb sync {folder.parent} sends it"
        else:
            self.where = str(self._run.url)

    def facts(self, values: Mapping[str, str]) -> None:
        """Of the run's settings."""
        self._run.config.update(dict(values))

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Figures of the history."""
        self._run.log(dict(values), step=step)

    def text(self, name: str, text: str) -> None:
        """A file of the run."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def picture(self, name: str, png: bytes, step: int) -> None:
        """An image of the history."""
        self._run.log({name: self._image(Image.open(io.BytesIO(png)))}, step=step)

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()
