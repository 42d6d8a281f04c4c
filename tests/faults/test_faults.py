"""A few of each fault in every test run; hundreds by ``python -m tests.faults.kills --count 200``."""

from __future__ import annotations

import ast
import inspect
import json
import os
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import forked
import torch
from torch import nn

from faults.calls import STEP, plain_net
from faults.injections import Fault, Watcher
from faults.job import finish, outcome
from tlnb.engine.checkpoint import autosave
from tlnb.engine.checkpoint import file as checkpoint
from tlnb.engine.network.freeze import FrozenEvalMode
from tlnb.engine.training.loop import _StageRun
from tlnb.session import Session

ROOT = Path(__file__).parents[2]


def run(module: str, count: int) -> dict[str, int]:
    """A campaign in a process of its own: forks of a process that has trained lack its threads."""
    return counts_of(module, "--count", str(count), "--seed", "7")


def injected(*options: str) -> dict[str, int]:
    """A few faults at random lines; the counts of what came of them."""
    return counts_of("injections", "--seed", "7", *options)


def counts_of(module: str, *options: str) -> dict[str, int]:
    """What a campaign counts."""
    command = [sys.executable, "-m", f"tests.faults.{module}", *options]
    done = forked.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=3600)
    assert done.returncode == 0, done.stderr[-2000:]
    return ast.literal_eval(done.stdout.strip().splitlines()[-1])


def test_whatever_happens_at_a_line_of_training_it_comes_to_the_same() -> None:
    counts = injected("--count", "2", "--job", "one's own")
    assert all(counts[form] == 2 for form in ("press", "two presses", "interrupt", "error"))


def test_whatever_happens_at_a_line_of_a_call_it_is_done_or_nothing_has_changed() -> None:
    counts = injected("--calls", "--count", "12", "--job", "data")
    assert counts.get("unchanged", 0) + counts.get("complete", 0) + counts.get("not reached", 0) == 12


def test_an_interrupt_at_each_line_that_holds_a_call_together_leaves_it_whole() -> None:
    """At every line of the transaction and of the button's handler: flags, views and handler agree afterwards."""
    tl = Session()
    tl.load(plain_net(), input="1,8,8")
    with Watcher() as watcher:
        tl.freeze("0")
    tl.unfreeze("0")
    files = ("session/change.py", "session/interrupts.py")
    faults = [
        Fault("interrupt", place, nth + 1)
        for place, times in watcher.lines.items()
        for nth in range(times)
        if place.startswith(files)
    ]
    assert len(faults) > 60
    handler = signal.getsignal(signal.SIGINT)
    for fault in faults:
        with suppress(KeyboardInterrupt), fault:
            tl.freeze("0")
        assert fault.fired, fault
        assert signal.getsignal(signal.SIGINT) is handler, fault
        tl.unfreeze("-1")  # a call, which takes back, or tells, what was torn out of its block
        moves = [p.requires_grad for p in next(tl.model.children()).parameters()]
        assert moves == [not tl.frozen[0]] * len(moves), fault
        tl.unfreeze("0")
        assert not any(tl.frozen), fault


def test_an_interrupt_at_each_line_around_an_epoch_and_a_step_comes_to_the_same() -> None:
    """Where an epoch is closed, and where frozen layers are held in test mode for a step of one's own."""
    plan = "freeze 0:2 epochs 1 lr 0.05\nfreeze 0 epochs 2 lr 0.02"

    def ended(fault: Fault | Watcher) -> dict[str, object]:
        tl = Session([])
        torch.manual_seed(5)
        first, second = (nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU()) for _ in range(2))
        tl.load(nn.Sequential(first, second, nn.Linear(6, 3)), input="6")
        tl.data((torch.arange(240.0).sin().reshape(40, 6), torch.arange(40) % 3), batch=16)
        tl.step = STEP
        with suppress(KeyboardInterrupt), fault:
            tl.run(plan)
        if tl.view.plan is None and not tl.history.stages:
            tl.run(plan)
        finish(tl)
        return outcome(tl)

    with_watch = Watcher()
    wanted = ended(with_watch)
    held = inspect.getsourcelines(FrozenEvalMode)
    closed = inspect.getsourcelines(_StageRun._epoch)
    faults = [
        Fault("interrupt", place, nth)
        for place, times in with_watch.lines.items()
        for file, (lines, start) in (
            ("engine/network/freeze.py:", held),
            ("engine/training/loop.py:", closed),
        )
        if place.startswith(file) and start <= int(place.removeprefix(file)) < start + len(lines)
        for nth in {1, times // 2 + 1, times}
    ]
    assert len(faults) > 60
    for fault in faults:
        assert ended(fault) == wanted, fault
        assert fault.fired


def test_odd_arguments_and_files_are_one_line_and_change_nothing() -> None:
    assert counts_of("odd", "--seed", "3", "--count", "120")["one line"] > 60


def test_killed_runs_come_to_the_same_weights_and_history() -> None:
    counts = run("kills", 6)
    assert counts["kills"] >= 6
    assert counts["runs that came to other weights or another history"] == 0


def test_interrupted_runs_come_to_the_same_weights_and_history() -> None:
    counts = run("interrupts", 6)
    assert counts["presses"] >= 6
    assert counts["stopped"] >= 1
    assert counts["runs that came to other weights or another history"] == 0


IN_TROUBLE = """
import json, os, resource, sys
sys.path.insert(0, "tests")
from faults.job import JOBS, outcome, session_for, wait
from tlnb.errors import TlnbError

def full(home):
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))

def read_only(home):
    for place, _, _ in os.walk(home):
        os.chmod(place, 0o555)
    if os.geteuid() == 0:  # root may write to any folder; nobody may not
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)

def train(home, trouble):
    os.environ["TLNB_HOME"], job, said = home, JOBS["adamw, accumulation, best epoch"], []
    session = session_for(job)
    class Ear:
        def on_message(self, text): said.append(text)
    session.listeners = [Ear()]
    session.train(1, 0.01)
    trouble(home)
    session.train(2, 0.01)
    mark, refused = outcome(session), ""
    try:
        session.save(os.path.join(home, "mine"))
    except TlnbError as error:
        refused = str(error)
    assert outcome(session) == mark
    print(json.dumps({"said": said, "weights": mark["weights"], "refused": refused}), flush=True)

for name, trouble in (("untroubled", lambda home: None), ("full", full), ("read-only", read_only)):
    home = os.path.join(sys.argv[1], name)
    os.mkdir(home)
    pid = os.fork()
    if not pid:
        try:
            train(home, trouble)
        finally:
            sys.stderr.flush()
            os._exit(0)
    wait(pid)
"""


def test_a_disk_that_takes_no_more_costs_the_save_and_nothing_else() -> None:
    # Not below pytest's own folder, which nobody but its owner may enter.
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        env = {**os.environ, "TLNB_AUTOSAVE": "0.0001", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", IN_TROUBLE, place]
        done = forked.run(command, cwd=ROOT, env=env)
        untroubled, full, read_only = map(json.loads, done.stdout.splitlines())
        for folder, _, _ in os.walk(place):
            os.chmod(folder, 0o755)
        assert (untroubled["said"], untroubled["refused"]) == ([], "")
        for name, reason, troubled in (
            ("full", "File too large", full),
            ("read-only", "Permission denied", read_only),
        ):
            assert troubled["weights"] == untroubled["weights"]
            assert len(troubled["said"]) == 1
            assert reason in troubled["said"][0]
            assert "training goes on, the last good autosave is" in troubled["said"][0]
            assert "cannot be written" in troubled["refused"]
            assert reason in troubled["refused"]
            # The last good one is that of the first stage; no half file stands beside it.
            good = autosave.files(Path(place) / name / "autosave")
            assert [stage["number"] for stage in checkpoint.read(good[0]).about["history"]] == [1]
            assert not list((Path(place) / name).rglob("*.part"))
