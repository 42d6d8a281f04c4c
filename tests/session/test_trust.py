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
        assert tl.view.routes.cache.saved > 0


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
    passes = tl.view.routes.cache.spent
    tl.train(lr=1e-3, views=2)
    assert tl.view.routes.cache.spent == passes
    shift[0] = 40
    tl.train(lr=1e-3, views=2)
    assert tl.view.routes.cache.spent > passes
