"""The proof that frozen layers did not change."""

from __future__ import annotations

from torch import nn

from tlnb.engine.network import freezing
from tlnb.engine.network.layers import LayerMap
from tlnb.errors import TrainingError


class FrozenDigest:
    """The digest of the frozen layers, taken anew only where a tensor was written to.

    torch counts the in-place writes to each tensor. The count misses writes through ``.data``, so the digest
    at the end of a stage is always taken from the bytes.
    """

    def __init__(self, model: nn.Module, layers: LayerMap, frozen: tuple[int, ...]):
        self._of = (model, layers, frozen)
        self._tensors = [tensor for _, tensor in freezing.state_of(*self._of)]
        self.value = self.taken_anew()

    def now(self) -> str:
        """The digest, from the bytes only if a write was counted since the last time."""
        if self._counts() != self._seen:
            self.taken_anew()
        return self.value

    def taken_anew(self) -> str:
        """The digest of the bytes; empty where nothing is frozen."""
        self.value = freezing.digest(*self._of) if self._of[2] else ""
        self._seen = self._counts()
        return self.value

    def _counts(self) -> list[tuple[int, int]]:
        return [(tensor.data_ptr(), tensor._version) for tensor in self._tensors]


def promise_kept(before: str, after: str, names: str) -> None:
    """Frozen means frozen.

    Raises:
        TrainingError: the digest of the frozen layers changed.
    """
    if before != after:
        raise TrainingError(
            f"frozen {names} changed during the stage; something outside tlnb wrote to them "
            "(a training step of your own, or a reference kept elsewhere)"
        )
