"""Kept features are never stale, whatever of the network was changed between two stages."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tlnb.session import Session

FACTOR = [1.0]


class Inner(nn.Module):
    """Depends on what is no weight, no buffer and in no ``repr``."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self._scale, self.listed = nn.Linear(6, 6), 1.0, [torch.ones(1)]

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(x) * self._scale * self.listed[0] * FACTOR[0])


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.middle, self.head = Inner(), nn.Linear(6, 8), nn.Linear(8, 3)
        self._factor = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.middle(self.inner(x) * self._factor)))


def doubled(module: nn.Module, args: object, answer: Tensor) -> Tensor:
    return 2 * answer


CHANGES: dict[str, Callable[[Net], object]] = {
    "nothing": lambda net: None,
    "a private attribute": lambda net: setattr(net.inner, "_scale", 2.0),
    "a private attribute of the root": lambda net: setattr(net, "_factor", 3.0),
    "a list": lambda net: net.inner.listed.__setitem__(0, torch.full((1,), 3.0)),
    "a global": lambda net: FACTOR.__setitem__(0, 2.0),
    "a hook": lambda net: net.inner.linear.register_forward_hook(doubled),
    "a hook further out": lambda net: net.inner.register_forward_hook(doubled),
    "a forward of its own": lambda net: setattr(
        net.middle, "forward", lambda x: 2 * F.linear(x, net.middle.weight)
    ),
    "a weight": lambda net: net.inner.linear.weight.data.mul_(2),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_kept_is_what_the_network_computes(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "FACTOR", [1.0])
    torch.manual_seed(0)
    net, tl = Net(), Session([])
    tl.load(net)
    tl.data((torch.randn(60, 6), torch.arange(60) % 3), batch=16, valid=0.5)
    tl.freeze("body")
    tl.train(lr=1e-3)
    CHANGES[change](net)
    run = tl.train(lr=1e-3)
    assert tl._samples is not None
    valid = tl._samples[1]
    with torch.no_grad():
        loss = F.cross_entropy(net(valid.batch(torch.arange(len(valid)))), valid.targets)
    assert run.records[-1].valid_loss == pytest.approx(loss.item(), rel=1e-5)
    otherwise = change == "a private attribute of the root"  # which stands as a constant in the graph
    assert ("load it again" in run.stages[0].shortcut) == otherwise
    if change == "nothing":
        assert tl.view.planner.cache.saved > 0


def test_views_under_a_function_that_changed_are_made_anew() -> None:
    from torchvision.transforms import v2

    shift = [0]
    images = torch.randint(0, 200, (20, 3, 32, 32), dtype=torch.uint8)
    tl = Session([])
    tl.load(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    )
    tl.data((images, torch.arange(20) % 2), augment=v2.Lambda(lambda x: x + shift[0]))
    tl.freeze("body")
    tl.train(lr=1e-3, views=2)
    passes = tl.view.planner.cache.spent
    tl.train(lr=1e-3, views=2)
    assert tl.view.planner.cache.spent == passes
    shift[0] = 40
    tl.train(lr=1e-3, views=2)
    assert tl.view.planner.cache.spent > passes


LIMIT = {"at": 100.0}


class Limits:
    """An object of somebody's, with settings of its own."""

    def __init__(self) -> None:
        self.at = [100.0]


class Opaque:
    """Nothing of it can be written down."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at = 100.0


class Capped(nn.Module):
    """A limit that matters to one sample alone, read from many places."""

    CLASS = 100.0

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.listed, self.named = nn.Linear(6, 6), [1, [100.0]], {"at": (torch.tensor(100.0),)}
        self.object, self.opaque, self.limit = Limits(), Opaque(), lambda: self.listed[1][0]  # type: ignore[index]
        self.closed = self.closure(100.0)

    @staticmethod
    def closure(at: float) -> Callable[[Tensor], Tensor]:
        return lambda x: x.clamp(max=at)

    def forward(self, x: Tensor) -> Tensor:
        least = min(
            self.limit(),
            float(self.named["at"][0]),
            self.object.at[0],
            self.opaque.at,
            LIMIT["at"],
            self.CLASS,
        )
        return self.closed(self.linear(x).clamp(max=least))


class Around(nn.Module):
    """The same behind a door that tracing opens, or in a block that it leaves whole."""

    def __init__(self, opened: bool) -> None:
        super().__init__()
        self.inner, self.opened = nn.Sequential(Block(Capped()), nn.ReLU()), opened
        self.big, self.head = nn.Linear(6, 64), nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.inner[0].capped.forward(x) if self.opened else self.inner(x)  # type: ignore[operator,union-attr]
        return self.head(self.big(x))


class Block(nn.Module):
    def __init__(self, capped: Capped) -> None:
        super().__init__()
        self.capped = capped

    def forward(self, x: Tensor) -> Tensor:
        return x + self.capped(x)


LOWERED: dict[str, Callable[[Capped, pytest.MonkeyPatch], object]] = {
    "a list in a list": lambda m, p: m.listed[1].__setitem__(0, 5.0),  # type: ignore[union-attr]
    "a tensor in a tuple in a dictionary": lambda m, p: m.named["at"][0].fill_(5.0),
    "an object's list": lambda m, p: m.object.at.__setitem__(0, 5.0),
    "what cannot be written down": lambda m, p: setattr(m.opaque, "at", 5.0),
    "a global": lambda m, p: p.setitem(LIMIT, "at", 5.0),
    "the class": lambda m, p: p.setattr(Capped, "CLASS", 5.0),
    "a closure": lambda m, p: setattr(m, "closed", m.closure(5.0)),
}


@pytest.mark.parametrize("opened", [True, False])
@pytest.mark.parametrize("change", LOWERED)
def test_a_change_that_matters_to_one_sample_alone_is_found(
    change: str, opened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    X = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
    X[31] *= 200
    heads = []
    for cache in (True, False):
        torch.manual_seed(0)
        net, tl = Around(opened), Session([])
        capped = next(m for m in net.modules() if isinstance(m, Capped))
        tl.load(net)
        tl.data(((X, torch.arange(60) % 3), (X[:9].clone(), torch.arange(9) % 3)), batch=16)
        tl.freeze("0")
        tl.train(1, 1e-3, cache=cache)
        with monkeypatch.context() as patch:
            LOWERED[change](capped, patch)
            tl.train(2, 1e-2, cache=cache)
        heads.append(net.head.weight.detach().clone())
    assert torch.allclose(*heads, rtol=1e-3, atol=1e-5)


def test_what_can_be_written_down_is_still_kept() -> None:
    net, tl = Net(), Session([])
    tl.load(net)
    tl.data((torch.randn(60, 6), torch.arange(60) % 3), batch=16)
    tl.freeze("body")
    for _ in range(2):
        tl.train(lr=1e-3)
    assert len(tl.view.planner.cache.entries) == 2  # training and validation, once for both stages
