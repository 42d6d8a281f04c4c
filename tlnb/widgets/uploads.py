"""Pictures that come from the page, written into class folders beside the notebook: checked, and never over a file."""

from __future__ import annotations

import io
import os
import unicodedata
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from tlnb.display.tables import printable
from tlnb.engine.data.images.decode import reason_of
from tlnb.engine.data.images.headers import KINDS, SUFFIXES, BadPicture, check_size, kind_of
from tlnb.engine.data.sources.folder import is_hidden
from tlnb.errors import BadArguments

ROOT = "my-pictures"  # unless another folder is named
LARGEST = 64 << 20  # bytes of a picture
ARCHIVE = 1 << 30  # bytes of a zip
UNPACKED = 4 << 30  # bytes of all pictures in one
ENTRIES = 50_000  # of a zip that are looked at
THUMBS = 6  # pictures of a class that are shown
SIDE = 96  # pixels of one
LONGEST = 80  # letters of a name
REFUSED = 20  # files that are told of by name
_FORBIDDEN = '<>:"/\\|?*'
_DEVICES = {"con", "prn", "aux", "nul", *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(1, 10))}


def safe_name(name: str, what: str) -> str:
    """A name that is one folder or file on any machine: what it must not hold becomes ``_``.

    Args:
        name: of a class or a file, with folders before it or not.
        what: it names, for the error.

    Raises:
        BadArguments: nothing of it is left.
    """
    plain = unicodedata.normalize("NFC", name.strip())
    kept = "".join("_" if c in _FORBIDDEN or printable(c) != c else c for c in plain)
    stem, dot, end = kept.rpartition(".") if what == "file" else (kept, "", "")
    stem = stem[: LONGEST - len(dot + end)] if len(end) < LONGEST // 2 else kept[:LONGEST]
    kept = f"{stem}{dot}{end}".strip(" .")
    if not kept.strip("_ ."):
        raise BadArguments(f"{printable(name)!r} cannot be the name of a {what}; take letters or numbers")
    return f"{kept}_" if kept.partition(".")[0].lower() in _DEVICES else kept


@dataclass
class Uploads:
    """One folder of class folders that pictures go into.

    Args:
        root: of it, below the folder that the kernel works in.

    Attributes:
        refused: file and reason of what was not taken.
        written: of each class the files that came through here, batch by batch.
    """

    root: Path
    refused: list[tuple[str, str]] = field(default_factory=list)
    written: dict[str, list[list[Path]]] = field(default_factory=dict)

    @classmethod
    def at(cls, name: str) -> Uploads:
        """Pictures go below this folder, which need not be there yet.

        Raises:
            BadArguments: it lies elsewhere than beside the notebook, or it is a file.
        """
        wanted, here = Path(name.strip() or ROOT), Path.cwd().resolve()
        found = (here / wanted).resolve()
        if found == here or here not in found.parents:
            raise BadArguments(f"name a folder beside the notebook, such as {ROOT}; not {printable(name)!r}")
        if found.exists() and not found.is_dir():
            raise BadArguments(f"{printable(name)!r} is a file; name a folder, such as {ROOT}")
        return cls(found)

    @property
    def name(self) -> str:
        """The folder as a magic names it."""
        return os.path.relpath(self.root)

    def begin(self, into: str) -> str:
        """A class, and a batch of pictures for it; its folder is made. Gives back the name of the folder.

        Raises:
            BadArguments: the name cannot be one.
        """
        made = safe_name(into, "class")
        place = self.root / made
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadArguments(f"{self.name}/{made} cannot be made: {error.strerror or error}") from None
        if place.resolve().parent != self.root.resolve():
            raise BadArguments(f"{self.name}/{made} leads to another folder")
        self.written.setdefault(made, []).append([])
        return made

    def put(self, into: str, name: str, content: bytes) -> Path | None:
        """Write a picture into a class; what is no picture is noted in ``refused``, and the same one again is not kept.

        Args:
            into: of the class, as ``begin`` gave it.
            name: of the file.
            content: of the file.

        Returns:
            Where it stands; None where it was refused.
        """
        try:
            kind = checked(content)
            file = safe_name(PurePosixPath(name.replace("\\", "/")).name, "file")
        except (BadPicture, BadArguments) as trouble:
            self.refused.append((printable(name), str(trouble)))
            return None
        stem, end = os.path.splitext(file)
        if SUFFIXES.get(end.lower()) != kind:
            stem, end = file, KINDS[kind][0]
        for number in range(1, 100_000):
            path = self.root / into / f"{stem}{'' if number == 1 else f' ({number})'}{end}"
            try:
                with path.open("xb") as opened:
                    opened.write(content)
            except FileExistsError:
                if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
                    return path
                continue
            except OSError as error:
                path.unlink(missing_ok=True)
                self.refused.append((printable(name), f"cannot be written: {error.strerror or error}"))
                return None
            batches = self.written.setdefault(into, [[]])
            batches[-1].append(path)
            return path
        raise AssertionError("as many files of one name")

    def unpack(self, content: bytes, into: str = "") -> dict[str, int]:
        """Take the pictures out of a zip: into one class, or each into the class that its folder is named after.

        Args:
            content: of the zip.
            into: the class; empty for that of each picture's folder.

        Returns:
            Pictures taken of each class.

        Raises:
            BadArguments: it is no zip, or too large.
        """
        taken: dict[str, int] = {}
        begun: dict[str, str] = {}
        for name, picture in _entries(content):
            folder = into or PurePosixPath(name).parent.name
            if not folder:
                self.refused.append((printable(name), "stands in no folder, so its class is not known"))
                continue
            if folder not in begun:
                begun[folder] = self.begin(folder)
            if self.put(begun[folder], name, picture) is not None:
                taken[begun[folder]] = taken.get(begun[folder], 0) + 1
        if not taken:
            raise BadArguments("the zip holds no picture that can be read")
        return taken

    def take_back(self, into: str) -> int:
        """Remove what the last batch wrote into a class; files that stood there before stay. Gives back how many."""
        batches = [batch for batch in self.written.get(into, []) if batch]
        if not batches:
            return 0
        last = batches.pop()
        self.written[into] = batches
        for path in last:
            path.unlink(missing_ok=True)
        return len(last)

    def classes(self) -> list[dict[str, Any]]:
        """Each class with its count, its last pictures, and whether something can be taken back."""
        if not self.root.is_dir():
            return []
        found = []
        for place in sorted(self.root.iterdir(), key=lambda one: one.name.casefold()):
            if is_hidden(place.name) or not place.is_dir():
                continue
            files = [
                one for one in place.iterdir() if one.suffix.lower() in SUFFIXES and not is_hidden(one.name)
            ]
            files.sort(key=lambda one: one.stat().st_mtime)
            thumbs = [uri for uri in map(_thumb, files[-THUMBS:]) if uri]
            back = sum(bool(batch) for batch in self.written.get(place.name, [])) > 0
            found.append(
                {"name": printable(place.name), "count": len(files), "pictures": thumbs, "back": back}
            )
        return found


def checked(content: bytes) -> str:
    """The kind of a picture that can be decoded.

    Raises:
        BadPicture: it cannot, or it is too large; the reason in a few words.
    """
    if not content:
        raise BadPicture("it is empty")
    if len(content) > LARGEST:
        raise BadPicture(f"it is larger than {LARGEST >> 20} MB")
    kind = kind_of(content[: 64 << 10])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as picture:
                check_size(*picture.size)
                picture.load()
    except BadPicture:
        raise
    except Exception as trouble:  # Pillow's decoders raise what they like
        raise BadPicture(reason_of(trouble)) from None
    return kind


def _entries(content: bytes) -> Iterator[tuple[str, bytes]]:
    """The pictures in a zip by name, one after another."""
    if len(content) > ARCHIVE:
        raise BadArguments(f"the zip is larger than {ARCHIVE >> 20} MB; unpack it first")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            found = [one for one in archive.infolist() if _is_picture(one)]
            if len(found) > ENTRIES or sum(one.file_size for one in found) > UNPACKED:
                raise BadArguments("the zip holds more than can be taken at once; unpack it first")
            for one in found:
                if one.file_size > LARGEST:
                    continue
                with archive.open(one) as file:
                    yield one.filename, file.read(LARGEST + 1)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError) as trouble:
        raise BadArguments(f"the zip cannot be read: {trouble}") from None


def _is_picture(entry: zipfile.ZipInfo) -> bool:
    path = PurePosixPath(entry.filename)
    hidden = any(is_hidden(part) or part == "__MACOSX" for part in path.parts)
    return not entry.is_dir() and not hidden and path.suffix.lower() in SUFFIXES


def _thumb(path: Path) -> str:
    """A small picture as a data address; empty where it cannot be read any more."""
    from base64 import b64encode

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as picture:
                picture.draft("RGB", (2 * SIDE, 2 * SIDE))
                small = picture.convert("RGB")
        small.thumbnail((SIDE, SIDE))
        file = io.BytesIO()
        small.save(file, format="JPEG", quality=80)
    except Exception:  # Pillow's decoders raise what they like
        return ""
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"
