"""Let something happen at a random line of tlnb, in any call, and look at what is left.

``python -m tests.faults.injections --count 300`` does so in each of four forms over all jobs of training;
``--calls --count 1500`` over the calls beside training. Each place, a line or a function that the undisturbed call runs
through, is as likely as any other, and then each time that it is run through.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import tlnb
from faults.calls import MORE, facts, ready
from faults.job import JOBS, Job, finish, fork, outcome, session_for, wait
from tlnb.engine.core import machine
from tlnb.session import Session

FORMS = ("press", "two presses", "interrupt", "error")
LATER = 400  # lines at most between two presses
_HOME = os.path.dirname(tlnb.__file__) + os.sep
_NO_CODE = ("<listcomp>", "<genexpr>", "<lambda>", "<module>")


def place_of(frame: FrameType, event: str) -> str:
    """Where a frame stands: file and line, or file and function for an error at its entry."""
    code = frame.f_code
    last = str(frame.f_lineno) if event == "line" else code.co_name
    return f"{code.co_filename[len(_HOME) :]}:{last}"


class Watcher:
    """Counts how often each place is run through.

    Attributes:
        lines, calls: the places, in the order in which they were met first.
    """

    def __init__(self) -> None:
        self.lines: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def __enter__(self) -> Watcher:
        sys.settrace(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _call(self, frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(_HOME):
            return None
        if frame.f_code.co_name not in _NO_CODE:
            self.calls[place_of(frame, "call")] += 1
        return self._line

    def _line(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            self.lines[place_of(frame, "line")] += 1
        return self._line


@dataclass
class Fault:
    """What happens, and where.

    Args:
        form: one of ``FORMS``.
        place: as :func:`place_of` gives it.
        nth: at which time that the place is run through.
        gap: lines of tlnb until the second press.
        error: which error, for the form of that name.
    """

    form: str
    place: str
    nth: int
    gap: int = 0
    error: str = "RuntimeError"
    seen: int = 0
    fired: int = 0

    def __str__(self) -> str:
        more = f", {self.gap} lines later" if self.gap else f" ({self.error})" if self.form == "error" else ""
        return f"{self.form} at {self.place}, time {self.nth}{more}"

    def __enter__(self) -> Fault:
        sys.settrace(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _call(self, frame: FrameType, event: str, argument: object) -> Any:
        if self._over or not frame.f_code.co_filename.startswith(_HOME):
            return None
        if self.form == "error":
            if place_of(frame, "call") == self.place:
                self._meet()
            return None
        return self._line

    def _line(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "line" and not self._over:
            if self.fired:
                self.gap -= 1
                if self.gap == 0:
                    self._happen()
            elif place_of(frame, "line") == self.place:
                self._meet()
        return self._line

    @property
    def _over(self) -> bool:
        return self.fired >= (2 if self.form == "two presses" else 1)

    def _meet(self) -> None:
        self.seen += 1
        if self.seen == self.nth:
            self._happen()

    def _happen(self) -> None:
        self.fired += 1
        if self.form == "interrupt":
            raise KeyboardInterrupt
        if self.form == "error":
            raise (
                OSError(errno.ENOSPC, "No space left on device")
                if self.error == "OSError"
                else MemoryError("injected")
                if self.error == "MemoryError"
                else RuntimeError("injected")
            )
        signal.raise_signal(signal.SIGINT)


def some_fault(rng: random.Random, form: str, lines: dict[str, int], calls: dict[str, int]) -> Fault:
    """A fault of a form at a place that is drawn, at a time that is drawn."""
    places = calls if form == "error" else lines
    place = rng.choice(list(places))
    error = rng.choice(("RuntimeError", "RuntimeError", "OSError", "MemoryError"))
    gap = rng.randint(1, LATER) if form == "two presses" else 0
    return Fault(form, place, rng.randint(1, places[place]), gap, error)


def _begin() -> None:
    """What a fork needs that came from a process with threads."""
    machine.pool.cache_clear()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["TLNB_AUTOSAVE"] = "0"


def _seeds() -> str:
    return hashlib.sha256(
        repr((random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())).encode()
    ).hexdigest()


# ---------------------------------------------------------------- training


def trained(job: Job, fault: Fault | Watcher | None) -> dict[str, object]:
    """In a fork: the job with a fault, and gone on with to its end."""
    _begin()
    session = session_for(job)
    fresh = outcome(session)
    trouble, told = "", []
    if fault is not None:
        try:
            with fault:
                session.run(job.plan, keep_best=job.keep_best)
        except BaseException as error:
            trouble = f"{type(error).__name__}: {error}"
    else:
        session.run(job.plan, keep_best=job.keep_best)
    if session.busy or session.stop_request is not None:
        told.append("left busy")
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        told.append("the handler of before is not back")
        signal.signal(signal.SIGINT, signal.default_int_handler)
    session.status()  # a call, so what was torn out of its block is taken back
    session.freeze("0") if session.frozen[0] else session.unfreeze("0")
    if any(module.training for module in session.model.modules()):
        told.append("left in train mode")
    if session._paused is None and not session.history.stages:
        now = outcome(session)
        if now["weights"] != fresh["weights"]:
            told.append("weights moved, and nothing is left to go on with")
        session.run(job.plan, keep_best=job.keep_best)
    finish(session)
    if sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in session.model.modules()):
        told.append("a hook is left")
    if isinstance(fault, Watcher):
        return {"outcome": outcome(session), "lines": fault.lines, "calls": fault.calls}
    return {
        "outcome": outcome(session),
        "told": told,
        "trouble": trouble,
        "fired": fault.fired if fault else 0,
    }


def train_campaign(
    count: int, seed: int, forms: Iterable[str], jobs: dict[str, Job], say: bool
) -> Counter[str]:
    """``count`` faults of each form over the jobs; every run must come to what the undisturbed one came to."""
    rng, total = random.Random(seed), Counter[str]()
    known: dict[str, dict[str, Any]] = {}
    forms = tuple(forms)
    for number in range(count):
        name = list(jobs)[number % len(jobs)]
        if name not in known:
            known[name] = in_fork(lambda job=jobs[name]: trained(job, Watcher()))
            if "died" in known[name]:
                raise AssertionError(f"{name}: {known[name]['died']}")
        one = known[name]
        for form in forms:
            fault = some_fault(rng, form, one["lines"], one["calls"])
            got = in_fork(lambda job=jobs[name], fault=fault: trained(job, fault))
            total[form] += 1
            if "died" in got:
                verdict = "ended with an error"
            elif not got["fired"]:
                verdict = "not reached"
            elif got["outcome"] != one["outcome"]:
                verdict = "ended elsewhere"
            else:
                verdict = "; ".join(got["told"])
            if verdict:
                total[verdict] += 1
                print(
                    f"{name}: {fault}: {verdict} {got.get('died', '')} {got.get('trouble', '')}",
                    file=sys.stderr,
                )
                if verdict == "ended elsewhere":
                    print("   ", difference(one["outcome"], got["outcome"]), file=sys.stderr, flush=True)
        if say:
            print(dict(total), flush=True)
    return total


# ---------------------------------------------------------------- the other calls


def called(session: Session, call: Callable[[Session], object], fault: Fault) -> dict[str, Any]:
    """In a fork: a call with a fault, and what is left then and after the same call without one."""
    _begin()
    before, seeds = facts(session, identity=True), _seeds()
    trouble = ""
    try:
        with fault:
            call(session)
    except BaseException as error:
        trouble = f"{type(error).__name__}: {error}"
    told = [] if _seeds() == seeds else ["random state moved"]
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        told.append("the handler of before is not back")
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with session._call():  # takes back what was torn out of its block
        pass
    left, now = facts(session), facts(session, identity=True)
    again, goes_on = (
        "",
        session.view.state.sweep is not None,
    )  # a sweep that was stopped goes on when called again
    if trouble or goes_on:
        try:
            call(session)
        except BaseException as error:
            again = f"{type(error).__name__}: {error}"
    return {
        "unchanged": now == before, "changed": difference(before, now), "left": left, "last": facts(session),
        "trouble": trouble, "again": again, "goes_on": goes_on, "fired": fault.fired, "told": told,
    }  # fmt: skip


def watched(session: Session, call: Callable[[Session], object]) -> dict[str, Any]:
    """In a fork: the call undisturbed."""
    _begin()
    seeds = _seeds()
    with Watcher() as watcher:
        call(session)
    moved = _seeds() != seeds
    return {"left": facts(session), "lines": watcher.lines, "calls": watcher.calls, "moved": moved}


def call_campaign(
    count: int, seed: int, forms: Iterable[str], names: Iterable[str], say: bool
) -> Counter[str]:
    """``count`` faults over the calls: each must have changed nothing, or all that the call is for."""
    rng, total = random.Random(seed), Counter[str]()
    forms, names = tuple(forms), tuple(names)
    place = Path(tempfile.mkdtemp())
    os.environ["TLNB_HOME"] = str(place / "home")
    (place / "work").mkdir()
    os.chdir(place / "work")
    _begin()
    session = ready()
    known: dict[str, dict[str, Any]] = {}
    for number in range(count):
        name = names[number % len(names)]
        form = forms[(number // len(names)) % len(forms)]
        call = MORE[name]
        if name not in known:
            known[name] = in_fork(lambda call=call: watched(session, call))
            if "died" in known[name]:
                raise AssertionError(f"{name}: {known[name]['died']}")
            if known[name]["moved"]:
                print(f"{name}: moves a random state", file=sys.stderr)
        one = known[name]
        fault = some_fault(rng, form, one["lines"], one["calls"])
        got = in_fork(lambda call=call, fault=fault: called(session, call, fault))
        total[form] += 1
        verdict = verdict_of(got, one)
        total[verdict] += 1
        bad = verdict not in ("unchanged", "complete", "not reached")
        if not bad and (more := "; ".join(got["told"])) and not (one["moved"] and verdict == "complete"):
            total[more] += 1
            print(f"{name}: {fault}: {more}", file=sys.stderr, flush=True)
        if bad:
            print(f"{name}: {fault}: {verdict}; {got.get('trouble')}", file=sys.stderr)
            print("   ", got.get("died") or got["changed"], got.get("again"), file=sys.stderr)
            if "left" in got:
                print("   ", difference(one["left"], got["left"]), file=sys.stderr)
                print("   ", difference(one["left"], got["last"]), file=sys.stderr, flush=True)
        if say and number % 50 == 49:
            print(dict(total), flush=True)
    os.chdir("/")
    shutil.rmtree(place, ignore_errors=True)
    return total


def verdict_of(got: dict[str, Any], one: dict[str, Any]) -> str:
    """What a fault has done."""
    if "died" in got:
        return "ended with an error"
    if not got["fired"]:
        return "not reached"
    if not got["trouble"] or got["left"] == one["left"]:
        return "complete" if one["left"] in (got["left"], got["last"]) else "ended, and not as undisturbed"
    if got["again"]:
        return "cannot be called again"
    if got["goes_on"]:
        return "unchanged" if got["last"] == one["left"] else "called again it ends elsewhere"
    if got["unchanged"]:
        return "unchanged" if got["last"] == one["left"] else "called again it ends elsewhere"
    return "half done"


# ---------------------------------------------------------------- forks


def in_fork(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``work`` answers in a fork with a folder of its own for autosaves and files."""
    with tempfile.TemporaryDirectory() as place:
        folder, here = Path(place), Path.cwd()
        shutil.copytree(here, folder / "work") if here.name == "work" else (folder / "work").mkdir()

        def apart() -> dict[str, Any]:
            os.chdir(folder / "work")
            with open(folder / "errors", "w") as errors:
                os.dup2(errors.fileno(), 2)
            return work()

        try:
            status = wait(fork(folder, apart, most=300))
        except AssertionError as error:
            return {"died": str(error)}
        if status:
            text = (folder / "errors").read_text() if (folder / "errors").exists() else ""
            return {"died": f"exit status {status}: {text[-1500:]}"}
        return dict(json.loads((folder / "outcome.json").read_text()))


def difference(one: Any, other: Any, where: str = "") -> str:
    """The first place in which two values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            if one.get(key) != other.get(key):
                return difference(one.get(key), other.get(key), f"{where}.{key}")
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            if a != b:
                return difference(a, b, f"{where}[{index}]")
    return "" if one == other else f"{where}: {str(one)[:200]} / {str(other)[:200]}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=40, help="faults of each form; with --calls, in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--calls", action="store_true", help="the calls beside training")
    parser.add_argument("--form", default="", help=f"only forms with this in their name: {', '.join(FORMS)}")
    parser.add_argument("--job", default="", help="only jobs or calls with this in their name")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [form for form in FORMS if asked.form in form]
    if asked.calls:
        names = [name for name in MORE if asked.job in name]
        total = call_campaign(asked.count, asked.seed, chosen, names, say=True)
    else:
        jobs = {name: job for name, job in JOBS.items() if asked.job in name}
        total = train_campaign(asked.count, asked.seed, chosen, jobs, say=True)
    print(dict(total))
    good = {*FORMS, "unchanged", "complete", "not reached"}
    sys.exit(bool(set(total) - good))
