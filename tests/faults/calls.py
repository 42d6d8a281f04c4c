"""Every call of a session beside training, a session on which each has something to do, and all that it holds."""

from __future__ import annotations

import hashlib
import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from networks import blobs, small
from torch import Tensor, nn

from tlnb.session import Session

Calls = dict[str, Callable[[Session], object]]


def pair(count: int = 60, classes: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    found = blobs(count, classes, seed)
    return found.inputs, found.targets


def plain_net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )


def ready() -> Session:
    """Trained in three stages, one of them guarded, with old data named, two tasks, a blend and a frozen layer."""
    tl = Session([])
    tl.load(plain_net(), input="1,8,8")
    tl.data(pair(), batch=16)
    tl.forgetting(pair(30, 3, 5))
    tl.train(1, 0.01, keep="ewc:1")
    tl.data(pair(60, 5, 1), batch=16)
    tl.data(pair(), batch=16, test=0.2)
    tl.train(1, 0.01)
    tl.save("saved")
    tl.train(1, 0.01)
    tl.blend(0.5)
    tl.freeze("0")
    return tl


CALLS: Calls = {
    "adapt": lambda tl: tl.adapt("0", rank=1),
    "load": lambda tl: tl.load(small(4), input="1,8,8"),
    "load with layers_from": lambda tl: tl.load(plain_net(), input="1,8,8", layers_from="0"),
    "data with a new head": lambda tl: tl.data(pair(60, 4), batch=16),
    "data with a known head": lambda tl: tl.data(pair(60, 3, 9), batch=16),
    "data of another size": lambda tl: tl.data((torch.randn(60, 1, 9, 9), torch.arange(60) % 3), batch=16),
    "data, shown": lambda tl: tl.data((torch.rand(60, 1, 8, 8), torch.arange(60) % 3), show=True),
    "head": lambda tl: tl.head("mlp:6"),
    "head that is fitted": lambda tl: tl.head("linear", init="fit"),
    "head of neighbours": lambda tl: tl.head("knn:3"),
    "head of another task": lambda tl: tl.head(task=next(name for name in tl.heads if name != tl.task)),
    "tasks": lambda tl: tl.tasks(),
    "freeze": lambda tl: tl.freeze("1"),
    "unfreeze": lambda tl: tl.unfreeze("all"),
    "unfreeze and find": lambda tl: tl.unfreeze("all", find=True),
    "frozen": lambda tl: setattr(tl, "frozen", (False, True)),
    "device": lambda tl: setattr(tl, "device", "cpu"),
    "find_lr": lambda tl: tl.find_lr(steps=12, keep="l2sp:1"),
    "undo": lambda tl: tl.undo(),
    "advise": lambda tl: tl.advise(images=20),
    "clean": lambda tl: tl.clean(),
    "clean, marked": lambda tl: tl.clean(relabel={5: "1"}, drop=[7, 8], keep="3"),
    "clean, forgotten": lambda tl: tl.clean(forget=True),
    "choose": lambda tl: tl.choose(small(3), plain_net(), images=30, folds=2),
    "forgetting": lambda tl: tl.forgetting(),
    "forgetting of other data": lambda tl: tl.forgetting(pair(30, 3, 8)),
    "blend": lambda tl: tl.blend(0.2),
    "blend, shown": lambda tl: tl.blend(),
    "save": lambda tl: tl.save("other"),
    "resume": lambda tl: tl.resume("saved"),
    "results": lambda tl: tl.results(),
    "predict": lambda tl: tl.predict(pair(5)[0]),
    "script": lambda tl: tl.script(network="model = None"),
    "predict, surely": lambda tl: tl.predict(pair(5)[0], sure=0.8),
    "map": lambda tl: tl.map(0),
    "compare": lambda tl: tl.compare(),
    "status": lambda tl: tl.status(),
    "panel": lambda tl: tl.panel(),
}


def _seeded(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# What is not deterministic above, and calls that write files or take long.
MORE: Calls = CALLS | {
    "data of another size": lambda tl: tl.data((_seeded((60, 1, 9, 9), 2), torch.arange(60) % 3), batch=16),
    "data, shown": lambda tl: tl.data((_seeded((60, 1, 8, 8), 3).sigmoid(), torch.arange(60) % 3), show=True),
    "data dropped": lambda tl: tl.data("none"),
    "save over": lambda tl: tl.save("saved"),
    "cross-validation": lambda tl: tl.cross_validate(2, "freeze body epochs 1 lr 0.01"),
    "sweep": lambda tl: tl.sweep(epochs=1, seeds=1, images=20),
    "script, written": lambda tl: tl.script("job.py", network=NETWORK),
    "export": lambda tl: tl.export("net.safetensors"),
    "marks, written": lambda tl: tl.clean(drop=[2], save="marks.csv"),
    "step": lambda tl: setattr(tl, "step", STEP),
}
NETWORK = "model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))"


def STEP(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The usual loss."""
    return nn.functional.cross_entropy(model(x), y)


def digest(value: object) -> str:
    """A short sign for tensors, and for all that holds them."""
    sha = hashlib.sha256()

    def take(value: object) -> None:
        if isinstance(value, Tensor):
            sha.update(value.detach().cpu().contiguous().numpy().tobytes())
        elif isinstance(value, dict) or hasattr(value, "items"):
            for name, entry in value.items():  # type: ignore[attr-defined]
                sha.update(str(name).encode())
                take(entry)
        elif isinstance(value, tuple | list):
            for entry in value:
                take(entry)
        else:
            sha.update(repr(value).encode())

    take(value)
    return sha.hexdigest()[:16]


def facts(tl: Session, *, identity: bool = False) -> dict[str, Any]:
    """All that a call could have changed, as values.

    Args:
        tl: the session.
        identity: also which objects they are.
    """
    state = tl.view.state
    net = state.loaded
    found: dict[str, Any] = {
        "frozen": tl.frozen, "busy": tl.busy, "stop": tl.stop_request is None, "task": tl.task,
        "heads": {name: digest(head.state_dict()) for name, head in tl.heads.items()},
        "history": [
            (s.number, len(s.records), s.stopped, s.kept, s.note, bool(s.recipe), [r.valid_loss for r in s.records])
            for s in tl.history.stages
        ],
        "old": sorted(tl.history.old.items()), "device": str(tl.device), "split": digest(state.samples and tl.split),
        "data": [str(state.data), state.data_fingerprint, state.strict],
        "tasks": [
            (t.name, t.classes, sorted(t.side_heads), str(t.data), t.source, t.asked) for t in state.tasks.values()
        ],
        "plan": None if state.plan is None else [state.plan.first, [s.text for s in state.plan.stages]],
        "moments": digest(state.moments), "running": state.running,
        "undo": [(p.stages, p.frozen, digest(p.weights)) for p in state.undo],
        "old task": [
            state.old.network is None, str(state.old.data and state.old.data.name), state.old.source,
            digest(state.old.importance and state.old.importance.weights), sorted(state.old.bodies),
            digest(state.old.ends), state.old.share, sorted(state.old.scores.items()),
        ],
        "step": state.step is None, "advice": state.advice is None,
        "sweep": None if state.sweep is None else re.sub(r"\d+ s\b", "", str(state.sweep)), "looks": str(state.looks),
        "files": {p.name: p.suffix != ".safetensors" and digest(p.read_bytes()) for p in _files()},
    }  # fmt: skip
    if net is not None:
        modules = dict(net.model.named_modules())
        found |= {
            "network": [net.name, net.head, str(net.input), net.categories, net.notes, net.behind, str(net.preprocess)],
            "layers": [] if state.layers is None else [
                [layer.name, layer.kind, str(layer.shape), layer.parameter_names] for layer in state.layers
            ],
            "cuts": str(state.layers.note) if state.layers is not None else "",
            "weights": {n: [p.requires_grad, p.grad is None, digest(p)] for n, p in net.model.named_parameters()},
            "buffers": {n: digest(b) for n, b in net.model.named_buffers()},
            "modes": {n: m.training for n, m in modules.items()},
            "hooks": sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules.values()),
        }  # fmt: skip
    if identity:
        found["same"] = [
            id(state),
            id(net),
            [id(head) for head in tl.heads.values()],
            id(state.samples),
            tl.revision,
        ]
        found["same"] += [[id(m) for m in net.model.modules()]] if net is not None else []
        found["handler"] = str(signal.getsignal(signal.SIGINT))
    return dict(json.loads(json.dumps(found, default=str)))


def _files() -> list[Path]:
    """The files of the working folder, without those that are hidden."""
    return sorted(path for path in Path.cwd().iterdir() if path.is_file() and not path.name.startswith("."))
