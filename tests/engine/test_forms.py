"""Modules in forms that their authors never saw: each trains, frozen or not, and nothing stays behind in it."""

from __future__ import annotations

import io
import random
import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tlnb.engine.core.modules import duplicate, set_training
from tlnb.errors import ModelError, TrainingError
from tlnb.session import Session

X = torch.rand(24, 3, 8, 8, generator=torch.Generator().manual_seed(1))
Y = torch.arange(24) % 2


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c1, self.bn = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.c2, self.fc = nn.Conv2d(4, 8, 3, padding=1), nn.Linear(8, 2)

    def maps(self, x: Tensor) -> Tensor:
        return F.relu(self.c2(F.relu(self.bn(self.c1(x)))))

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.maps(x).mean((2, 3)))


class Views(Base):
    """The tutorial's own flattening, which images with channels last do not take."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(512, 2)

    def forward(self, x: Tensor) -> Any:
        maps = self.maps(x)
        return self.fc(maps.view(maps.size(0), -1))


class ViewingBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        count, channels, *_ = x.shape
        return (x.view(count, channels, -1) + self.b(self.a(x)).view(count, channels, -1)).view(x.shape)


class InsideBlocks(Base):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(ViewingBlock(), ViewingBlock())

    def forward(self, x: Tensor) -> Any:
        return self.fc(F.relu(self.c2(self.blocks(self.c1(x)))).mean((2, 3)))


class Strides(Base):
    """Reads memory as if channels came first: with channels last it would give other numbers, not an error."""

    def forward(self, x: Tensor) -> Any:
        maps = self.maps(x)
        return self.fc(torch.as_strided(maps, (len(maps), 8, 64), (512, 64, 1))[:, :, :40].mean(2))


class ViewsInTraining(Base):
    def forward(self, x: Tensor) -> Any:
        maps = self.maps(x)
        maps = maps.view(len(x), 8, -1) if self.training else maps.flatten(2)
        return self.fc(maps.mean(2))


class Normed(Base):
    """Weights that hooks make at each call."""

    def __init__(self) -> None:
        super().__init__()
        with pytest.warns(FutureWarning):
            self.c1 = nn.utils.weight_norm(self.c1)
        self.c2 = nn.utils.spectral_norm(self.c2)


class Output(OrderedDict[str, Tensor]):
    def __getattr__(self, name: str) -> Tensor:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Answers(Base):
    def forward(self, x: Tensor, labels: object = None) -> Any:
        return Output(logits=super().forward(x))


@dataclass
class Record:
    logits: Tensor
    hidden: object = None


class AnswersRecords(Base):
    def forward(self, x: Tensor) -> Any:
        return Record(super().forward(x))


class Keeps(Base):
    """Assigns to itself, in place of a buffer too."""

    ema: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("ema", torch.zeros(8))
        self.calls, self.log, self.last = 0, [], {}  # type: ignore[var-annotated]

    def forward(self, x: Tensor) -> Any:
        maps = self.maps(x)
        self.ema = 0.9 * self.ema + 0.1 * maps.detach().mean((0, 2, 3))
        self.calls += 1
        self.log.append(maps.mean())
        self.last["maps"] = maps
        return self.fc(maps.mean((2, 3)))


class KeepsInTraining(Keeps):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x) if self.training else Base.forward(self, x)


class KeepsInPlace(Keeps):
    def forward(self, x: Tensor) -> Any:
        maps = self.maps(x)
        self.ema.mul_(0.9).add_(0.1 * maps.detach().mean((0, 2, 3)))
        return self.fc(maps.mean((2, 3)))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.map = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), None

    def forward(self, x: Tensor) -> Any:
        self.map = self.b(self.a(x)).sigmoid()
        return x * self.map


class KeepsInside(Base):
    """Only the block that keeps something is left whole; the network can still be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Attention(), Attention())

    def forward(self, x: Tensor) -> Any:
        return self.fc(F.relu(self.c2(self.blocks(self.c1(x)))).mean((2, 3)))


class Locked(Base):
    def __init__(self) -> None:
        super().__init__()
        self.lock, self.kept = threading.Lock(), {"queue": [threading.RLock()]}
        self.c1.lock = threading.RLock()  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Any:
        with self.lock:
            return super().forward(x)


class Precise(Base):
    def forward(self, x: Tensor) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            maps = self.maps(x)
        return self.fc(maps.float().mean((2, 3)))


class Checkpointed(Base):
    """A block that runs again in the backward pass, where its BatchNorm counts the batch a second time."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8)

    def block(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.c2(x)))

    def maps(self, x: Tensor) -> Tensor:
        return checkpoint(self.block, F.relu(self.bn(self.c1(x))), use_reentrant=False)


def test_a_checkpointed_block_counts_as_in_the_modules_own_passes() -> None:
    tl, net = loaded(Checkpointed)
    tl.freeze("c1")
    norm = duplicate(net.norm)
    tl.train(epochs=1, lr=1e-9, batch=24, optimizer="sgd", schedule="constant", bn="train")
    net.eval()
    norm.train()
    with torch.no_grad():
        features = net.c2(F.relu(net.bn(net.c1(X[tl.split.train]))))
        for _ in range(2):
            norm(features)
    assert torch.allclose(net.norm.running_mean, norm.running_mean, atol=1e-5)
    assert torch.allclose(net.norm.running_var, norm.running_var, atol=1e-5)


class Skips(Base):
    """Leaves out its middle in training whenever the first number of Python's stream is below a half (LayerDrop)."""

    def forward(self, x: Tensor) -> Any:
        maps = F.relu(self.bn(self.c1(x)))
        self.draws.append(random.random())
        middle = self.c2(maps) if not self.training or len(self.draws) % 2 == 0 else maps.repeat(1, 2, 1, 1)
        return self.fc(F.relu(middle).mean((2, 3)))

    def __init__(self) -> None:
        super().__init__()
        self.draws: list[float] = []


class Never(Skips):
    """Draws, and yet nothing is learned from its middle."""

    def forward(self, x: Tensor) -> Any:
        self.draws.append(random.random())
        maps = F.relu(self.bn(self.c1(x)))
        return self.fc((maps.repeat(1, 2, 1, 1) + self.c2(maps).detach()).mean((2, 3)))


def test_layers_that_a_step_skips_at_random_are_reached_by_later_ones() -> None:
    tl, net = loaded(Skips)
    before = net.c2.weight.clone()
    net.draws.clear()
    tl.train(epochs=2, lr=1e-2)
    assert len(net.draws) > 2
    assert not torch.equal(net.c2.weight, before)


def test_a_layer_that_is_never_reached_is_said_after_enough_steps() -> None:
    tl, _ = loaded(Never)
    with pytest.raises(TrainingError, match=r"no gradient reached c2.weight"):
        tl.train(epochs=40, lr=1e-4)
