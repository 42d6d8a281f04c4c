"""Transfer learning in a Jupyter notebook, by magics and widgets, on PyTorch.

``%load_ext tlnb`` in a notebook, or ``tl = tlnb.Session()`` in plain Python.
"""

from __future__ import annotations

from typing import Any

from tlnb.version import __version__

__all__ = ["Session", "__version__", "load_ipython_extension", "unload_ipython_extension"]


def __getattr__(name: str) -> Any:
    # The session needs torch, which takes seconds to import: only when somebody asks for it.
    if name == "Session":
        from tlnb.session import Session

        return Session
    raise AttributeError(f"module 'tlnb' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__  # what Tab offers


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext tlnb``: register the magics and put the session into the namespace as ``tl``."""
    from tlnb.magics import load

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """``%unload_ext tlnb``: take the magics away again; the session stays in ``tl``."""
    from tlnb.magics import unload

    unload(shell)
