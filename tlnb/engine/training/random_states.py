"""The random states that training draws from: torch on each device, numpy and Python."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

_GENERATOR = "MT19937"


def random_states() -> dict[str, Tensor]:
    """The states as they are now, as tensors with plain names (``torch``, ``cuda.0``, ``numpy``, ``python``).

    numpy's and Python's generators are Mersenne twisters: 624 words of 32 bits, the place among them, and the
    second number of a pair of Gaussian ones where it was drawn already.
    """
    states = {"torch": torch.get_rng_state()}
    # A device that nobody has used yet has no state to lose, and asking for one would start it.
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states |= {f"cuda.{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    _, keys, place, has_gauss, gauss = np.random.get_state()
    states["numpy"] = torch.tensor([*map(int, keys), place, has_gauss])
    states["numpy.gauss"] = torch.tensor([gauss], dtype=torch.float64)
    _, words, drawn = random.getstate()
    states["python"] = torch.tensor([*words, drawn is not None])
    states["python.gauss"] = torch.tensor([drawn or 0.0], dtype=torch.float64)
    return states


def set_random_states(states: Mapping[str, Tensor]) -> None:
    """Put states back that ``random_states`` gave; those of devices that are not here are left out.

    Raises:
        KeyError, ValueError, RuntimeError: these are no such states.
    """
    *words, has = map(int, states["python"].tolist())
    random.setstate((random.getstate()[0], tuple(words), float(states["python.gauss"][0]) if has else None))
    *keys, place, has_gauss = map(int, states["numpy"].tolist())
    gauss = float(states["numpy.gauss"][0])
    np.random.set_state((_GENERATOR, np.array(keys, dtype=np.uint32), place, has_gauss, gauss))
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            if f"cuda.{i}" in states:
                torch.cuda.set_rng_state(states[f"cuda.{i}"], i)
    if torch.backends.mps.is_available() and "mps" in states:
        torch.mps.set_rng_state(states["mps"])
