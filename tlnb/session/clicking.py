"""What needs pictures and buttons: the panel, and unfreezing with the range test at once."""

from __future__ import annotations

from tlnb.answers import Change, PanelCard
from tlnb.session.network import Network
from tlnb.session.train import Training


class Clicking(Network, Training):
    """The panel; unfreezing followed by a range test."""

    def unfreeze(self, where: object, *, find: bool = False) -> Change:
        """Let these layers train; the others stay as they are.

        Args:
            where: which layers.
            find: run the range test on what is unfrozen then; the answer has it as ``curve``.

        Raises:
            NotReady: no model yet; with ``find``, no data. Nothing has changed then.
            AddressError: the address hits nothing; nothing has changed then.
        """
        if find:
            self._need_ready()
        change = super().unfreeze(where)
        if find:
            change.curve = self.find_lr()
        return change

    def panel(self) -> PanelCard:
        """Network, data, layers, rate and training in one place, to click; in a notebook that is open."""
        return PanelCard(str(self._loaded or ""), str(self._data or ""), self._frozen_indexes())
