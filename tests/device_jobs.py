"""What a session does on a device, as functions that answer what has to be the same on all of them."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from networks import blobs, small
from safetensors.torch import load_file
from torch import nn

from tlnb.engine.features import cache as features
from tlnb.engine.features import precision
from tlnb.engine.training import optim
from tlnb.session import Session

Found = dict[str, Any]
PAUSED = "freeze body epochs 1 lr 0.02\nunfreeze all epochs 2 lr 0.02 keep {0}"


def pair(count: int = 36, classes: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    found = blobs(count, classes, seed)
    return found.inputs, found.targets


@cache
def taught() -> nn.Module:
    """A network that has learned two classes, so that its weights matter to it."""
    tl = Session([])
    tl.device = "cpu"
    tl.load(small(2), input="1,8,8")
    tl.data(pair(40, 2), batch=16)
    tl.train(2, 0.02)
    return tl.model


def session(device: str, *listeners: object) -> Session:
    """The taught network with data of a third class."""
    tl = Session(listeners)
    tl.device = device
    tl.load(copy.deepcopy(taught()), input="1,8,8")
    tl.data(pair(), batch=16)
    return tl


def flat() -> nn.Module:
    """Linear layers on pixels: it tells the classes apart, and a script can build it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 3))


def on_pixels(device: str, samples: int = 60) -> Session:
    tl = Session([])
    tl.device = device
    tl.load(flat(), input="1,8,8")
    tl.data(pair(samples), valid=0.4, batch=16)
    tl.run("fit head")
    return tl


def outcome(tl: Session, **more: object) -> Found:
    """Weights, buffers and scores, once all tensors are where the session trains, and more."""
    tensors = tl.model.state_dict()
    assert {tensor.device for tensor in tensors.values()} == {torch.device(tl.device)}
    found: Found = {name: tensor.detach().cpu().numpy().tobytes() for name, tensor in tensors.items()}
    return found | {"epochs": [(e.rate, e.accuracy) for e in tl.history], **more}


class StopAt:
    """Asks for a stop after so many batches."""

    def __init__(self, batch: int):
        self.left, self.session = batch, Session([])

    def on_batch(self, step: int, steps: int) -> None:
        self.left -= 1
        if self.left == 0:
            assert self.session.stop_request is not None
            self.session.stop_request.ask()


def default_plan(device: str) -> Found:
    """Fitted head, then a low rate; and what is asked of the result."""
    tl = session(device)
    run = tl.train()
    results = tl.results()
    return outcome(
        tl,
        accuracy=run.accuracy,
        answers=results.answers.tobytes(),
        wrong=[m.index for m in results.mistakes],
    )


def range_test(device: str) -> Found:
    tl = session(device)
    curve = tl.find_lr(steps=12)
    tl.train(1, "auto")
    return outcome(tl, curve=str(curve), rates=[stage.rate for stage in tl.history.stages])


def kept_features(device: str) -> Found:
    """A frozen body runs once; what it gives lies on the device."""
    tl = session(device)
    tl.freeze("body")
    tl.run("freeze body epochs 2 lr 0.02\nfreeze body epochs 1 lr 0.01")
    store = tl.view.planner.cache
    place = "memory" if device == "cpu" else "device"
    assert store.bytes(place) > 0
    assert {e.rows.device.type for e in store.entries.values()} == {torch.device(device).type}
    return outcome(tl, features=store.bytes(place), served=[e.served for e in store.entries.values()])


def partly_frozen(device: str) -> Found:
    tl = session(device)
    tl.freeze("0")
    tl.train(2, 0.02, keep_best=True, bn="frozen")
    return outcome(tl)


def without_a_cache(device: str) -> Found:
    tl = session(device)
    tl.freeze("body")
    tl.train(1, 0.02, cache=False)
    return outcome(tl)


def kept(guard: str) -> Callable[[str], Found]:
    """A stage that is kept near what the network knew, stopped, saved, resumed in a new session and ended."""

    def job(device: str) -> Found:
        listener = StopAt(4)
        tl = listener.session = session(device, listener)
        assert tl.run(PAUSED.format(guard)).stopped
        tl.save(f"kept-{device[:3]}")
        fresh = session(device)
        fresh.resume(f"kept-{device[:3]}")
        fresh.go_on()
        fresh.go_on(epochs=1)  # with the moments of the stage that has ended
        return outcome(fresh)

    return job


def fitted_head(device: str) -> Found:
    tl = session(device)
    tl.run("fit head\nunfreeze all epochs 1 lr 0.01 init soft")
    note = tl.history.stages[0].note
    tl.head("linear", init="fit")
    return outcome(tl, note=note)


def blended_stage(device: str) -> Found:
    tl = session(device)
    tl.run("fit head\nunfreeze all epochs 1 lr 0.01 blend 0.5\nunfreeze all epochs 1 lr 0.01 blend auto")
    return outcome(tl, shares=[stage.share for stage in tl.history.stages])


def ruined_stage(device: str) -> Found:
    """One that ends worse is taken back."""
    tl = on_pixels(device)
    tl.run("unfreeze all epochs 1 lr 50 optimizer sgd")
    assert tl.history.stages[-1].share == 0.0
    return outcome(tl)


def undone(device: str) -> Found:
    tl = session(device)
    tl.freeze("body")
    tl.train(1, 0.02)
    tl.unfreeze("all")
    tl.train(1, 0.02)
    after = outcome(tl)
    tl.undo()
    return {"after": after} | outcome(tl, frozen=tl.frozen)


def old_task(device: str) -> Found:
    tl = session(device)
    tl.forgetting(pair(30, 2, 5))
    tl.train(1, 0.02)
    tl.train(1, 0.02)
    left, blend = tl.forgetting(), tl.blend(0.5)
    return outcome(
        tl, before=left.before, now=left.now, drift=str(left.drift), points=str(blend.points),
        stages=[mark.old for mark in left.stages],
    )  # fmt: skip


def several_tasks(device: str) -> Found:
    tl = session(device)
    tl.train(1, 0.02)
    first = tl.task
    tl.data(pair(40, 5, 1), batch=16)
    tl.train(1, 0.02)
    tl.head("mlp:6")
    tl.train(1, 0.02)
    tasks = str(tl.tasks())
    tl.head(task=first)
    assert {p.device for head in tl.heads.values() for p in head.parameters()} == {torch.device(device)}
    return outcome(tl, tasks=tasks)


def other_loads(device: str) -> Found:
    """After the data, twice, and with layers that are new."""
    tl = Session([])
    tl.device = device
    tl.data(pair(), batch=16)
    tl.load(copy.deepcopy(taught()))
    tl.train(1, 0.02)
    first = outcome(tl)
    net = copy.deepcopy(taught())
    tl.load(net, input="1,8,8", layers_from="0:2")
    tl.train(1, 0.02)
    second = outcome(tl)
    tl.load(net, input="1,8,8")
    tl.train(1, 0.02)
    return {"first": first, "second": second} | outcome(tl)


def other_targets(device: str) -> Found:
    """Measured values, several labels, and classes with weights."""
    inputs, targets = pair()
    values = inputs.flatten(1)[:, :2].clone()
    labels = torch.stack([targets > 0, targets > 1], dim=1).long()
    found = {}
    for name, y, settings in (
        ("values", values, {"target": "regression"}),
        ("labels", labels, {"target": "labels", "balance": "weights"}),
        ("classes", (torch.arange(36) % 5).clamp(max=2), {"balance": "weights"}),
    ):
        tl = session(device)
        tl.data((inputs, y), batch=16, **settings)
        tl.train(1, 0.02)
        found[name] = outcome(tl, score=str(tl.results().rows))
    return found


def own_step(device: str) -> Found:
    def step(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(model(x), y, label_smoothing=0.1)

    tl = session(device)
    tl.step = step
    tl.train(1, 0.02)
    return outcome(tl)


def advice(device: str) -> Found:
    tl = session(device)
    found = tl.advise(images=30)
    sweep = tl.sweep(epochs=1, seeds=1, images=12)
    return outcome(tl, advice=found.plan, sweep=sweep.table.rows)


def pictures(device: str) -> Found:
    """Digits with small moves: predicted, exported, and as a script."""
    tl = Session([])
    tl.device = device
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 4)
    tl.load(nn.Sequential(*layers), input="1,8,8")
    tl.data("digits", per_class=4, valid=0.95, augment="light", batch=20)
    tl.freeze("body")
    tl.train(1, 0.02)
    found = outcome(tl)
    some = torch.rand(5, 8, 8, generator=torch.Generator().manual_seed(1))
    found["answers"] = [tl.predict(some, views=views).answers.tobytes() for views in (1, 2)]
    found["script"] = str(tl.script()).split('"""', 2)[2]  # what is said at its top names the device
    if device != "cpu":
        tl.export("net.safetensors")
        exported = load_file("net.safetensors")
        assert {name: tensor.numpy().tobytes() for name, tensor in exported.items()}.items() <= found.items()
        assert outcome(tl).items() <= found.items()
    return found


def half(device: str) -> Found:
    """Where automatic precision does nothing, a loss that is scaled by powers of two ends as one that is not."""
    tl = session(device)
    tl.run(f"unfreeze all epochs 2 lr 0.02 precision {'fp32' if device == 'cpu' else 'fp16'}")
    return outcome(tl)


def moved(device: str) -> Found:
    """The network goes along where the device is set later, with its head, its moments and what is old."""
    tl = session("cpu")
    tl.train(1, 0.02, keep="ewc:20")
    tl.device = device
    tl.go_on(epochs=1)
    tl.undo()
    tl.go_on(epochs=1)
    tl.blend(0.5)
    return outcome(tl)


JOBS: dict[str, Callable[[str], Found]] = {
    job.__name__.replace("_", " "): job
    for job in (
        default_plan, range_test, kept_features, partly_frozen, without_a_cache, fitted_head, blended_stage,
        ruined_stage, undone, old_task, several_tasks, other_loads, other_targets, own_step, advice,
        pictures, moved, half,
    )
} | {f"kept by {guard}": kept(guard) for guard in ("lwf:1", "ewc:20", "l2sp:3")}  # fmt: skip


def begin(folder: str) -> None:
    """Make the device, in a process of its own, and let nothing but the device differ between two runs."""
    import sim_device  # noqa: F401

    os.environ["TLNB_HOME"] = folder
    os.chdir(folder)
    torch.set_num_threads(1)
    precision._has = lambda *names: False  # bfloat16
    optim._can_fuse = lambda model: False  # kernels that round in another way
    features._device_budget = lambda device: 0 if device.type == "cpu" else 1 << 28


def refusals() -> list[str]:
    """What the device says of tensors that are elsewhere, and the session of devices that are nowhere."""
    here, there, rows = torch.ones(2, device="sim:0"), torch.ones(2), torch.tensor([1])
    assert here[rows].device == here.device

    def mixing_step(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (model(x) * torch.ones(3)).sum()

    tl = session("sim:0")
    tl.step = mixing_step
    said = []
    for mixing in (
        lambda: here + there,
        lambda: here.index_select(0, rows),
        lambda: there[rows.to("sim:0")],
        lambda: nn.Linear(2, 2)(here),
        lambda: tl.train(1, 0.02),
        lambda: setattr(tl, "device", "gpu"),
        lambda: setattr(tl, "device", "meta"),
    ):
        try:
            mixing()
        except Exception as error:
            said.append(str(error).splitlines()[0])
    return [*said, str(tl.device)]
