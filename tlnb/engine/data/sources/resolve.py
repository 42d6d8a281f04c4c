"""The files that the names in a table mean: as they are written, else as near to it as makes them be there.

Tables come from other computers: with the ending left out, pictures in a folder beside, paths that begin at another
root, Windows' backslashes, accents that are composed otherwise. What is found so is counted and said.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tlnb.display.tables import printable
from tlnb.engine.data.images.headers import SUFFIXES as PICTURES
from tlnb.engine.data.request import SourceRequest
from tlnb.engine.data.sound.files import SUFFIXES as SOUNDS
from tlnb.engine.data.sources.folder import is_below, is_hidden
from tlnb.engine.data.sources.labels import composed
from tlnb.errors import DataError

SUFFIXES = {*PICTURES, *SOUNDS}
_DEEP, _FOLDERS = 3, 400  # how deep folders are looked for beside a table, and how many
_SAMPLE = 60  # names by which the folder is chosen


@dataclass
class Listing:
    """The files of a folder by their names.

    Attributes:
        exact: names with composed accents.
        loose: the same in small letters; None for several.
        stems: names without the ending of a picture, by how they are written; None for several.
    """

    exact: dict[str, str] = field(default_factory=dict)
    loose: dict[str, str | None] = field(default_factory=dict)
    stems: dict[str, str | None] = field(default_factory=dict)


class Resolver:
    """Files by their names in a table.

    Args:
        root: the table's folder.
        request: folder and ending, if the user names them, and whether links are followed.

    Raises:
        DataError: the folder is none.
    """

    def __init__(self, root: Path, request: SourceRequest):
        self.links = request.links
        self.suffix = request.suffix or ""
        if self.suffix and not self.suffix.startswith(".") and f".{self.suffix.lower()}" in SUFFIXES:
            self.suffix = f".{self.suffix}"
        self.named = request.folder is not None
        self.root = root if request.folder is None else _folder(request.folder, root)
        self._homes = [os.path.realpath(self.root)]
        self._bases = [""]
        self._listings: dict[str, Listing] = {}
        self._how: Counter[str] = Counter()

    def finds_most(self, names: Sequence[str]) -> bool:
        """Whether most of these names, and not the same over and over, are files where they say."""
        sample = _some(names)
        return 2 * self._count(sample) >= len(set(sample)) > 0

    def _count(self, sample: Sequence[str]) -> int:
        """How many different files these names mean."""
        return len({found for name in sample if (found := self.find(name)[0]) is not None})

    def guess(self, names: Sequence[str]) -> int:
        """Choose the folder below the table's in which most of these names are; how many of a sample of them."""
        sample = _some(names)
        best, most = "", 0
        for base in ("", *_folders(self.root)):
            self._bases = [base]
            count = self._count(sample)
            if count > most:
                best, most = base, count
        self._bases = ["", best] if best else [""]
        return most

    @property
    def bases(self) -> list[str]:
        """The folders that are looked into, as :meth:`guess` chose them."""
        return list(self._bases)

    def settle(self, bases: list[str]) -> None:
        """Look into these folders, and count from now on how names are found."""
        self._bases = list(bases)
        self._how.clear()

    def find(self, name: str) -> tuple[str | None, str]:
        """The path below the folder, or None and the reason; counts how it was found."""
        if not name or "\0" in name or len(name) > 4096:
            return None, "no path"
        # A file that is there but not below the folder is not looked for by its last parts: another would be taken.
        outside = os.path.isabs(name) and os.path.isfile(name) and not self._allowed(name)
        for base in () if outside else self._bases:
            for how, text in _readings(name):
                found, way = self._in(base, text)
                if found is None:
                    continue
                if not self._allowed(found):
                    outside = True
                    continue
                self._how.update(word for word in (how, way, f"base {base}" if base else "") if word)
                return found, ""
        if outside or self._leads_out(name):
            return None, (
                "leads out of the folder that the table is in; put the table above its pictures, or name their folder "
                "(--folder), or follow links (--links)"
            )
        return None, "not a regular file" if os.path.exists(self.root / name) else "no such file"

    def notes(self) -> list[str]:
        """What to say about how names were found."""
        lines = []
        for key, count in sorted(self._how.items()):
            word, _, what = key.partition(" ")
            if word == "base":
                lines.append(f"pictures are looked for in {printable(what)} (--folder names another)")
            elif word == "ending":
                lines.append(
                    f"{_names(count)} without an ending found with {printable(what)} (--suffix names another)"
                )
            elif word == "spelling":
                lines.append(
                    f"{_names(count)} found under another spelling: other accents, or large and small letters"
                )
            elif word == "backslashes":
                lines.append(f"{_names(count)} with backslashes read as paths of Windows")
            elif word == "tail":
                lines.append(
                    f"{_names(count)} of another computer found by their last parts "
                    f"below {printable(os.fspath(self.root))!r} (--folder)"
                )
        return lines

    def _in(self, base: str, text: str) -> tuple[str | None, str]:
        """A file below one of the folders by its name, and how it was found."""
        wanted = os.path.normpath(os.path.join(base, text)) if not os.path.isabs(text) else text
        for ending in (self.suffix, "") if self.suffix else ("",):
            if os.path.isfile(self.root / (wanted + ending)):
                return wanted + ending, ""
        folder, last = os.path.split(wanted)
        folder = self._spelt(folder)
        listing = self._listing(folder)
        plain = composed(last)
        for name in dict.fromkeys((plain + self.suffix, plain)):
            actual = listing.exact.get(name) or listing.loose.get(name.casefold())
            if actual and os.path.isfile(self.root / folder / actual):
                return os.path.join(folder, actual), "spelling"
        actual = None if self.suffix else listing.stems.get(plain) or listing.stems.get(plain.casefold())
        if actual:
            return os.path.join(folder, actual), f"ending {os.path.splitext(actual)[1]}"
        return None, ""

    def _spelt(self, folder: str) -> str:
        """A folder as it is spelt on disk, as far as it is there."""
        if not folder or os.path.isabs(folder) or os.path.isdir(self.root / folder):
            return folder
        parent, last = os.path.split(folder)
        parent = self._spelt(parent)
        key = composed(last)
        listing = self._listing(parent)
        return os.path.join(parent, listing.exact.get(key) or listing.loose.get(key.casefold()) or last)

    def _listing(self, folder: str) -> Listing:
        if folder in self._listings:
            return self._listings[folder]
        made = self._listings[folder] = Listing()
        where = self.root / folder
        try:
            allowed = self._allowed(folder)
            names = sorted(os.listdir(where)) if allowed else []
        except (OSError, ValueError):
            names = []
        for name in names:
            plain = composed(name)
            made.exact[plain] = name
            _once(made.loose, plain.casefold(), name)
            stem, ending = os.path.splitext(plain)
            if ending.lower() in SUFFIXES:
                _once(made.stems, stem, name)
        return made

    def _allowed(self, path: str) -> bool:
        """Whether a path stays in the folder, links resolved unless they are followed."""
        full = self.root / path
        if is_below(os.path.realpath(full), self._homes[0]):
            return True
        return self.links and is_below(os.path.abspath(full), os.path.abspath(self.root))

    def _leads_out(self, name: str) -> bool:
        return not is_below(os.path.realpath(self.root / name), self._homes[0])


def _some(names: Sequence[str]) -> Sequence[str]:
    return names[:: max(len(names) // _SAMPLE, 1)]


def _once(table: dict[str, str | None], key: str, name: str) -> None:
    table[key] = None if key in table and table[key] != name else name


def _names(count: int) -> str:
    return f"{count} name{'s' if count > 1 else ''}"


def _readings(name: str) -> Iterable[tuple[str, str]]:
    """How a name can be read: as it is, with backslashes as slashes, by its last parts."""
    yield "", name
    text, how = name, ""
    if "\\" in name:
        text, how = name.replace("\\", "/"), "backslashes"
        yield how, text
    if text.startswith("/") or re.match(r"[A-Za-z]:/|\w+://|\.\./", text):
        parts = [part for part in re.sub(r"^[A-Za-z]:", "", text).split("/") if part not in ("", ".", "..")]
        for start in range(len(parts)):
            yield "tail", "/".join(parts[start:])


def _folder(name: str, root: Path) -> Path:
    for path in (Path(name), root / name):
        if path.is_dir():
            return path
    raise DataError(f"--folder {printable(name)!r} is no folder here, nor beside the table")


def _folders(root: Path) -> list[str]:
    """Folders below, those that are not deep first."""
    found, level = [], [""]
    for _ in range(_DEEP):
        below = []
        for folder in level:
            try:
                with os.scandir(root / folder) as entries:
                    names = sorted(
                        e.name for e in entries if e.is_dir(follow_symlinks=False) and not is_hidden(e.name)
                    )
            except OSError:
                continue
            below += [os.path.join(folder, name) for name in names]
        found += below
        level = below
        if len(found) > _FOLDERS:
            break
    return found[:_FOLDERS]
