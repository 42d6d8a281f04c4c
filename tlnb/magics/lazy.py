"""A stand-in for the session, so that ``%load_ext tlnb`` need not wait for torch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def is_session(value: object) -> bool:
    """Whether ``value`` is a session."""
    return _is_a(value, "tlnb.session.session.Session")


def is_stand_in(value: object) -> bool:
    """Whether ``value`` stands for a session that may not be there yet."""
    return _is_a(value, f"{__name__}.LazySession")


def _is_a(value: object, name: str) -> bool:
    # Compared by name: after %autoreload the class of an old object is no longer the class of that name.
    return any(f"{kind.__module__}.{kind.__qualname__}" == name for kind in type(value).__mro__)


class LazySession:
    """What ``tl`` is until the first use; every use goes to the session that ``build`` makes then.

    ``isinstance(tl, tlnb.Session)`` holds. Asking for it builds nothing, since Jupyter asks every variable
    for its class now and then.

    Args:
        build: gives the session, the same one at each call.
    """

    __slots__ = ("_build",)

    def __init__(self, build: Callable[[], Any]) -> None:
        object.__setattr__(self, "_build", build)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        module = sys.modules.get("tlnb.session")
        return getattr(module, "Session", LazySession)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._build(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._build(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._build(), name)

    def __dir__(self) -> list[str]:
        return dir(self._build())

    def __repr__(self) -> str:
        return repr(self._build())
