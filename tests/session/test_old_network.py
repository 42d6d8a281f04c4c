"""The network of before training comes back with a session: guards go on, forgetting and blends are known."""

from __future__ import annotations

import copy
import json
import os
import signal
import sys
from functools import cache
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from listening import Ear
from networks import blobs, small
from pictures import class_folders
from safetensors import safe_open

from tlnb.engine.checkpoint import file as checkpoint
from tlnb.errors import CheckpointError, NotReady
from tlnb.session import Session

ROOT = Path(__file__).parents[2]
GUARDS = ["l2sp:3", "lwf:1", "ewc:20"]
PLAN = "freeze body epochs 1 lr 0.02\nunfreeze all epochs 3 lr 0.02 keep {0}\nunfreeze 2: epochs 1 lr 0.01 keep {0}"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


class StopAt:
    def __init__(self, batch: int):
        self.left, self.session = batch, None

    def on_batch(self, step: int, steps: int) -> None:
        self.left -= 1
        if self.left == 0:
            self.session.stop_request.ask()  # type: ignore[attr-defined]


def session(stop_at: int = -1, *, seed: int = 0, data: bool = True) -> Session:
    """A network that knows two classes and learns three."""
    listener = StopAt(stop_at)
    made = Session([listener])
    listener.session = made
    made.load(copy.deepcopy(trained(seed)), input="1,8,8")
    if data:
        made.data(new_task(), batch=16)
    return made


@cache
def trained(seed: int) -> torch.nn.Module:
    """A network that has learned something, so that its weights matter to it."""
    made = Session([])
    made.load(small(2, seed), input="1,8,8")
    made.data((blobs(60, 2).inputs, blobs(60, 2).targets), batch=16)
    made.train(3, 0.02)
    return made.model


def new_task() -> tuple[torch.Tensor, torch.Tensor]:
    blob = blobs(90)
    return blob.inputs, blob.targets


def weights(of: Session) -> list[bytes]:
    return [tensor.numpy().tobytes() for tensor in of.model.state_dict().values()]


def figures(of: Session) -> list[tuple[Any, ...]]:
    return [(r.stage, r.epoch, r.rate, r.train_loss, r.valid_loss, r.accuracy, r.digest) for r in of.history]


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize("batch", [9, 24])
def test_a_guarded_stage_goes_on_in_a_new_session_as_if_never_stopped(guard: str, batch: int) -> None:
    whole, stopped = session(), session(batch)
    whole.run(PLAN.format(guard))
    stopped.run(PLAN.format(guard))
    stopped.save("here")
    fresh = session(seed=7)  # other weights: what is old must come from the file
    assert "cannot go on" not in str(fresh.resume("here"))
    fresh.go_on()
    assert weights(fresh) == weights(whole)
    assert figures(fresh) == figures(whole)


def test_forgetting_and_blends_are_those_of_before() -> None:
    first, second = session(), session(seed=7)
    first.train(2, 0.02)
    first.save("here")
    second.resume("here")
    assert repr(second.forgetting().drift) == repr(first.forgetting().drift)
    assert repr(second.blend(0.5).points) == repr(first.blend(0.5).points)
    assert weights(second) == weights(first)


@pytest.mark.parametrize("guard", GUARDS)
def test_a_guard_in_the_first_stage_pulls_to_the_weights_of_before_it(guard: str) -> None:
    plan = f"unfreeze all epochs 3 lr 0.02 keep {guard}"
    whole, stopped = session(), session(4)
    whole.run(plan)
    stopped.run(plan)
    stopped.save("here")
    fresh = session(seed=7)
    fresh.resume("here")
    fresh.go_on()
    assert weights(fresh) == weights(whole)


KILLED = """
import os, signal, sys
sys.path[:0] = [{root!r}, {tests!r}]
import torch
torch.set_num_threads(1)
from networks import blobs, small
from tlnb.session import Session

network = small(2)
network.load_state_dict(torch.load({weights!r}))

class Dies:
    left = {batch}
    def on_batch(self, step, steps):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

made = Session([Dies()])
made.load(network, input="1,8,8")
made.data((blobs(90).inputs, blobs(90).targets), batch=16)
made.run({plan!r})
"""


def test_a_killed_kernel_leaves_an_autosave_from_which_a_guarded_stage_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan = PLAN.format("ewc:20")
    code = KILLED.format(root=str(ROOT), tests=str(ROOT / "tests"), plan=plan, batch=12, weights="start.pt")
    torch.save(trained(0).state_dict(), "start.pt")
    env = {**os.environ, "TLNB_AUTOSAVE": "0.0001"}
    assert forked.run([sys.executable, "-c", code], env=env).returncode == -signal.SIGKILL
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole, fresh = session(), session(seed=7)
        whole.run(plan)
        fresh.resume()
        assert fresh.history.stages[-1].number == 2
        fresh.go_on()
    finally:
        torch.set_num_threads(threads)
    assert weights(fresh) == weights(whole)
    assert figures(fresh) == figures(whole)


def test_old_data_with_a_name_is_read_again(tmp_path: Path) -> None:
    class_folders(tmp_path / "old", ("dark", "light"), each=6)
    first = session()
    first.forgetting("old")
    first.train(1, 0.02)
    first.save("named")
    second = session(seed=7)
    (tmp_path / "elsewhere").mkdir()
    os.chdir(tmp_path / "elsewhere")
    second.resume(str(tmp_path / "named"))
    second.train(1, 0.02)
    first.train(1, 0.02)
    assert set(first.history.old) == {1, 2}
    assert second.history.old == first.history.old
    ours, theirs = second.forgetting(), first.forgetting()
    assert (ours.before, ours.stages, ours.now) == (theirs.before, theirs.stages, theirs.now)


def test_what_ewc_found_on_old_data_stands_though_that_is_not_there_any_more(tmp_path: Path) -> None:
    plan = PLAN.format("ewc:20")
    whole, stopped = session(), session(9)
    for each in (whole, stopped):
        each.forgetting((blobs(40).inputs, blobs(40).targets % 2))
        each.run(plan)
    stopped.save("here")
    fresh = session(seed=7)
    fresh.resume("here")
    fresh.go_on()
    assert weights(fresh) == weights(whole)
    without = session()
    without.run(plan)
    assert weights(without) != weights(whole), "the test needs old data that matters"


def test_old_data_that_has_gone_is_said_and_training_goes_on(tmp_path: Path) -> None:
    class_folders(tmp_path / "old", ("dark", "light"), each=6)
    first = session()
    first.forgetting("old")
    first.train(1, 0.02)
    first.save("named")
    (tmp_path / "old").rename(tmp_path / "moved")
    ear = Ear()
    second = session(seed=7)
    second.resume("named")
    second.listeners = [ear]
    second.train(1, 0.02)
    second.train(1, 0.02)
    assert [text for text in ear.said if "old task cannot be read again" in text] == ear.said[:1]
    assert set(second.history.old) == {1}


@pytest.mark.parametrize("change", [
    lambda tensors: tensors.pop("importance.body.0.weight"),
    lambda tensors: tensors.update({"importance.body.0.weight": torch.ones(2)}),
    lambda tensors: tensors.update({"importance.x": torch.ones(2)}),
], ids=["missing", "of another shape", "too many"])  # fmt: skip
def test_what_ewc_found_must_fit_the_network(tmp_path: Path, change: Any) -> None:
    once = session(4)
    once.run("unfreeze all epochs 2 lr 0.02 keep ewc:20")
    once.save("good")
    found = checkpoint.read(tmp_path / "good.safetensors")
    change(found.tensors)
    checkpoint.write(tmp_path / "bad.safetensors", found)
    mark = weights(once), figures(once)
    with pytest.raises(CheckpointError, match="weighs other weights for keep ewc"):
        once.resume("bad")
    assert (weights(once), figures(once)) == mark
    once.go_on()


def test_what_a_frozen_body_was_costs_nothing_and_a_trained_one_its_own_size(tmp_path: Path) -> None:
    once = session()
    once.freeze("body")
    once.train(1, 0.02)
    once.save("frozen")
    once.unfreeze("all")
    once.train(1, 0.02)
    once.save("trained")
    held = [old_names(tmp_path / f"{name}.safetensors") for name in ("frozen", "trained")]
    # The old head differs from the new one; of the body only what has moved.
    assert held[0] == {"old.head.weight", "old.head.bias"}
    assert held[1] >= {"old.body.0.weight", "old.body.1.running_mean", "old.body.8.bias"}


def old_names(path: Path) -> set[str]:
    with safe_open(path, "pt") as file:
        return {name for name in file.keys() if name.startswith("old.")}  # noqa: SIM118


def test_another_session_resumed_in_the_same_kernel_brings_its_own_old_network() -> None:
    one, other = session(), session(seed=3)
    for each, name in ((one, "one"), (other, "other")):
        each.train(1, 0.02)
        each.save(name)
    drift = repr(one.forgetting().drift)
    assert drift != repr(other.forgetting().drift)
    one.resume("other")
    assert repr(one.forgetting().drift) == repr(other.forgetting().drift)
    one.resume("one")
    assert repr(one.forgetting().drift) == drift


def test_a_file_without_the_old_network_says_so_and_anchors_to_nothing_else(tmp_path: Path) -> None:
    stopped = session(4)
    stopped.run("unfreeze all epochs 3 lr 0.02 keep l2sp:3")
    stopped.save("here")
    found = checkpoint.read(tmp_path / "here.safetensors")
    found.about["old_network"] = None
    checkpoint.write(tmp_path / "old.safetensors", found)
    fresh = session()
    assert "does not hold the network of before training" in str(fresh.resume("old"))
    before = weights(fresh)
    with pytest.raises(NotReady, match="as it was before training is not known"):
        fresh.go_on()
    assert weights(fresh) == before


@pytest.mark.parametrize("change", [
    lambda old: old.update(heads={}), lambda old: old.update(same=[]), lambda old: old.update(same=["x"]),
    lambda old: old.update(heads={"head": ["linear", 8, 1 << 23, True]}), lambda old: old.update(name=7),
    lambda old: old.update(same=None), lambda old: old.clear(),
], ids=["no heads", "nothing the same", "no such name", "a huge head", "no name", "null", "nothing"])  # fmt: skip
def test_an_old_network_that_does_not_fit_is_refused_and_changes_nothing(tmp_path: Path, change: Any) -> None:
    once = session()
    once.freeze("body")
    once.train(1, 0.02)
    once.save("good")
    found = checkpoint.read(tmp_path / "good.safetensors")
    change(found.about["old_network"])
    checkpoint.write(tmp_path / "bad.safetensors", found)
    mark = weights(once), figures(once), repr(once.forgetting().drift)
    with pytest.raises(CheckpointError, match=r"^[^\n]*$"):
        once.resume("bad")
    assert (weights(once), figures(once), repr(once.forgetting().drift)) == mark
    json.dumps(found.about)
