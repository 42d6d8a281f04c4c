"""Pictures of one's own: dropped, picked or filmed into classes, so that nobody needs a folder to begin with."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import traitlets

from tlnb.display.tables import printable
from tlnb.errors import BadArguments, NotReady
from tlnb.widgets.uploads import ARCHIVE, LARGEST, REFUSED, ROOT, Uploads
from tlnb.widgets.view import Action, View

_EVERY = 0.4  # seconds between two lists of the classes while pictures come in


class OwnPart(View):
    """Takes pictures from the page and writes them into class folders.

    A file comes in pieces, since a message of a page must not be large.

    Args:
        session: as for every view.
        traits: of other parts.

    Attributes:
        own: the ``folder``, its ``classes`` with counts and pictures, and what was ``refused``; empty while closed.
    """

    own = traitlets.Dict(help="the folder of one's own pictures; empty while that is closed").tag(sync=True)

    _uploads: Uploads | None = None
    _listed = 0.0

    def __init__(self, session: Any, **traits: Any):
        super().__init__(session, **traits)
        self._pieces: dict[str, bytearray] = {}
        self._begun: dict[
            str, str
        ] = {}  # the folder of each class that was begun, by the name that was given

    def actions(self) -> dict[str, Action]:
        """Open and close; begin a class; take a piece of a file; take the last ones back."""
        return super().actions() | {
            "own": self.open_own, "own_close": self.close_own, "begin": self.begin, "piece": self.piece,
            "done_putting": self.done_putting, "take_back": self.take_back,
        }  # fmt: skip

    def open_own(self, folder: str = ROOT) -> None:
        """Take pictures into this folder beside the notebook.

        Raises:
            BadArguments: it lies elsewhere, or it is a file.
        """
        self._uploads, self._begun = Uploads.at(folder), {}
        self._list()

    def close_own(self) -> None:
        """Take no pictures any more; those that were taken stay."""
        self._uploads, self.own = None, {}

    def begin(self, into: str) -> None:
        """Begin a batch of pictures for a class; its folder is made.

        Raises:
            BadArguments: that cannot be the name of a folder.
        """
        uploads = self._need_uploads()
        uploads.refused.clear()
        self._begun[into] = uploads.begin(into)
        self._list()

    def piece(
        self, into: str, name: str, token: str, at: int, size: int, buffers: Sequence[Any] = ()
    ) -> None:
        """Take a piece of a file; with the last one the picture is checked and written.

        Args:
            into: the class; empty for a zip whose folders are the classes.
            name: of the file.
            token: names this file among those that are on their way.
            at: where in it the piece begins.
            size: of the whole file, in bytes.
            buffers: the piece.

        Raises:
            BadArguments: the file is too large, a piece is missing, or a zip that cannot be used.
        """
        uploads = self._need_uploads()
        most = ARCHIVE if name.lower().endswith(".zip") else LARGEST
        if not 0 <= size <= most:
            self._pieces.pop(token, None)
            raise BadArguments(f"{printable(name)} is larger than {most >> 20} MB")
        content = self._pieces.setdefault(token, bytearray())
        if at != len(content):
            self._pieces.pop(token, None)
            raise BadArguments(f"a piece of {printable(name)} was lost on the way; give it again")
        for buffer in buffers:
            content += bytes(buffer)
        if len(content) < size:
            return
        whole = bytes(self._pieces.pop(token)[:size])
        if name.lower().endswith(".zip"):
            taken = uploads.unpack(whole, into)
            for made, count in taken.items():
                self._write_down(made, count)
            self._list()
            return
        if into not in self._begun:
            raise BadArguments(f"no class {printable(into)!r} was begun")
        made = self._begun[into]
        if uploads.put(made, name, whole) is not None:
            self._write_down(made, 1)
        if time.monotonic() - self._listed > _EVERY:
            self._list()

    def done_putting(self) -> None:
        """All pictures of a batch have come."""
        self._pieces.clear()
        self._list()

    def take_back(self, into: str) -> None:
        """Remove the pictures of the last batch of a class.

        Raises:
            NotReady: none came through here.
        """
        uploads = self._need_uploads()
        count = uploads.take_back(into)
        if not count:
            raise NotReady(
                f"no picture of {printable(into)} came from this page; files that stood there stay"
            )
        self._write_down(into, -count)
        self._list()

    def _write_down(self, made: str, count: int) -> None:
        """Pictures cannot be magics; a comment says where they are."""
        magics: list[str] = list(getattr(self, "magics", ()))
        assert self._uploads is not None
        head = f"# pictures put into {self._uploads.name}/{made}: "
        if magics and magics[-1].startswith(head):
            count += int(magics.pop()[len(head) :])
        if hasattr(self, "magics"):
            self.magics = [*magics, f"{head}{count}"] if count else magics

    def _list(self) -> None:
        uploads = self._need_uploads()
        self._listed = time.monotonic()
        refused = [f"{name}: {reason}" for name, reason in uploads.refused[:REFUSED]]
        more = len(uploads.refused) - REFUSED
        self.own = {
            "folder": uploads.name, "classes": uploads.classes(),
            "refused": [*refused, *([f"and {more} more"] if more > 0 else [])],
        }  # fmt: skip

    def _need_uploads(self) -> Uploads:
        if self._uploads is None:
            raise NotReady("open a folder for your own pictures first")
        return self._uploads
