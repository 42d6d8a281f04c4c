"""Where features are kept, by cost and budget: on the accelerator, in memory, in a file, or nowhere.

Batches that are gone through more than once and made once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tlnb.engine.core.machine import free_bytes
from tlnb.engine.data.samples import Samples
from tlnb.engine.features.files import SHARDS, FeatureFolder, MappedRows
from tlnb.engine.features.samples import Features
from tlnb.engine.features.shards import Shards

WORTH_A_FILE = 2.0  # seconds of computing, from which on features outlive the kernel
WRITING_SHARE = 0.25  # of these seconds, that writing may take at most
SHARE = 0.4  # of the memory that is free; the rest is for activations, gradients and other programs


@dataclass
class Slot:
    """Room for features that are about to be computed.

    Attributes:
        rows: to be filled.
        place: ``memory``, ``device`` or ``file``.
        mapped: the file, or None.
    """

    rows: Tensor
    place: str
    mapped: MappedRows | None = None


class FeatureCache:
    """Features of a session, found by key.

    Args:
        folder: where files go; None for no files.
        memory: bytes of main memory that it may take; None for 40 % of what is free at the time.
        disk: bytes that the folder may hold; None for 8 GiB, and never more than a quarter of the free disk.
    """

    def __init__(self, folder: Path | None = None, memory: int | None = None, disk: int | None = None):
        self.folder = FeatureFolder(folder, disk) if folder is not None else None
        self.memory = memory
        self.entries: dict[str, Features] = {}  # the one used last comes last
        self.spent = 0.0
        self._promised = 0  # bytes of main memory in slots that are being filled
        self._saved_before = 0.0

    @property
    def saved(self) -> float:
        """Seconds of computing that the features stood in for."""
        return self._saved_before + sum(entry.saved for entry in self.entries.values())

    def bytes(self, place: str) -> int:
        """Size of the features in ``memory``, on the ``device`` or in a ``file``."""
        return sum(entry.bytes for entry in self.entries.values() if entry.place == place)

    def shards(self, keys: Sequence[str]) -> Shards | None:
        """Where slices of these features are kept until all are there; None where nothing goes to the disk.

        Args:
            keys: of all that one pass computes.
        """
        if self.folder is None:
            return None
        name = hashlib.sha256(" ".join(keys).encode()).hexdigest()
        return Shards(self.folder.folder / f"{name}{SHARDS}")

    def find(self, key: str) -> Features | None:
        """The features of that key, from memory or from a file of an earlier kernel, or None."""
        entry = self.entries.pop(key, None) or self._from_file(key)
        if entry is not None:
            self.entries[key] = entry
        return entry

    def slot(
        self,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        seconds: float,
        device: torch.device,
        keep: frozenset[str] = frozenset(),
    ) -> Slot | None:
        """Room for features, or None where computing them each time costs less than keeping them.

        Args:
            shape: (N, ...) of the rows.
            dtype: of the rows.
            seconds: what computing them takes.
            device: where they will be used.
            keep: keys that may not be dropped for it.
        """
        size = dtype.itemsize * int(torch.Size(shape).numel())
        for place, where in (("device", device), ("memory", torch.device("cpu"))):
            if self._fits(size, keep, place, device):
                try:
                    rows = torch.empty(shape, dtype=dtype, device=where)
                except (RuntimeError, MemoryError):  # less is free than was said
                    continue
                self._promised += size if place == "memory" else 0
                return Slot(rows, place)
        folder = self.folder
        try:
            if folder is None or size / folder.speed > seconds or not folder.room(size):
                return None
            mapped = folder.create(shape, dtype)
        except OSError:  # a disk that is full or cannot be written
            return None
        return Slot(mapped.rows, "file", mapped)

    def add(self, key: str, slot: Slot, seconds: float, *, channels_last: bool) -> Features:
        """Keep a slot that has been filled."""
        entry = Features(key, slot.rows, seconds, slot.place, channels_last)
        self._settle(slot)
        if slot.mapped is not None and self.folder is not None:
            entry.release = slot.mapped.release
            self.folder.keep(key, slot.mapped, seconds=seconds, channels_last=channels_last)
            slot.mapped.release()
        elif self._worth_a_file(entry):
            self._save(entry)
        self.entries[key] = entry
        return entry

    def discard(self, slot: Slot) -> None:
        """Give up a slot that was not filled to the end."""
        self._settle(slot)
        if slot.mapped is not None and self.folder is not None:
            self.folder.discard(slot.mapped)

    def forget(self, key: str) -> None:
        """Drop the features of that key, and their file."""
        if key in self.entries:
            self._drop(key)
        if self.folder is not None:
            self.folder.forget(key)

    def clear(self) -> None:
        """Drop what is in memory; files stay."""
        self._saved_before = self.saved
        self.entries.clear()

    def _settle(self, slot: Slot) -> None:
        if slot.place == "memory":
            self._promised -= slot.rows.nbytes

    def _fits(self, size: int, keep: frozenset[str], place: str, device: torch.device) -> bool:
        """Whether the device or main memory has room, after those used longest ago have gone."""
        if place == "device":
            held = self.bytes("device")
            budget = _device_budget(device) + held
        else:
            held = self.bytes("memory") + self._promised
            budget = self.memory if self.memory is not None else int(SHARE * free_bytes()) + held
        if size > budget:
            return False
        for key, entry in list(self.entries.items()):
            if held + size <= budget:
                break
            if entry.place == place and key not in keep:
                held -= entry.bytes
                self._drop(key)
        return held + size <= budget

    def _drop(self, key: str) -> None:
        self._saved_before += self.entries.pop(key).saved

    def _from_file(self, key: str) -> Features | None:
        found = self.folder.find(key) if self.folder is not None else None
        if found is None:
            return None
        mapped, about = found
        seconds, channels_last = float(about["seconds"]), bool(about["channels_last"])  # type: ignore[arg-type]
        return Features(key, mapped.rows, seconds, "file", channels_last, mapped.release)

    def _worth_a_file(self, entry: Features) -> bool:
        if self.folder is None or entry.seconds < WORTH_A_FILE:
            return False
        try:
            fits = entry.bytes <= self.folder.cap
            return fits and entry.bytes / self.folder.speed <= WRITING_SHARE * entry.seconds
        except OSError:
            return False

    def _save(self, entry: Features) -> None:
        assert self.folder is not None
        try:
            if not self.folder.room(entry.bytes):
                return
            mapped = self.folder.create(tuple(entry.rows.shape), entry.rows.dtype)
            mapped.rows.copy_(entry.rows)
            self.folder.keep(entry.key, mapped, seconds=entry.seconds, channels_last=entry.channels_last)
        except OSError:  # the copy in memory is there in any case
            return


def room(device: torch.device) -> int:
    """Bytes that features may take at present in the memory of a device."""
    return _device_budget(device) if device.type == "cuda" else int(SHARE * free_bytes())


def _device_budget(device: torch.device) -> int:
    """Bytes of an accelerator's own memory that features may take; 0 for a CPU, which has none."""
    return int(SHARE * torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 0


class BatchCache:
    """The batches of an order, each made when it is first asked for and kept while there is room.

    The range test goes through the same few batches again and again. Where samples change at random, or run
    through a frozen part whose output is not kept, making a batch costs far more than a step on it.

    Args:
        samples: what the batches are made of, as one view shows them.
        order: numbers of the samples in each batch, int64.
        budget: bytes that may be kept; None for a share of what is free where the batches lie.
    """

    def __init__(self, samples: Samples, order: Sequence[Tensor], budget: int | None = None):
        self.samples, self.order, self.budget = samples, order, budget
        self._kept: dict[int, Tensor] = {}
        self._left: dict[torch.device, int] = {}

    def stream(self) -> Iterator[Tensor]:
        """Every batch in order, prepared ahead where the samples do so."""
        for at, made in enumerate(self.samples.stream(self.order)):
            yield self._keep(at, made)

    def __getitem__(self, at: int) -> Tensor:
        """The batch at a place of the order: a fresh tensor that the caller may change."""
        kept = self._kept.get(at)
        return self._keep(at, self.samples.batch(self.order[at])) if kept is None else kept.clone()

    def _keep(self, at: int, made: Tensor) -> Tensor:
        if self.samples.at_hand:
            return made
        left = self._left.get(made.device)
        if left is None:
            left = room(made.device) if self.budget is None else self.budget
        if made.nbytes <= left:
            left -= made.nbytes
            self._kept[at] = made.clone()  # what is given away may be written to by an in-place layer
        self._left[made.device] = left
        return made
