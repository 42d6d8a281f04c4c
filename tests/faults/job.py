"""Small jobs that touch all that a checkpoint must hold, run in forks of one warmed process.

A fork costs milliseconds, a new interpreter with torch seconds; so hundreds of faults fit into minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from networks import blobs, small
from texts import rows, tokenizer
from transformer_configs import network

from tlnb.engine.training.records import EpochRecord
from tlnb.errors import CheckpointError
from tlnb.session import Session


@dataclass(frozen=True)
class Job:
    """A plan on data.

    Attributes:
        plan: the stages.
        options: of ``Session.data``.
        keep_best: see ``Session.train``.
        pictures: whether the samples are 8-bit pictures, which can be augmented.
        old_classes: that the network knows before it learns its three.
        kind: ``classes``, ``labels`` or ``values`` to be learned.
        own_step: whether the user's own step trains.
        network: an architecture of ``transformer_configs``; the small network of convolutions without it.
    """

    plan: str
    options: dict[str, object]
    keep_best: bool = False
    pictures: bool = False
    old_classes: int = 3
    kind: str = "classes"
    own_step: bool = False
    network: str = ""


JOBS = {
    "adamw, range test, frozen body": Job(
        "freeze body epochs 3\nunfreeze 1: epochs 2 lr 3e-3 decay 2\n"
        "unfreeze all epochs 3 lr 1e-3 schedule cosine",
        {"batch": 16},
    ),
    "sgd, accumulation, augmentation": Job(
        "unfreeze all epochs 3 lr 0.02 optimizer sgd micro 5\n"
        "freeze 0:2 epochs 3 lr 0.01 optimizer sgd patience 1",
        {"batch": 16, "augment": "light"},
        pictures=True,
    ),
    "adamw, accumulation, best epoch": Job(
        "unfreeze all epochs 4 lr 0.02 micro 6 smoothing 0.1\nfreeze 0 epochs 3 lr 0.05",
        {"batch": 12},
        keep_best=True,
    ),
    "guards, from another head": Job(
        "freeze body epochs 1 lr 0.02\nunfreeze all epochs 2 lr 0.02 keep ewc:20\n"
        "unfreeze 1: epochs 2 lr 0.01 keep l2sp:3\nunfreeze all epochs 2 lr 5e-3 keep lwf:1",
        {"batch": 16},
        old_classes=2,
    ),
    "averages": Job(
        "unfreeze all epochs 3 lr 0.02 average ema\nunfreeze 1: epochs 3 lr 0.01 average last:2 blend 0.5\n"
        "freeze 0 epochs 2 lr 0.01 average last:1 guard off",
        {"batch": 16},
        old_classes=2,
    ),
    "adapters": Job(
        "adapt 1: rank 2 epochs 3 lr 0.02\nadapt 0 bias epochs 2 lr 0.01 blend 0.5\nunfreeze 1 epochs 2 lr 5e-3\n"
        "freeze body epochs 1 lr 0.01\nadapt 1: rank 2 epochs 2 lr 0.02",
        {"batch": 16},
        old_classes=2,
    ),
    "fitted head, statistics that stay, blends": Job(
        "fit head\nunfreeze all epochs 2 lr 0.01 init soft bn frozen blend 0.5\n"
        "unfreeze all epochs 1 lr 3 schedule constant\nunfreeze 2: epochs 2 lr 0.01 init zero blend auto guard off",
        {"batch": 16},
        old_classes=2,
    ),
    "several labels, weighted": Job(
        "unfreeze all epochs 3 lr 0.02 micro 7\nfreeze 0 epochs 2 lr 0.01 keep l2sp:1 patience 2",
        {"batch": 16, "balance": "weights", "target": "labels"},
        kind="labels",
    ),
    "measured values, a step of one's own": Job(
        "freeze body epochs 2 lr 0.01\nunfreeze all epochs 3 lr 5e-3 schedule cosine decay 2",
        {"batch": 16, "target": "regression"},
        kind="values",
        own_step=True,
    ),
    "texts": Job(
        "fit head\ntrain 3: epochs 3 lr 5e-3 init soft keep lwf:1\nunfreeze all epochs 2 lr 2e-3 micro 5 average ema",
        {"batch": 16, "seed": 1},
        network="bert",
    ),
    "a vision transformer": Job(
        "freeze body epochs 2 lr 0.01\nunfreeze 3: epochs 3 lr 2e-3 blend 0.5\nadapt all rank 2 epochs 2 lr 5e-3",
        {"batch": 16},
        network="vit",
    ),
}


def own_step(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A loss that is not tlnb's."""
    return torch.nn.functional.smooth_l1_loss(model(x), y)


def session_for(job: Job) -> Session:
    """A new session with the job's network and data."""
    session = Session([])
    if job.network == "bert":
        session.load(network(job.network), tokenizer=tokenizer())
        texts, answers = zip(*rows(90), strict=True)
        session.data((list(texts), list(answers)), **job.options)
        return session
    if job.network:
        draw = torch.Generator().manual_seed(2)
        targets = torch.arange(90) % 3
        pictures = torch.randn(90, 3, 32, 32, generator=draw) + targets.view(-1, 1, 1, 1)
        session.load(network(job.network), input="3,32,32")
        session.data((pictures, targets), **job.options)
        return session
    session.load(small(job.old_classes, seed=4), input="1,8,8")  # with seed 0 its features say nothing
    samples = blobs(90)
    inputs = samples.inputs
    if job.pictures:
        inputs = (inputs - inputs.amin()).mul_(255 / (inputs.amax() - inputs.amin())).to(torch.uint8)
    targets = samples.targets
    if job.kind == "labels":
        targets = torch.stack([targets == 0, targets == 1, targets != 1], 1).float()
    elif job.kind == "values":
        targets = torch.stack([targets * 0.7 + 0.1, 1.0 - targets, targets**2 / 3], 1)
    session.data((inputs, targets), **job.options)
    if job.own_step:
        session.step = own_step
    return session


def carry_out(job: Job) -> Session:
    """Run the job, from its last autosave where there is one."""
    session = session_for(job)
    try:
        session.resume()
    except CheckpointError as error:
        if "no autosave" not in str(error):
            raise
        session.run(job.plan, keep_best=job.keep_best)
        return session
    finish(session)
    return session


def finish(session: Session) -> None:
    """Go on until nothing is left of the plan."""
    while session._paused is not None:
        session.go_on()


def outcome(session: Session) -> dict[str, object]:
    """Weights and history, without the clock."""
    sha = hashlib.sha256()
    for name, tensor in session.model.state_dict().items():
        sha.update(name.encode() + tensor.numpy().tobytes())
    stages = [
        {
            "number": s.number, "line": s.stage.text, "rate": s.rate, "note": s.note, "stopped": s.stopped,
            "digests": [s.digest_before, s.digest_after],
            "curve": s.curve and [s.curve.rates, s.curve.losses],
            "records": [without_clock(r) for r in s.records], "share": s.share,
            "scores": [r and without_clock(r) for r in (s.before, s.ending)],
        }
        for s in session.history.stages
    ]  # fmt: skip
    return json.loads(json.dumps({"weights": sha.hexdigest(), "stages": stages, "frozen": session.frozen}))


def without_clock(record: EpochRecord) -> dict[str, object]:
    """What an epoch came to."""
    return {k: v for k, v in record.to_dict().items() if k != "seconds"}


def fork(folder: Path, work: object, every: float = 1e-3, most: int = 120) -> int:
    """Run ``work()`` in a fork whose autosaves go into ``folder``; its process number.

    Args:
        folder: for autosaves, and the outcome.
        work: answers what can be written as JSON.
        every: seconds between autosaves.
        most: seconds of the processor, which another job on the machine does not use up, before it is ended.
    """
    pid = os.fork()
    if pid:
        return pid
    try:
        spent = time.process_time()
        resource.setrlimit(resource.RLIMIT_CPU, (int(spent) + most, int(spent) + most))
        os.environ["TLNB_HOME"], os.environ["TLNB_AUTOSAVE"] = str(folder), str(every)
        torch.set_num_threads(1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        result = work()  # type: ignore[operator]
        part = folder / "outcome.part"
        part.write_text(json.dumps(result))
        part.rename(folder / "outcome.json")
        os._exit(0)
    except BaseException:
        traceback.print_exc(file=sys.stderr)
        sys.stderr.flush()
        os._exit(1)


def wait(pid: int, seconds: float = 3600.0) -> int:
    """The exit status of a process; negative for the signal that ended it.

    Raises:
        AssertionError: it waits for something that does not come.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError(f"nothing ended within {seconds} s")


def undisturbed(job: Job, folder: Path) -> tuple[dict[str, object], float]:
    """What the job comes to when nobody stops it, and the seconds that it takes."""
    began = time.monotonic()
    assert wait(fork(folder, lambda: outcome(carry_out(job)))) == 0
    return json.loads((folder / "outcome.json").read_text()), time.monotonic() - began


def report(campaign: Callable[..., Counter[str]], what: str, about: str | None) -> None:
    """The command line of a campaign: run it, say its counts, and exit with 1 where a run came out otherwise.

    Args:
        campaign: takes how many events, a seed, whether to say its counts as it goes, and the jobs.
        what: the events that are counted, such as ``kills``.
        about: the text of ``--help``.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--count", type=int, default=200, help=f"{what} at least")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--job", default="", help="only the jobs with this in their name")
    asked = parser.parse_args()
    jobs = {name: job for name, job in JOBS.items() if asked.job in name}
    if not jobs:
        parser.error(f"no job has {asked.job!r} in its name; there are: {'; '.join(JOBS)}")
    total = campaign(asked.count, asked.seed, say=True, jobs=jobs)
    sys.exit(bool(total["runs that came to other weights or another history"]))
