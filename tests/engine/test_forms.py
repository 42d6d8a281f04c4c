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
    def forward(self, x: Tensor) -> Any:
        return self.fc(checkpoint(self.maps, x, use_reentrant=False).mean((2, 3)))


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


class Reverses(Base):
    """A backward pass of its own, which a graph would lose."""

    def forward(self, x: Tensor) -> Any:
        return self.fc(Reversed.apply(self.maps(x)).mean((2, 3)))  # type: ignore[no-untyped-call]


class Watched(Base):
    """A hook collects what passes; it must never see a stand-in for a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(self.c1, nn.ReLU(), self.c2)
        self.seen: list[Any] = []
        self.body.register_forward_hook(lambda module, args, answer: self.seen.append(answer))

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.body(x).mean((2, 3)))


class Energies(Base):
    """Takes a gradient inside its forward, as networks of forces do."""

    def forward(self, x: Tensor) -> Any:
        with torch.enable_grad():
            y = x.clone().requires_grad_()
            (slope,) = torch.autograd.grad(self.maps(y).sum(), y, create_graph=True)
        return self.fc(self.maps(slope).mean((2, 3)))


class Scripted(Base):
    def __init__(self) -> None:
        super().__init__()
        self.c1 = torch.jit.script(self.c1)


class StillNorm(Base):
    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        super().train(mode)
        self.bn.eval()


class OwnLoop(Base):
    """``train`` and ``eval`` are loops over batches."""

    def train(self, loader, epochs=1):  # type: ignore[no-untyped-def, override]
        for _ in loader:
            raise AssertionError

    def eval(self, loader):  # type: ignore[no-untyped-def, override]
        raise AssertionError


ALL = [
    Views, InsideBlocks, Strides, ViewsInTraining, Normed, Answers, AnswersRecords, Keeps, KeepsInTraining,
    KeepsInPlace, KeepsInside, Locked, Precise, Checkpointed, Reverses, Watched, Energies, Scripted, StillNorm, OwnLoop,
]  # fmt: skip


def loaded(kind: type[Base]) -> tuple[Session, Base]:
    torch.manual_seed(0)
    net, tl = kind(), Session([])
    tl.load(net, input="3,8,8")
    tl.data((X, Y), batch=8, augment="none")
    return tl, net


def stand_ins(value: object, depth: int = 4) -> bool:
    if isinstance(value, fx.Proxy):
        return True
    inner = list(value.values()) if isinstance(value, dict) else value
    return depth > 0 and isinstance(inner, list | tuple) and any(stand_ins(item, depth - 1) for item in inner)


@pytest.mark.parametrize("kind", ALL)
def test_it_trains_whole_and_behind_a_frozen_part_as_without_a_short_way(kind: type[Base]) -> None:
    weights = []
    for cache in (True, False):
        tl, net = loaded(kind)
        tl.train(epochs=1, lr=1e-3, cache=cache)
        tl.freeze("body")
        tl.train(epochs=2, lr=1e-2, cache=cache)
        weights.append(net.fc.weight.detach().clone())
        tl.predict(X[:2])
        assert not any(stand_ins(vars(m)) for m in net.modules())
        torch.save(net.state_dict(), io.BytesIO())
    assert torch.allclose(*weights, rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("kind", [Keeps, KeepsInTraining, KeepsInPlace, KeepsInside, Watched, Locked])
def test_loading_leaves_nothing_in_the_module(kind: type[Base]) -> None:
    tl, net = loaded(kind)
    assert all(not module._forward_hooks for name, module in net.named_modules() if name != "body")
    if isinstance(net, Keeps):
        assert not net.ema.any()
        assert (net.calls, net.log, net.last) == (0, [], {})
    if isinstance(net, KeepsInside):
        assert net.blocks[0].map is None  # type: ignore[union-attr]
        assert tl.view.need_layers().graph is not None
    if isinstance(net, Watched):
        assert net.seen == [] or all(type(seen) is Tensor for seen in net.seen)


def test_a_buffer_that_the_forward_writes_stays_where_its_layer_is_frozen() -> None:
    for kind in (Keeps, KeepsInPlace, KeepsInTraining):
        tl, net = loaded(kind)
        tl.train(epochs=1, lr=1e-3)
        before = net.ema.clone()
        assert before.any()
        tl.freeze("body")
        stage = tl.train(epochs=1, lr=1e-3).stages[0]
        assert torch.equal(net.ema, before)
        assert stage.digest_before == stage.digest_after


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Keeps, r"keeps something in itself \(Keeps.ema\)"),
        (Precise, "a part of its forward runs under switches"),
        (Reverses, "a backward pass of its own"),
    ],
)
def test_one_line_says_that_the_plain_form_is_used(kind: type[Base], reason: str) -> None:
    tl, _ = loaded(kind)
    lines = [note for note in tl.view.need_model().notes if "no cut" in note]
    assert len(lines) == 1
    assert "trains the ordinary way" in lines[0]

    assert re.search(reason, lines[0])


def test_what_no_gradient_reaches_does_not_depend_on_what_is_frozen() -> None:
    class Without(Base):
        def forward(self, x: Tensor) -> Any:
            with torch.no_grad():
                maps = self.maps(x)
            return self.fc(maps.mean((2, 3)))

    for frozen, names in (("none", "c1.weight"), ("c1", "c2.weight")):
        tl, net = loaded(Without)
        if frozen != "none":
            tl.freeze(frozen)
        before = net.c2.weight.clone()
        with pytest.raises(TrainingError, match=f"no gradient reached {names}"):
            tl.train(epochs=1, lr=1e-2)
        assert torch.equal(net.c2.weight, before)


def test_gradients_are_those_of_the_modules_own_backward_pass() -> None:
    tl, net = loaded(Reverses)
    twin = duplicate(net)
    tl.train(epochs=1, lr=1e-2, optimizer="sgd", schedule="constant", batch=24)
    plain, _ = loaded(Base)
    # Downhill is uphill for what lies before the reversal.
    plain.model.load_state_dict(twin.state_dict())
    plain.train(epochs=1, lr=1e-2, optimizer="sgd", schedule="constant", batch=24)
    ours, theirs = net.c2.weight - twin.c2.weight, plain.model.get_parameter("c2.weight") - twin.c2.weight
    assert F.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) < -0.9


def test_volumes_train_behind_a_frozen_part() -> None:
    net = nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(),
        nn.Linear(4, 2),
    )  # fmt: skip
    tl = Session([])
    tl.load(net)
    tl.data((torch.rand(20, 1, 4, 8, 8), torch.arange(20) % 2), batch=8)
    tl.freeze("body")
    assert "ran once" in tl.train(epochs=1, lr=1e-2).stages[0].shortcut


def test_weights_made_in_the_first_forward_are_asked_for() -> None:
    class Late(Base):
        def forward(self, x: Tensor) -> Any:
            if not hasattr(self, "late"):
                self.late = nn.Linear(8, 2)
            return self.late(self.maps(x).mean((2, 3)))

    net = Late()
    with pytest.raises(
        ModelError, match=r"makes the weight 'late.weight' in its first forward; run one batch"
    ):
        Session([]).load(net, input="3,8,8")
    assert not hasattr(net, "late")
    net(X)
    tl = Session([])
    tl.load(net, input="3,8,8")
    tl.data((X, Y), batch=8)
    assert tl.train(epochs=1, lr=1e-3).stages[0].records


def test_modes_are_set_past_a_train_that_is_something_else() -> None:
    net = nn.Sequential(OwnLoop(), StillNorm())
    for training in (True, False):
        set_training(net, training)
        flags = {name: module.training for name, module in net.named_modules()}
        assert flags.pop("1.bn") is False
        assert set(flags.values()) == {training}


def test_a_copy_shares_no_weight_and_only_what_cannot_be_copied() -> None:
    for kind in (Locked, Normed, Scripted):
        net = kind()
        net(X[:2])
        twin = duplicate(net)
        ours = {t.data_ptr() for t in (*net.parameters(), *net.buffers())}
        assert not ours & {t.data_ptr() for t in (*twin.parameters(), *twin.buffers())}
        assert [p.requires_grad for p in net.parameters()] == [p.requires_grad for p in twin.parameters()]
        assert torch.allclose(net.eval()(X[:2]), twin.eval()(X[:2]), atol=1e-6)
    assert duplicate(locked := Locked()).lock is locked.lock


class CountsTwice(Base):
    """A block that runs again in the backward pass, where its BatchNorm counts the batch a second time."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8)

    def block(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.c2(x)))

    def maps(self, x: Tensor) -> Tensor:
        return checkpoint(self.block, F.relu(self.bn(self.c1(x))), use_reentrant=False)


def test_a_checkpointed_block_counts_as_in_the_modules_own_passes() -> None:
    tl, net = loaded(CountsTwice)
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
