"""Whether a checkpoint was written here: only then does it say what is read from the disk or the network.

A file from elsewhere may name any path, or a data set to download, as its data. So what a file says of its sources is
signed with a key that this user's tlnb keeps for itself (HMAC-SHA256, RFC 2104). The signature says where a file comes
from and nothing else: damage is found by its checksum.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlnb.engine.core.machine import user_folder

_BYTES = 32


def sign(about: Mapping[str, Any]) -> str:
    """The signature of what a checkpoint says of its sources; empty where no key can be kept."""
    key = _key(make=True)
    return hmac.new(key, _sources(about), hashlib.sha256).hexdigest() if key else ""


def is_ours(about: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's sources were named by this user's own tlnb."""
    key, given = _key(make=False), about.get("origin")
    if not key or not isinstance(given, str):
        return False
    return hmac.compare_digest(hmac.new(key, _sources(about), hashlib.sha256).hexdigest(), given)


def _sources(about: Mapping[str, Any]) -> bytes:
    data = about.get("data") or {}
    named = [
        data.get("asked"),
        [task.get("asked") for task in about.get("tasks", [])],
        about.get("old_source"),
    ]
    return json.dumps(named, sort_keys=True).encode("utf-8", "surrogatepass")


def _key(*, make: bool) -> bytes | None:
    """The key of this user; None where there is none, or none can be written."""
    place: Path = user_folder() / "key"
    with contextlib.suppress(OSError):
        return _sound(place.read_bytes())
    if not make:
        return None
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f".key.{os.getpid()}.{secrets.token_hex(4)}")
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(handle, secrets.token_bytes(_BYTES))
        finally:
            os.close(handle)
        with contextlib.suppress(FileExistsError):  # another kernel was first
            os.link(part, place)
        part.unlink()
        return _sound(place.read_bytes())
    return None


def _sound(key: bytes) -> bytes | None:
    return key if len(key) == _BYTES else None
