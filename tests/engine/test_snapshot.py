"""The transaction puts everything back, bit for bit, however the block ends."""

from __future__ import annotations

import _thread
import os
import pickle
import random
import signal
import threading

import numpy as np
import pytest
import torch
from torch import nn

from tlnb.engine.core import snapshot
from tlnb.engine.core.snapshot import transaction


class Net(nn.Module):
    """Batch norm, dropout, a frozen part in eval mode, a buffer that is replaced instead of written to."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.rest = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
        self.register_buffer("calls", torch.zeros(()))
        self.body.requires_grad_(False)

    def forward(self, x):
        self.calls = self.calls + 1
        return self.rest(self.body(x))


def build(warm: bool, kind: str = "adamw"):
    torch.manual_seed(0)
    net = Net()
    net.train()
    net.body.eval()
    groups = [
        {"params": list(net.rest[:2].parameters()), "lr": 1e-3},
        {"params": list(net.rest[2:].parameters()), "lr": 1e-2},
    ]
    optimizer = torch.optim.AdamW(groups) if kind == "adamw" else torch.optim.SGD(groups, momentum=0.9)
    if warm:
        for _ in range(3):
            ruin(net, optimizer, rate=1e-3)
    return net, optimizer


def ruin(net, optimizer, rate: float = 1.0):
    """One step, with every kind of change that a step, or careless code in it, can make."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    x = torch.randn(16, 6)
    loss = net(x).square().mean() * (1 + random.random() + np.random.rand())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def wreck(net, optimizer):
    ruin(net, optimizer)
    net.body.requires_grad_(True)
    net.train()
    net.rest[2].eval()
    net.body[0].weight.data.add_(1)
    net.rest[0].weight.grad = None
    net.body[0].weight.grad = torch.ones_like(net.body[0].weight)
    optimizer.add_param_group({"params": list(net.body.parameters())})
    optimizer.defaults["lr"] = 7.0


def picture(net, optimizer) -> bytes:
    """Everything that must come back, as bytes."""
    tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    return pickle.dumps(
        (
            {n: t.detach().numpy().tobytes() for n, t in tensors.items()},
            {n: None if t.grad is None else t.grad.numpy().tobytes() for n, t in tensors.items()},
            {n: t.requires_grad for n, t in tensors.items()},
            {n: m.training for n, m in net.named_modules()},
            _plain(optimizer.state_dict()),
            _plain(optimizer.defaults),
            torch.get_rng_state().numpy().tobytes(),
            [a.tobytes() if isinstance(a, np.ndarray) else a for a in np.random.get_state()],
            random.getstate(),
        )
    )


def _plain(value):
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list) else value


@pytest.fixture(autouse=True)
def seeds():
    random.seed(1)
    np.random.seed(1)
    handler = signal.getsignal(signal.SIGINT)
    yield
    assert signal.getsignal(signal.SIGINT) is handler, "the signal handler is given back"


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, SystemExit])
def test_everything_comes_back(kind, warm, error):
    net, optimizer = build(warm, kind)
    before = picture(net, optimizer)

    def block():
        with transaction(net, optimizer):
            wreck(net, optimizer)
            assert picture(net, optimizer) != before
            if error:
                raise error("as planned")

    if error:
        with pytest.raises(error, match="as planned"):
            block()
    else:
        block()
    assert picture(net, optimizer) == before


def test_the_picture_notices_each_kind_of_change():
    net, optimizer = build(warm=True)
    changes = [
        lambda: net.body[1].running_mean.add_(1e-7),
        lambda: net.rest[2].eval(),
        lambda: net.body[0].weight.requires_grad_(True),
        lambda: net.rest[0].weight.grad.add_(1),
        lambda: optimizer.param_groups[1].update(lr=0.5),
        lambda: next(iter(optimizer.state.values()))["step"].add_(1),
        lambda: torch.rand(1),
        lambda: np.random.rand(),
        lambda: random.random(),
    ]
    for change in changes:
        before = picture(net, optimizer)
        change()
        assert picture(net, optimizer) != before


def test_nan_everywhere_comes_back():
    net, optimizer = build(warm=True)
    before = picture(net, optimizer)
    with transaction(net, optimizer):
        ruin(net, optimizer, rate=float("nan"))
        assert net.rest[0].weight.isnan().all()
    assert picture(net, optimizer) == before


def test_a_fresh_optimizer_is_fresh_again_and_none_gradients_are_none():
    net, optimizer = build(warm=False)
    with transaction(net, optimizer):
        ruin(net, optimizer)
    assert not optimizer.state
    assert all(p.grad is None for p in net.parameters())


def test_identities_stay():
    net, optimizer = build(warm=True)
    state = next(iter(optimizer.state.values()))

    def ids():
        tensors = [*net.parameters(), *net.buffers(), *optimizer.state, *state.values()]
        grads = [p.grad for p in net.parameters()]
        groups = [*optimizer.param_groups, *(p for g in optimizer.param_groups for p in g["params"])]
        return [id(o) for o in (*tensors, *grads, *groups, optimizer.state, optimizer.param_groups)]

    before = ids()
    with transaction(net, optimizer):
        wreck(net, optimizer)
    assert ids() == before


def test_a_second_round_is_like_the_first():
    """``load_state_dict`` would make the saved moments the live ones, and the second round would differ."""
    net, optimizer = build(warm=True)
    before = picture(net, optimizer)
    for _ in range(3):
        block = transaction(net, optimizer)
        for _ in range(2):
            with block:
                ruin(net, optimizer)
            assert picture(net, optimizer) == before


def test_a_replaced_parameter_and_a_new_buffer_go_again():
    net, optimizer = build(warm=False)
    weight, names = net.rest[0].weight, set(net.state_dict())
    with transaction(net, optimizer):
        net.rest[0].weight = nn.Parameter(torch.zeros(8, 8))
        net.register_buffer("extra", torch.zeros(1))
    assert net.rest[0].weight is weight
    assert set(net.state_dict()) == names


def test_trainable_only_copies_no_frozen_weights_but_all_buffers(monkeypatch):
    net, optimizer = build(warm=True)
    before = picture(net, optimizer)
    seen = []
    keep = snapshot._keep
    monkeypatch.setattr(snapshot, "_keep", lambda value: (seen.append(id(value)), keep(value))[1])
    with transaction(net, optimizer, trainable_only=True):
        ruin(net, optimizer)
        net.body[1].running_mean.add_(1)
    assert id(net.body[0].weight) not in seen
    assert id(net.rest[0].weight) in seen
    assert picture(net, optimizer) == before


def test_lists_inside_the_optimizer_come_back():
    net, _ = build(warm=False)
    x = torch.randn(16, 6)
    optimizer = torch.optim.LBFGS(net.rest.parameters(), history_size=3, max_iter=2)

    def closure():
        optimizer.zero_grad()
        net.rest[2].eval()
        loss = net(x).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    before = picture(net, optimizer)
    with transaction(net, optimizer):
        optimizer.step(closure)
        assert picture(net, optimizer) != before
    assert picture(net, optimizer) == before


def test_a_scaler_left_between_unscale_and_update_steps_again():
    net, optimizer = build(warm=False)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)

    def half_step():
        optimizer.zero_grad()
        scaler.scale(net(torch.randn(16, 6)).square().mean()).backward()
        scaler.unscale_(optimizer)

    half_step()
    scaler.step(optimizer)
    scaler.update()
    before = scaler.state_dict()
    with transaction(net, optimizer, scaler):
        half_step()
        scaler.update(2.0)
        half_step()
    assert scaler.state_dict() == before
    half_step()  # would raise "unscale_() has already been called"


def test_generators_of_ones_own_come_back():
    net, optimizer = build(warm=False)
    shuffle = torch.Generator().manual_seed(3)
    with transaction(net, optimizer, generators=[shuffle]):
        first = torch.randperm(50, generator=shuffle)
    assert torch.equal(torch.randperm(50, generator=shuffle), first)


def test_without_an_optimizer():
    net, optimizer = build(warm=True)
    before = {n: t.clone() for n, t in net.state_dict().items()}
    with transaction(net):
        ruin(net, optimizer)
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())


# ------------------------------------------------------------------------------------ the stop button


@pytest.mark.parametrize("where", ["block", "restore", "block and restore"])
def test_a_real_interrupt_signal(where, monkeypatch):
    net, optimizer = build(warm=True)
    before = picture(net, optimizer)
    if "restore" in where:
        put_back = snapshot.Transaction._put_back
        pressed = []

        def press(self):
            os.kill(os.getpid(), signal.SIGINT)
            pressed.append(1)
            put_back(self)
            os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(snapshot.Transaction, "_put_back", press)

    def block():
        with transaction(net, optimizer):
            wreck(net, optimizer)
            if "block" in where:
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(10**6):
                    pass

    with pytest.raises(KeyboardInterrupt):
        block()
    assert picture(net, optimizer) == before


@pytest.mark.parametrize("number", range(0, 40, 3))
def test_an_interrupt_raised_anywhere_in_the_restore(number, monkeypatch):
    """A KeyboardInterrupt raised by hand from inside the n-th piece of the restore."""
    net, optimizer = build(warm=True)
    before = picture(net, optimizer)
    copy_, count = torch.Tensor.copy_, []

    def interrupting(self, *args):
        count.append(1)
        if len(count) == number + 1:
            raise KeyboardInterrupt
        return copy_(self, *args)

    def block():
        with transaction(net, optimizer):
            wreck(net, optimizer)
            monkeypatch.setattr(torch.Tensor, "copy_", interrupting)

    try:
        with pytest.raises(KeyboardInterrupt):
            block()
    finally:
        monkeypatch.undo()
    assert len(count) > number
    assert picture(net, optimizer) == before


def test_interrupts_rained_on_it_from_another_thread():
    """Whenever the interrupt hits, the state is whole; it may hit before, inside or after the ``with``."""
    net, optimizer = build(warm=True)
    before = picture(net, optimizer)
    hits = 0
    for delay in np.linspace(0, 4e-3, 60):
        timer = threading.Timer(delay, _thread.interrupt_main)
        try:
            timer.start()
            with transaction(net, optimizer):
                ruin(net, optimizer)
            timer.join()
            for _ in range(10**4):
                pass
        except KeyboardInterrupt:
            hits += 1
        timer.join()
        assert picture(net, optimizer) == before
    assert hits >= 50


def test_nested_transactions_and_an_interrupt_in_the_inner_restore(monkeypatch):
    net, optimizer = build(warm=True)
    before = picture(net, optimizer)
    put_back = snapshot.Transaction._put_back
    pressed = []

    def press_once(self):
        if not pressed:
            pressed.append(1)
            os.kill(os.getpid(), signal.SIGINT)
        put_back(self)

    monkeypatch.setattr(snapshot.Transaction, "_put_back", press_once)
    reached = []

    def block():
        with transaction(net, optimizer):
            ruin(net, optimizer)
            with transaction(net, optimizer):
                ruin(net, optimizer)
            reached.append(1)

    with pytest.raises(KeyboardInterrupt):
        block()
    assert not reached
    assert picture(net, optimizer) == before


def test_a_handler_of_the_users_is_called_and_given_back():
    net, optimizer = build(warm=False)
    calls = []
    old = signal.signal(signal.SIGINT, lambda *_: calls.append(1))
    mine = signal.getsignal(signal.SIGINT)
    try:
        with transaction(net, optimizer):
            os.kill(os.getpid(), signal.SIGINT)
            ruin(net, optimizer)
        assert calls == [1]
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, old)


def test_in_another_thread():
    net, optimizer = build(warm=True)
    before = picture(net, optimizer)
    errors = []

    def work():
        try:
            with transaction(net, optimizer):
                ruin(net, optimizer)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not errors
    assert picture(net, optimizer) == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu():
    net = Net().cuda()
    optimizer = torch.optim.AdamW(net.rest.parameters())
    weights = {n: t.clone() for n, t in net.state_dict().items()}
    random_state = torch.cuda.get_rng_state()
    with transaction(net, optimizer):
        net(torch.randn(16, 6, device="cuda")).square().mean().backward()
        optimizer.step()
    assert all(torch.equal(t, weights[n]) for n, t in net.state_dict().items())
    assert torch.equal(torch.cuda.get_rng_state(), random_state)
    assert not optimizer.state
