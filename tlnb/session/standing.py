"""Where a session stands, in words."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from tlnb.answers import Lines
from tlnb.engine.doctor import examine
from tlnb.engine.features.samples import show_bytes
from tlnb.engine.table import Table
from tlnb.engine.training.history import History, show_metric, spans
from tlnb.session.state import State

FROZEN_MEANS = "frozen layers take no gradient, are not in the optimizer, and run in test mode"


class Standing(State):
    """History and status."""

    @property
    def history(self) -> History:
        """Every epoch of every stage since the model was loaded."""
        return self._history

    def status(self, *, env: bool = False) -> Lines | Table:
        """Where the session stands.

        Args:
            env: say instead what is installed and what can be done here.
        """
        if env:
            return examine()
        return Lines(*self._status())

    def _status(self) -> Iterable[str]:
        yield f"model    {self._loaded}" if self._loaded else "model    none; %tl_load convnet5 loads one"
        yield f"data     {self._data}" if self._data else "data     none; %tl_data digits names some"
        if self._layers is not None:
            frozen = self._frozen_indexes()
            yield f"layers   {len(self._layers)}; frozen {spans(frozen)}; {self.layers.summary}"
            yield f"         {FROZEN_MEANS}"
        if (last := self._history.final) is not None:
            yield (
                f"trained  {len(self._history.stages)} stages, {len(self._history)} epochs; "
                f"{last.metric_name} {show_metric(last)}"
            )
        yield from self._cached()
        yield f"device   {self.device}, {torch.get_num_threads()} threads"

    def _cached(self) -> Iterable[str]:
        """What is kept of frozen first parts, and what that saved."""
        cache = self._routes.cache
        held = {place: cache.bytes(place) for place in ("device", "memory", "file")}
        if any(held.values()):
            places = ", ".join(f"{show_bytes(size)} in {place}" for place, size in held.items() if size)
            saved = max(cache.saved - cache.spent, 0.0)
            yield f"features {places} of frozen first parts; saved {saved:.1f} s"
