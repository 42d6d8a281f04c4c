"""A shell with the magics, and a session that writes down what it is asked to do."""

from __future__ import annotations

from typing import Any

import pytest

import tlnb
from tlnb.session import Session

METHODS = ("load", "data", "head", "freeze", "unfreeze", "find_lr", "train", "run", "status")


class Recorder(Session):
    """A session whose methods only note their arguments, and answer with their own name."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []


def _noting(name: str) -> Any:
    def method(self: Recorder, *args: Any, **kwargs: Any) -> str:
        self.calls.append((name, args, kwargs))
        return f"answer of {name}"

    return method


for _name in METHODS:
    setattr(Recorder, _name, _noting(_name))


@pytest.fixture
def tl(shell: Any) -> Recorder:
    """The recorder, in the place of the session of a shell that has the magics."""
    tlnb.load_ipython_extension(shell)
    shell.user_ns["tl"] = Recorder()
    return shell.user_ns["tl"]
