"""An output right below a view, which holds the view's static fallback and is written anew as things happen."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any


class Slot:
    """A place in a cell's output that can be filled, filled again and emptied.

    A front end keeps what was put there last, also when the kernel dies.

    Args:
        publish: of the shell's display publisher.
        nothing: HTML that shows nothing, for as long as the slot is empty.
    """

    def __init__(self, publish: Callable[..., Any], nothing: str = ""):
        self._publish = publish
        self._transient = {"display_id": f"tlnb-{secrets.token_hex(8)}"}
        self._nothing = {"text/plain": "", "text/html": nothing}
        self._send(self._nothing, update=False)

    def put(self, text: str, html: str) -> None:
        """Show this and nothing else."""
        self.show({"text/plain": text, "text/html": html})

    def show(self, bundle: dict[str, Any]) -> None:
        """Show what a bundle of types holds and nothing else."""
        self._send(bundle, update=True)

    def clear(self) -> None:
        """Show nothing."""
        self._send(self._nothing, update=True)

    def _send(self, bundle: dict[str, Any], *, update: bool) -> None:
        self._publish(data=bundle, metadata={}, transient=self._transient, update=update)
