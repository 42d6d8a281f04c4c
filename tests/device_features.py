"""More of what a session does on a device: adapters, heads, choices, maps, cleaning, texts, sounds and files."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import device_jobs
import numpy as np
import texts
import torch
from device_jobs import Found, flat, on_pixels, outcome, pair, session
from networks import small
from sounds import SmallNet, tone_folders
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tlnb.session import Session


def adapted(device: str) -> Found:
    """Each kind of adapter, saved alone, put on a new body, and added to the weights."""
    tl = session(device)
    tl.adapt("1", rank=2)
    tl.adapt("0", "bias")
    tl.train(2, 0.02)
    tl.save(f"adapter-{device[:3]}", adapter=True)
    found = {"adapted": outcome(tl)}
    fresh = session(device)
    fresh.adapt(file=f"adapter-{device[:3]}")
    assert outcome(fresh).keys() == outcome(tl).keys()
    found["put on"] = outcome(fresh)
    tl.merge()
    found["merged"] = outcome(tl)
    tl.undo()
    return found | outcome(tl)


def averaged(device: str) -> Found:
    tl = session(device)
    tl.run("unfreeze all epochs 2 lr 0.02 average ema\nfreeze 0 epochs 3 lr 0.01 average last:2")
    return outcome(tl, notes=[stage.note for stage in tl.history.stages])


def heads_without_schedule(device: str) -> Found:
    found = {}
    for spec in ("nearest", "knn:5", "all-layers"):
        tl = session(device)
        tl.head(spec)
        found[spec] = outcome(tl, answers=tl.predict(pair()[0]).answers.tobytes())
        tl.train(1, 1e-3)
        found[f"{spec}, trained"] = outcome(tl)
    return found


def chosen(device: str) -> Found:
    tl = session(device)
    found = tl.choose(flat(), small(3, seed=4), folds=2)
    rows = [(row.name, row.value, row.neighbours, row.logme) for row in found.rows]
    found.load()
    return outcome(tl, rows=rows)


def cleaned(device: str) -> Found:
    """Suspects, some of which are mended, and training that goes on with the mended data."""
    tl = on_pixels(device)
    inputs, targets = pair(60)
    targets = targets.clone()
    targets[[5, 11]] = (targets[[5, 11]] + 1) % 3
    tl.data((inputs, targets), batch=16)
    tl.run("fit head")
    suspects = [(s.sample, s.kinds, s.likely, s.sure) for s in tl.clean()]
    tl.clean(relabel={5: "0"}, drop=[11])
    tl.train(1, 0.02)
    return outcome(tl, suspects=suspects)


def mapped(device: str) -> Found:
    tl = on_pixels(device)
    maps = [tl.map(layer) for layer in (None, 1)]
    return outcome(tl, maps=[one.coordinates.tobytes() for one in maps])


def folds(device: str) -> Found:
    tl = session(device)
    found = tl.cross_validate(2, "freeze body epochs 1 lr 0.02\nunfreeze all epochs 1 lr 0.01")
    return outcome(tl, folds=[(fold.value, fold.answers.tobytes()) for fold in found.done.values()])


def test_part(device: str) -> Found:
    """Samples under seal, measured by a score of choice; and runs that are compared."""
    tl = session(device)
    tl.data(pair(80), batch=16, test=0.3, score="balanced", groups=np.arange(80) // 2)
    first = tl.train(1, 0.02)
    second = tl.train(1, 0.02)
    said = str(tl.test())
    return outcome(tl, said=said, compared=tl.compare(first, second).difference)


def sure(device: str) -> Found:
    tl = on_pixels(device, 120)
    found = tl.predict(pair(30, 3, 7)[0], sure=0.9, false_alarms=0.2)
    assert any(found.none)
    return outcome(tl, sets=found.sets, none=list(found.none), odd=found.strangeness.tolist())


def text(device: str) -> Found:
    """A network of Hugging Face on a table of texts, part of it frozen."""
    folder = Path(f"bert-{device[:3]}")
    if not folder.exists():
        texts.network_folder(folder)
        texts.table(folder / "t.csv", texts.rows(60))
    tl = Session([])
    tl.device = device
    with sdpa_kernel(SDPBackend.MATH):  # which a CPU would do in another order
        tl.load(str(folder))
        tl.data(str(folder / "t.csv"), text="text", label="label", batch=16)
        tl.run("freeze body epochs 2 lr 0.02\nunfreeze -2: epochs 1 lr 1e-3")
        answers = tl.predict(["a good w1", "w3 awful"])
    return outcome(tl, answers=answers.answers.tobytes(), shown=str(tl.results().rows))


def sound(device: str) -> Found:
    """Sounds as pictures, and raw for a network of one's own."""
    root = Path(f"tones-{device[:3]}")
    if not root.exists():
        tone_folders(root, long=(1, 2))
    found = {}
    for name, net in (("raw", SmallNet()), ("drawn", small(2, seed=4))):
        tl = Session([])
        tl.device = device
        with torch.random.fork_rng():
            tl.load(net, input="256" if name == "raw" else "1,8,8")
            tl.data(str(root), batch=8, window=0.4)
        answers = tl.predict(str(root / "high"), views=1).answers
        tl.freeze("0")
        tl.train(1, 0.02)
        outcome(tl)
        # Convolutions of raw sound add up in another order where they run on a CPU at once.
        found[name] = [answers.round(4).tolist(), tl.results().answers.round(4).tolist()]
    return found


def volumes(device: str) -> Found:
    """A network of three dimensions behind a frozen part."""
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(24, 1, 6, 6, 6, generator=generator), torch.arange(24) % 2
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4), nn.ReLU(), nn.Conv3d(4, 4, 3), nn.Flatten(), nn.Linear(32, 2)
    )
    tl = Session([])
    tl.device = device
    tl.load(net, input="1,6,6,6")
    tl.data((inputs + targets.view(-1, 1, 1, 1, 1), targets), batch=8)
    tl.freeze("0")
    tl.train(2, 0.02)
    return outcome(tl)


def budgeted(device: str) -> Found:
    """What the plan is goes by seconds; that it runs, and where, does not."""
    tl = session(device)
    run = tl.train_advised(budget="1h")
    outcome(tl)
    return {"epochs": sum(len(stage.records) for stage in run.stages) > 0}


def written(device: str) -> Found:
    """Each form of export that needs nothing of another machine; each is read again and checked as it is written."""
    tl = on_pixels(device)
    before = outcome(tl)
    for file in ("net.safetensors", "net.onnx", "net.pt2"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # onnx's own
            tl.export(f"{device[:3]}-{file}")
    assert outcome(tl) == before
    tl.data("digits", per_class=9, valid=0.9, batch=20)
    tl.run("fit head")
    tl.export("app", f"page-{device[:3]}")
    pages = sorted(path.name for path in Path(f"page-{device[:3]}").iterdir())
    return outcome(tl, pages=pages)


JOBS: dict[str, Callable[[str], Found]] = device_jobs.JOBS | {
    job.__name__.replace("_", " "): job
    for job in (
        adapted, averaged, heads_without_schedule, chosen, cleaned, mapped, folds, test_part, sure, text, sound,
        volumes, budgeted, written,
    )
}  # fmt: skip


def run(name: str, device: str) -> Found:
    """A job, in the process that has the device."""
    return JOBS[name](device)
