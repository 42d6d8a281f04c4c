"""Everything random: the order of the samples, the states that are put back, and streams of one's own.

The order of the samples: a function of seed, stage and epoch, so any place in it can be found again.

A random stream of one's own for code that draws from torch's global one.

torchvision's transforms draw from torch's global generator. Seeding that for each picture would disturb
dropout, and could not be done in threads. A ``TorchFunctionMode`` is private to its thread and sees each call
that draws, so it can hand in a generator: any v2 transform then follows the seed alone.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


def seed_for(*numbers: int | str) -> int:
    """One seed from several numbers or names (session seed, stage, epoch); neighbours give unrelated seeds."""
    digest = hashlib.sha256(",".join(map(str, numbers)).encode()).digest()
    return int.from_bytes(digest[:6], "big")


def count_batches(samples: int, size: int) -> int:
    """How many batches ``batches`` makes."""
    parts = -(-samples // size)
    alone = samples - (parts - 1) * size == 1
    return parts - (alone and parts > 1)


def batches(samples: int, size: int, *seeds: int) -> tuple[Tensor, ...]:
    """A random order of all samples, cut into batches.

    Args:
        samples: how many there are.
        size: samples in a batch; the last one may be smaller.
        seeds: session seed, stage number and epoch.

    Returns:
        int64 tensors. A last batch of a single sample joins the one before it, since BatchNorm needs two.
    """
    generator = torch.Generator().manual_seed(seed_for(*seeds))
    parts = list(torch.randperm(samples, generator=generator).split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        last = parts.pop()
        parts[-1] = torch.cat([parts[-1], last])
    return tuple(parts)


POOL = 8  # batches whose samples are sorted by their length among themselves


def batches_by_length(lengths: Tensor, size: int, *seeds: int) -> tuple[Tensor, ...]:
    """A random order of all samples, cut into batches of samples of like length, so that little padding is computed.

    The order is that of ``batches``; each run of eight batches is sorted by length, and the batches are shuffled.

    Args:
        lengths: of each sample, (N,).
        size: samples in a batch; the last one may be smaller.
        seeds: session seed, stage number and epoch.
    """
    order = torch.cat(batches(len(lengths), size, *seeds))
    pools = [part[lengths[part].argsort(stable=True)] for part in order.split(POOL * size)]
    parts = list(torch.cat(pools).split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        last = parts.pop()
        parts[-1] = torch.cat([parts[-1], last])
    generator = torch.Generator().manual_seed(seed_for(*seeds))
    return tuple(parts[i] for i in torch.randperm(len(parts), generator=generator).tolist())


def batches_of(samples: Any, size: int, *seeds: int, mixed: bool = False) -> tuple[Tensor, ...]:
    """The batches of an epoch over samples: by length where they have one, else in a random order.

    Args:
        samples: with ``lengths``, (N,) or None.
        size: samples in a batch.
        seeds: session seed, stage number and epoch.
        mixed: whether each batch is to hold all lengths.
    """
    if mixed or samples.lengths is None:
        return batches(len(samples), size, *seeds)
    return batches_by_length(samples.lengths, size, *seeds)


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


def drawn_since(states: Mapping[str, Tensor]) -> bool:
    """Whether something drew random numbers since ``random_states`` gave these."""
    now = random_states()
    return any(not torch.equal(state, now[name]) for name, state in states.items())


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


@contextmanager
def own_random_state(seed: int) -> Iterator[None]:
    """Seed torch, numpy and Python inside; put the caller's random states back after."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


_DRAWING = {
    torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal, torch.bernoulli, torch.multinomial,
    torch.poisson, Tensor.uniform_, Tensor.normal_, Tensor.random_, Tensor.bernoulli_, Tensor.exponential_,
    Tensor.bernoulli, Tensor.multinomial, Tensor.geometric_, Tensor.log_normal_, Tensor.cauchy_,
}  # fmt: skip
_LIKE: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.rand_like: Tensor.uniform_,
    torch.randn_like: Tensor.normal_,
}


class _OwnStream(TorchFunctionMode):
    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWING and kwargs.get("generator") is None:
            return func(*args, **{**kwargs, "generator": self.generator})
        if func in _LIKE and kwargs.get("generator") is None:
            return _LIKE[func](torch.empty_like(*args, **kwargs), generator=self.generator)
        return func(*args, **kwargs)


def own_stream(seed: int) -> TorchFunctionMode:
    """A context in which what is drawn on the CPU in this thread follows ``seed`` alone."""
    return _OwnStream(torch.Generator().manual_seed(seed))
