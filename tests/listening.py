"""A listener that keeps what the session says."""

from __future__ import annotations


class Ear:
    def __init__(self) -> None:
        self.said: list[str] = []

    def on_message(self, text: str) -> None:
        self.said.append(text)
