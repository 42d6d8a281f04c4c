"""Trackio: a run of a project, kept on this machine or on a server of one's own."""

from __future__ import annotations

import io
from collections.abc import Mapping

from PIL import Image

PROJECT = "tlnb"


class Trackio:
    """A run of its own: which run the notebook has under way is a matter of its thread, not of this one.

    Args:
        where: the project, or the address of a server; None for ``tlnb`` on this machine.
        name: of the run.
    """

    def __init__(self, where: str | None, name: str):
        import trackio

        self._trackio, self._step = trackio, 0
        server = where if where and "://" in where else None
        project = PROJECT if server else where or PROJECT
        # No page of its own in the notebook's cell, and no figures of the machine: the session's are asked for.
        self._run = trackio.init(
            project=project, name=name, embed=False, auto_log_cpu=False, auto_log_gpu=False,
            **({"server_url": server} if server else {}),
        )  # fmt: skip
        shown = f'trackio show --project "{project}"'
        self.where = f"project {project}, run {name}; {server or shown} shows it"

    def facts(self, values: Mapping[str, str]) -> None:
        """As a table, since the settings of a run are sent with its first figures and not again."""
        rows = "\n".join(f"| {name} | {_cell(value)} |" for name, value in values.items())
        self._log("settings", self._trackio.Markdown(f"| setting | is |\n|---|---|\n{rows}"))

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Figures."""
        self._step = step
        self._run.log(dict(values), step=step)

    def text(self, name: str, text: str) -> None:
        """A text, set as code."""
        self._log(name, self._trackio.Markdown(f"````\n{text}\n````"))

    def picture(self, name: str, png: bytes, step: int) -> None:
        """An image."""
        self._step = step
        self._log(name, self._trackio.Image(Image.open(io.BytesIO(png))))

    def close(self) -> None:
        """Write what is left."""
        self._run.finish()

    def _log(self, name: str, what: object) -> None:
        self._run.log({name: what}, step=self._step)


def _cell(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")
