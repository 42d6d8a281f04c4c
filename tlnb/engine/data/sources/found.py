"""What a source answers, what its parts are called, and what is known of the content of its files."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tlnb.display.tables import printable
from tlnb.engine.core.machine import pool
from tlnb.engine.data.column import Column
from tlnb.engine.data.images.check import Problem, Verdict
from tlnb.engine.data.images.decode import deep_values
from tlnb.engine.data.images.scale import PLAIN, PixelScale, common_white, scale_note, white_above
from tlnb.engine.data.partition import TEST as TESTS
from tlnb.engine.data.partition import TRAIN as TRAINS
from tlnb.engine.data.partition import VALID as VALIDATES
from tlnb.engine.data.raw import RawDataset, Several
from tlnb.engine.data.readers import FileReader
from tlnb.engine.data.request import CLASSES, OWN, SourceRequest
from tlnb.engine.data.sound.front_end import LogMel


@dataclass
class Found:
    """A data set as its source has it.

    Attributes:
        train: all samples, or the training samples where the source has a split of its own.
        valid: the validation samples of the source's own split, or None.
        classes: names of the network's outputs, in order.
        kind: what the targets are: one of ``request.TARGETS``.
        problems: files that are not used, with the reason.
        notes: what the user should know about how it was read.
        batch: samples a step, where the source says so.
        scale: of the pixels of its pictures.
        sound: how its sounds are drawn; None where it holds none.
        everything: all samples that are used, where the source has a split of its own; None otherwise.
        own: its parts, int64 of shape (N,): ``partition.TRAIN``, ``VALID`` or ``TEST`` for each of ``everything``.
        columns: of a table, each with an entry for each of all samples.
        paths: of all samples, with ``/``; None where they are no files.
        used: numbers of the samples that are used among those that the source has; None where all are.
    """

    train: RawDataset
    valid: RawDataset | None
    classes: tuple[str, ...]
    kind: str = CLASSES
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    batch: int | None = None
    scale: PixelScale = PLAIN
    sound: LogMel | None = None
    everything: RawDataset | None = None
    own: np.ndarray | None = None
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    paths: Sequence[str] | None = None
    used: np.ndarray | None = None

    @classmethod
    def of_parts(cls, made: Sequence[RawDataset], roles: Sequence[int], **more: Any) -> Found:
        """A source that has parts of its own.

        Args:
            made: the samples of each.
            roles: what each is for: ``partition.TRAIN``, ``VALID`` or ``TEST``; the first is to learn from.
            more: the other fields.
        """
        held = next((part for part, role in zip(made, roles, strict=True) if role == VALIDATES), None)
        if len(made) == 1:
            return cls(made[0], None, **more)
        own = np.concatenate([np.full(len(part), role) for part, role in zip(made, roles, strict=True)])
        return cls(made[0], held, everything=Several(made), own=own, **more)

    def part_by(self, words: Column, thing: str) -> None:
        """Split by a column; where a part that is needed has no sample, a note says that ``--valid`` splits.

        Args:
            words: ``train``, ``valid`` or ``test`` for each sample, or nothing.
            thing: what a sample is, in a word.
        """
        numbers = {"train": TRAINS, "valid": VALIDATES, "test": TESTS}
        own = np.array([numbers.get(word, -1) for word in words.values])[words.codes]
        train, valid = (torch.from_numpy(np.flatnonzero(own == part)) for part in (TRAINS, VALIDATES))
        if not len(train) or not (len(valid) or (own == TESTS).any()):
            self.notes.append(f"one part of the split has no usable {thing}: split by --valid")
            return
        self.everything, self.own = self.train, own
        self.train = self.everything.subset(train)
        self.valid = self.everything.subset(valid) if len(valid) else None


def shown_files(files: Sequence[Path]) -> str:
    """The name of a table, or of the first of several, for people."""
    name = repr(printable(files[0].name))
    return name if len(files) == 1 else f"{name} and {len(files) - 1:,} more"


TRAIN = ("train", "training", "trainval", "tr")
VALID = ("val", "valid", "validation", "dev", "eval", "va")
TEST = ("test", "testing", "te")
HELD = (*VALID, *TEST)
EVERY = (*TRAIN, *HELD)


def roles_of(names: Container[str], request: SourceRequest) -> dict[str, int]:
    """The parts of a source that are read, and what each is for, the one to learn from first.

    Args:
        names: of its parts, in lower case.
        request: asks for the source's own test part, or does not.

    Returns:
        Empty where no part is called train.
    """
    train, valid, test = (next((n for n in known if n in names), None) for known in (TRAIN, VALID, TEST))
    if train is None:
        return {}
    if request.test == OWN and test is not None:
        return {train: TRAINS} | ({valid: VALIDATES} if valid is not None else {}) | {test: TESTS}
    held = next((n for n in HELD if n in names), None)
    return {train: TRAINS} | ({held: VALIDATES} if held is not None else {})


SAMPLE = 64  # pictures by whose values white is found


def known_digests(
    reader: FileReader, verdicts: Sequence[Verdict], rows: Tensor | None = None
) -> list[bytes | None]:
    """For each file a digest of its bytes, or None where no other sample can be equal to it.

    Small files were read whole when they were checked. Of large ones only those are read that share their
    size with another: files of different size are different.

    Args:
        reader: of the files.
        verdicts: on them.
        rows: number of the file of each sample; None where each file is one. A large file that several samples share
            is known by its name.
    """
    sizes = Counter(verdict.size for verdict in verdicts if verdict.digest is None)
    digests = [verdict.digest for verdict in verdicts]
    twins = [i for i, v in enumerate(verdicts) if v.digest is None and sizes[v.size] > 1]
    for index, digest in zip(twins, pool().map(lambda i: _digest(reader, i), twins), strict=True):
        digests[index] = digest
    if rows is not None:
        for number in (torch.bincount(rows) > 1).nonzero().flatten().tolist():
            if digests[number] is None:
                name = os.fsencode(reader.name(number))
                digests[number] = hashlib.blake2b(name, digest_size=16).digest()
    return digests


def common_scale(
    paths: Sequence[Path], verdicts: Sequence[Verdict], request: SourceRequest
) -> tuple[PixelScale, list[str]]:
    """One scale for the pixels of a data set, by a sample of the files with more than eight bits; what to say of it."""
    scale = request.scale
    deep = [path for path, verdict in zip(paths, verdicts, strict=True) if verdict.deep]
    if scale.white is not None or not deep:
        return scale, []
    chosen = [deep[round(place)] for place in np.linspace(0, len(deep) - 1, min(SAMPLE, len(deep)))]
    maxima = [most for most in pool().map(lambda path: _brightest(path, scale), chosen) if most is not None]
    if not maxima:
        return scale, []
    white, brighter = common_white(maxima)
    whole = white_above(max(maxima))
    note = scale_note(
        maxima,
        white,
        brighter,
        f"values of {len(deep)} deep pictures" if len(deep) < len(paths) else "values",
    )
    return PixelScale(0.0, white, scale.bands), note if whole > 1 else []


def _brightest(path: Path, scale: PixelScale) -> float | None:
    """The largest value of a picture; None where it cannot be read, which is told where it is needed."""
    try:
        values = deep_values(path.read_bytes())
        return None if values is None else float(scale.chosen(values).max())
    except Exception:  # decoders meet damaged files with almost any exception
        return None


def _digest(reader: FileReader, index: int) -> bytes | None:
    try:
        with open(reader.path(index), "rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
    except OSError:
        return None
