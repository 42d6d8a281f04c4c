"""What a test file leaves behind in its process is put back, and said: no file may depend on which ones ran before it.

Within a file the order is fixed, and fixtures of a module may hold what they like until its end; so this looks only
between files. It takes microseconds.
"""

from __future__ import annotations

import builtins
import os
import random
import signal
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

OURS = ("TLNB_", "HF_", "PYTHON")
"""New variables with these beginnings are put back too; others are those that libraries set when they are imported."""
KEPT = ("PYTEST_CURRENT_TEST", "TLNB_TEST_FORKS")


class LeftBehind:
    """The state of the process as it is now.

    The generators of random numbers start anew after each file and are not spoken of: tests draw from them.
    """

    def __init__(self) -> None:
        self.environment = dict(os.environ)
        self.builtins = {name: value for name, value in vars(builtins).items() if name != "_"}
        self.folder = os.getcwd()
        self.values = {name: get() for name, (get, _) in _VALUES.items()}
        self.drawn = random.getstate(), np.random.get_state(), torch.get_rng_state()

    def put_back(self) -> list[str]:
        """Put all back; the names of what was otherwise."""
        changed = [*self._builtins(), *self._environment()]
        if _folder() != self.folder:
            os.chdir(self.folder)
            changed.append("the working folder")
        for name, (get, put) in _VALUES.items():
            if get() != self.values[name]:
                put(self.values[name])
                changed.append(name)
        random.setstate(self.drawn[0])
        np.random.set_state(self.drawn[1])
        torch.set_rng_state(self.drawn[2])
        if "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close("all")
        return changed

    def _builtins(self) -> list[str]:
        changed = [name for name, value in self.builtins.items() if vars(builtins).get(name) is not value]
        for name in changed:
            setattr(builtins, name, self.builtins[name])
        return [f"builtins.{name}" for name in changed]

    def _environment(self) -> list[str]:
        changed = [name for name, value in self.environment.items() if os.environ.get(name) != value]
        new = [name for name in os.environ if name not in self.environment and name.startswith(OURS)]
        found = [name for name in (*changed, *new) if name not in KEPT]
        for name in found:
            os.environ.pop(name, None)
            if name in self.environment:
                os.environ[name] = self.environment[name]
        return [f"the variable {name}" for name in found]


def _folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was deleted
        return ""


_VALUES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "torch's default type": (torch.get_default_dtype, torch.set_default_dtype),
    "torch's threads": (torch.get_num_threads, torch.set_num_threads),
    "torch's gradients": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch's deterministic algorithms": (
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms,
    ),
    "the answer to Ctrl-C": (
        lambda: signal.getsignal(signal.SIGINT), lambda handler: signal.signal(signal.SIGINT, handler),
    ),
    "the switching of threads": (sys.getswitchinterval, sys.setswitchinterval),
    "the depth of calls": (sys.getrecursionlimit, sys.setrecursionlimit),
}  # fmt: skip
