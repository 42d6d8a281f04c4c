"""The session: one model, its data, its plan and its history. Magics and widgets act on it alone.

``session`` is the facade; ``state`` is all that it holds, as one frozen value, and ``change`` the one way to set it.
The parts that it is composed of stand in files of their own: ``network`` and ``heads``, ``training`` and ``plans``,
``checkpoints`` and ``snapshot``, and what takes part in training by ``hooks``: ``old_task``, ``recorder``, ``undo``,
``autosave``. What is computed from a session alone is a function of a ``view``: ``reports``, ``exporting``.
"""

from __future__ import annotations

from tlnb.session.session import Session

__all__ = ["Session"]
