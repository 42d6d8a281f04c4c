"""Files at an address that ``fsspec`` opens (``s3://``, ``gs://``, ``https://`` …): fetched once, for all sessions."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from pathlib import Path
from uuid import uuid4

from tlnb.display.tables import printable
from tlnb.engine.core.machine import user_folder
from tlnb.engine.data.sources.cells import Progress
from tlnb.errors import DataError, first_line

FOLDER = "fetched"
SHARE = 0.5  # of the free disk that may be filled


def is_address(name: str) -> bool:
    """Whether a source is an address, not a path."""
    return re.match(r"[A-Za-z][\w+.-]*://", name) is not None


def fetched(address: str, endings: tuple[str, ...], progress: Progress) -> tuple[list[Path], str]:
    """Files that an address means, here, and a line that says where they lie; they are fetched where they are not yet.

    What has changed there since is fetched anew.

    Args:
        address: of a file, of a folder of files, or a pattern such as ``s3://bucket/shards/*.parquet``.
        endings: of the names of files that are meant.
        progress: told how many of how many files are here.

    Raises:
        DataError: nothing is there, a package for that kind of address is not here, or the disk has no room.
    """
    import fsspec

    shown = printable(address)
    try:
        system, path = fsspec.core.url_to_fs(address)
        if any(sign in path for sign in "*?["):
            names = system.glob(path)
        else:
            names = (
                [path] if system.isfile(path) else system.ls(path, detail=False) if system.isdir(path) else []
            )
        names = sorted(str(name) for name in names if str(name).lower().endswith(endings))
        if not names:
            raise DataError(f"nothing is at {shown} that ends in {', '.join(endings)}")
        folder = user_folder() / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        places = {name: folder / _key(system.ukey(name)) / os.path.basename(name) for name in names}
        missing = {name: place for name, place in places.items() if not place.exists()}
        size, free = sum(system.size(name) or 0 for name in missing), shutil.disk_usage(folder).free
        if size > SHARE * free:
            raise DataError(
                f"the files at {shown} take {size / 1e9:.1f} GB, and the disk of {printable(str(folder))!r} has "
                f"{free / 1e9:.1f} GB free, of which half may be filled (TLNB_HOME names another disk)"
            )
        for number, (name, place) in enumerate(missing.items()):
            progress(number, len(missing))
            place.parent.mkdir(exist_ok=True)
            draft = place.with_name(f"{uuid4().hex}.part")
            try:
                system.get_file(name, str(draft))
                os.replace(draft, place)
            finally:
                with contextlib.suppress(OSError):
                    draft.unlink()
    except DataError:
        raise
    except Exception as error:  # each kind of address has errors of its own
        raise DataError(f"cannot fetch {shown}: {first_line(error)}") from None
    return list(places.values()), f"fetched once from {shown}, into {printable(str(folder))!r}"


def _key(told: object) -> str:
    return hashlib.sha256(str(told).encode()).hexdigest()[:24]
