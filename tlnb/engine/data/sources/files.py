"""What is known of the content of files: digests where they were read whole, or where sizes collide."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from tlnb.engine.data.images.check import Verdict
from tlnb.engine.data.readers import FileReader
from tlnb.engine.threads import pool


def known_digests(reader: FileReader, verdicts: Sequence[Verdict]) -> list[bytes | None]:
    """For each file a digest of its bytes, or None where no other file can be equal to it.

    Small files were read whole when they were checked. Of large ones only those are read that share their
    size with another: files of different size are different.
    """
    sizes = Counter(verdict.size for verdict in verdicts if verdict.digest is None)
    digests = [verdict.digest for verdict in verdicts]
    twins = [i for i, v in enumerate(verdicts) if v.digest is None and sizes[v.size] > 1]
    for index, digest in zip(twins, pool().map(lambda i: _digest(reader, i), twins), strict=True):
        digests[index] = digest
    return digests


def _digest(reader: FileReader, index: int) -> bytes | None:
    try:
        with open(reader.path(index), "rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
    except OSError:
        return None
