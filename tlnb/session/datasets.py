"""The data of a session."""

from __future__ import annotations

from tlnb.engine import data
from tlnb.session.network import Network


class Datasets(Network):
    """Name the data; the network is fitted to it."""

    def data(
        self,
        source: object,
        *,
        valid: float = 0.2,
        size: int | None = None,
        batch: int = 64,
        per_class: int | None = None,
        seed: int = 0,
    ) -> data.Data:
        """Name the data; a loaded network gets a new head where the classes are not those it knows.

        Args:
            source: ``digits`` or ``glyphs``.
            valid: share of the samples to validate on.
            size: side of the training images in pixels, where it is not the network's own.
            batch: samples a step.
            per_class: at most this many training samples of each class.
            seed: of the split, the new head, the order of samples and dropout.

        Raises:
            DataError: nothing has changed then.
        """
        fresh = data.load_data(source, valid=valid, per_class=per_class, batch=batch, seed=seed, size=size)
        if self._loaded is not None:
            self._fit_data(fresh)
        self._data = fresh
        return fresh
