"""A picture to try: dropped, picked, or frame by frame from the webcam, with a bar for each class."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import traitlets

from tlnb.display.tables import printable
from tlnb.engine.data.images.headers import BadPicture
from tlnb.engine.results.predictions import Predictions
from tlnb.engine.results.predictor import Kept, copied_once
from tlnb.engine.results.sure import NONE
from tlnb.errors import BadArguments
from tlnb.session import Session
from tlnb.widgets.training_part import TrainingPart
from tlnb.widgets.uploads import checked
from tlnb.widgets.view import Action

BARS = 10  # classes, up to which each has its bar at its place; of more, the likeliest ones
LIKELIEST = 5
SURE = 0.9  # share of right sets where what is none of the classes is asked for


class LivePart(TrainingPart):
    """Says what is in a picture.

    Args:
        session: what predicts.
        traits: of other parts.

    Attributes:
        seen: what was said of the last frame: its ``label``, ``bars`` of name and share, the ``picture`` beside what in
            it spoke, and the number of the ``frame``; empty before one.
        none_of_these: also say that a picture is like nothing that was learned.
    """

    seen = traitlets.Dict(help="what was said of the last frame").tag(sync=True)
    none_of_these = traitlets.Bool(help="also say that a picture is none of the classes").tag(sync=True)
    shown = traitlets.Unicode(help="what was answered last, as HTML").tag(sync=True)

    def __init__(self, session: Session, **traits: Any):
        super().__init__(session, **traits)
        self._kept: Kept = {}
        self.follow(lambda _: self._kept.clear(), ["revision"])

    def long_actions(self) -> dict[str, Action]:
        """A picture; a frame of the webcam."""
        return super().long_actions() | {"picture": self.picture, "frame": self.frame}

    def picture(self, name: str = "picture", buffers: Sequence[Any] = ()) -> None:
        """Say what is in a picture that was dropped onto the page.

        Args:
            name: of its file.
            buffers: what the file holds, in pieces.

        Raises:
            BadArguments: it is no picture.
            NotReady: there is no network, or it knows no classes.
            DataError: too few validation samples to say that it is none of the classes.
        """
        opened = _opened(name, buffers)
        with self.watch():
            found = self._predicted(opened)
        self.shown = replace(found, names=(printable(name),))._repr_html_()
        self.teach(
            f"%tl_predict {shlex.quote(name)}{f' --sure {100 * SURE:.0f}' if self.none_of_these else ''}"
        )

    def frame(self, number: int, buffers: Sequence[Any] = ()) -> None:
        """Say what is in a frame of the webcam; nothing is written down.

        Args:
            number: of the frame.
            buffers: a JPEG.

        Raises:
            As ``picture``; ``seen`` holds the number then too.
        """
        listeners = self.session.listeners
        self.session.listeners = []
        try:
            with copied_once(self._kept):
                found = self._predicted(_opened("the frame", buffers))
            self.seen = {"frame": number, **_said(found)}
        except BaseException:
            self.seen = {"frame": number}
            raise
        finally:
            self.session.listeners = listeners

    def _predicted(self, picture: Any) -> Predictions:
        found: Predictions = self.session.predict(picture, sure=SURE if self.none_of_these else None)
        return found


def _opened(name: str, buffers: Sequence[Any]) -> Any:
    """A picture, turned as it was taken."""
    from PIL import Image, ImageOps

    content = b"".join(map(bytes, buffers))
    try:
        checked(content)
        return ImageOps.exif_transpose(Image.open(BytesIO(content)))
    except BadPicture:
        raise BadArguments(f"{printable(name)} is no picture that can be read") from None


def _said(found: Predictions) -> dict[str, Any]:
    """An answer for one picture as plain values for the page."""
    bars: list[list[Any]] = []
    if found.kind != "values":
        row = found.probabilities[0]
        order = range(len(row)) if len(row) <= BARS else np.argsort(-row, kind="stable")[:LIKELIEST]
        bars = [[found.classes[int(i)], float(row[int(i)])] for i in order]
    picture = (found.spoken or found.pictures or ("",))[0]
    return {"label": found.labels[0], "bars": bars, "picture": picture, "none": found.labels[0] == NONE}
