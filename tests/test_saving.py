"""Saving, resuming, going on and going back: what comes after is what would have come."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import blobs, small
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tlnb.engine.checkpoint import autosave
from tlnb.engine.checkpoint import file as checkpoint
from tlnb.engine.core.interrupts import StopRequest
from tlnb.engine.training import trainer
from tlnb.errors import CheckpointError, ExportError, NotReady, PlanError, TlnbError, TrainingError
from tlnb.session import Session

PLAN = "freeze body epochs 2 lr 0.02\nunfreeze all epochs 3 lr 0.01 {}\nunfreeze 2: epochs 2 lr 0.005"
KINDS = [
    "",
    "optimizer sgd",
    "micro 7",
    "schedule cosine decay 2",
    "smoothing 0.1 patience 1",
    "precision fp16",
]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own for each test, and the folder above it to work in."""
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TLNB_AUTOSAVE", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


class StopAt:
    """Presses stop after so many batches, and keeps what was said."""

    def __init__(self, batch: int = -1):
        self.left, self.session, self.said = batch, None, []

    def on_batch(self, step: int, steps: int) -> None:
        self.left -= 1
        if self.left == 0:
            self.session.stop_request.ask()  # type: ignore[attr-defined]

    def on_message(self, text: str) -> None:
        self.said.append(text)


def session(stop_at: int = -1, *, data: bool = True, classes: int = 3, seed: int = 0) -> Session:
    listener = StopAt(stop_at)
    made = Session([listener])
    listener.session = made
    made.load(small(classes, seed), input="1,8,8")
    if data:
        made.data(samples(), batch=16)
    return made


def samples(count: int = 90, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    blob = blobs(count, seed=seed)
    return blob.inputs, blob.targets


def weights(of: Session) -> list[bytes]:
    return [tensor.numpy().tobytes() for tensor in of.model.state_dict().values()]


def parameters(of: Session) -> list[bytes]:
    return [parameter.detach().numpy().tobytes() for parameter in of.model.parameters()]


def figures(of: Session) -> list[tuple[Any, ...]]:
    return [(r.stage, r.epoch, r.rate, r.train_loss, r.valid_loss, r.accuracy, r.digest) for r in of.history]


# ---------------------------------------------------------------- going on


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 6, 13, 23])
def test_after_a_stop_anywhere_the_rest_comes_out_the_same(kind: str, batch: int) -> None:
    whole, stopped = session(), session(batch)
    whole.run(PLAN.format(kind))
    assert stopped.run(PLAN.format(kind)).stopped
    assert not any(module.training for module in stopped.model.modules())
    stopped.listeners.clear()
    assert not stopped.go_on().stopped
    assert weights(stopped) == weights(whole)
    assert figures(stopped) == figures(whole)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [3, 14, 23])
def test_a_new_session_goes_on_from_a_file(kind: str, batch: int) -> None:
    whole, stopped, fresh = session(), session(batch), session()
    whole.run(PLAN.format(kind), keep_best=True)
    stopped.run(PLAN.format(kind), keep_best=True)
    stopped.save("here")
    torch.manual_seed(batch)  # the file brings its own random states
    fresh.resume("here")
    fresh.go_on()
    assert weights(fresh) == weights(whole)
    assert figures(fresh) == figures(whole)


@pytest.mark.parametrize("batch", [9, 14, 20])
def test_the_scale_of_the_loss_goes_on_where_it_stood(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scale grows until gradients overflow; which steps are left out follows from where it stood."""
    monkeypatch.setattr(trainer, "GROWTH", 2)
    plan = "unfreeze all epochs 5 lr 0.01 precision fp16"
    whole, stopped, fresh = session(), session(batch), session()
    whole.run(plan)
    stopped.run(plan)
    stopped.save("here")
    progress = stopped.view.state.plan.result.left
    assert progress.scaler is not None
    assert progress.scaler[0] > 65536
    fresh.resume("here")
    fresh.go_on()
    assert weights(fresh) == weights(whole)
    assert figures(fresh) == figures(whole)


def test_fp16_learns_what_fp32_learns_and_a_script_says_that_it_cannot() -> None:
    exact, short = session(), session()
    exact.train(4, 0.01)
    short.train(4, 0.01, precision="fp16")
    assert weights(short) != weights(exact)
    assert abs(short.history[-1].valid_loss - exact.history[-1].valid_loss) < 0.02
    with pytest.raises(ExportError, match="fp16 with a scaled loss cannot be written into a script"):
        short.script("train.py")


def test_gradients_that_no_scale_helps_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that is finite, with gradients that are not."""
    tl = session()
    before = parameters(tl)
    *_, weight = tl.model.parameters()
    weight.register_hook(lambda gradient: gradient * float("inf"))
    run = tl.train(8, 0.01, precision="fp16")
    assert run.diverged
    assert "gradients overflow fp16 at any scale of the loss" in str(run)
    assert [now for now, was in zip(parameters(tl), before, strict=True) if now != was] == []


FITTED = (
    "fit head\nunfreeze all epochs 2 lr 1e-4 bn frozen blend 0.5 guard off\n"
    "unfreeze all epochs 1 lr 3 schedule constant\nunfreeze 2: epochs 1 init soft blend auto guard off"
)


def endings(of: Session) -> list[tuple[Any, ...]]:
    scores = [(s.before and s.before.valid_loss, s.final and s.final.valid_loss) for s in of.history.stages]
    return [
        (s.stage, s.share, s.note, s.rate, *more) for s, more in zip(of.history.stages, scores, strict=True)
    ]


def test_fits_blends_and_guards_come_out_the_same_after_a_stop_at_any_check_and_in_a_new_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, checks, usual = session(classes=2, seed=4), [0, -1], StopRequest.check

    def check(self: StopRequest) -> None:
        checks[0] += 1
        if checks[0] == checks[1]:
            self.ask()
        usual(self)

    monkeypatch.setattr(StopRequest, "check", check)
    whole.run(FITTED)
    assert [stage.share for stage in whole.history.stages][1:3] == [0.5, 0.0]
    total, stopped_in = checks[0], set()
    for at in range(
        1, total, 7
    ):  # while features are kept, fitted, trained on, measured, blended, gone back from
        stopped, fresh = session(classes=2, seed=4), session(classes=2, seed=4)
        checks[:] = [0, at]
        run = stopped.run(FITTED)
        assert run.stopped
        stopped_in.add(len(stopped.history.stages))
        assert not any(module.training for module in stopped.model.modules())
        stopped.save("here")
        checks[1] = -1
        fresh.resume("here")
        for each in (stopped, fresh):
            each.go_on()
            assert weights(each) == weights(whole), at
            assert figures(each) == figures(whole), at
            assert endings(each) == endings(whole), at
    assert stopped_in >= {2, 3, 4}


def test_a_fit_and_what_was_taken_back_can_be_undone_and_is_in_a_file() -> None:
    once, other = session(classes=2, seed=4), session(classes=2, seed=4)
    marks = [weights(once)]
    for line in FITTED.splitlines():
        once.run(line)
        marks.append(weights(once))
    assert marks[3] == marks[2], "the third stage was taken back"
    once.save("end")
    other.resume("end")
    assert (weights(other), endings(other)) == (marks[-1], endings(once))
    assert repr(other.history) == repr(once.history)
    for mark in reversed(marks[:-1]):
        once.undo()
        assert weights(once) == mark
    assert not len(once.history)


def test_the_stop_button_works_in_the_range_test_the_prefix_and_validation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tlnb.engine.training import lr_finder
    from tlnb.engine.training.trainer import StageTrainer

    whole = session()
    whole.run("unfreeze all epochs 2")
    for owner, name in (
        (lr_finder, "range_test"),
        (StageTrainer, "evaluate"),
        (StageTrainer, "take_shortcut"),
    ):
        stopped, original = session(), getattr(owner, name)

        def press(*args: Any, original: Any = original, stopped: Session = stopped, **keys: Any) -> Any:
            if stopped.stop_request is not None:
                stopped.stop_request.ask()
            return original(*args, **keys)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, press)
            assert stopped.run("unfreeze all epochs 2").stopped
        stopped.go_on()
        assert weights(stopped) == weights(whole), name
        assert figures(stopped) == figures(whole), name


def test_a_second_press_rolls_the_epoch_back_and_it_can_still_go_on() -> None:
    whole, torn = session(), session()
    whole.run(PLAN.format(""))

    class Twice:
        batches = 0

        def on_batch(self, step: int, steps: int) -> None:
            self.batches += 1
            if self.batches == 14:
                raise KeyboardInterrupt

    torn.listeners = [Twice()]
    with pytest.raises(KeyboardInterrupt):
        torn.run(PLAN.format(""))
    torn.go_on()
    assert weights(torn) == weights(whole)
    assert figures(torn) == figures(whole)


def test_an_error_in_a_step_of_ones_own_costs_nothing() -> None:
    calls = []

    def step(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        if len(calls) == 9:
            raise RuntimeError("a slip")
        return torch.nn.functional.cross_entropy(model(x), y)

    whole, broken = session(), session()
    whole.step = lambda model, x, y: torch.nn.functional.cross_entropy(model(x), y)
    broken.step = step
    whole.train(3, 0.01)
    with pytest.raises(RuntimeError, match="a slip"):
        broken.train(3, 0.01)
    broken.go_on()
    assert weights(broken) == weights(whole)
    broken.save("own")
    fresh = session()
    fresh.resume("own")
    assert figures(fresh) == figures(whole)


def test_a_step_of_ones_own_must_be_there_again() -> None:
    stopped = session(3)
    stopped.step = lambda model, x, y: torch.nn.functional.cross_entropy(model(x), y)
    stopped.train(2, 0.01)
    stopped.save("own")
    fresh = session()
    fresh.resume("own")
    with pytest.raises(NotReady, match="%%tl_step"):
        fresh.go_on()


def test_nothing_to_go_on_with_says_what_to_do() -> None:
    idle = session()
    with pytest.raises(NotReady, match="nothing was trained yet"):
        idle.go_on()
    idle.train(1, 0.01)
    with pytest.raises(NotReady, match="--continue epochs 3"):
        idle.go_on()
    stopped = session(3)
    stopped.train(2, 0.01)
    with pytest.raises(PlanError, match="optimizer cannot change"):
        stopped.go_on(optimizer="sgd")
    stopped.load(small(), input="1,8,8")
    with pytest.raises(NotReady):
        stopped.go_on()


# ---------------------------------------------------------------- autosave


def test_a_dead_kernel_is_resumed_from_its_autosave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLNB_AUTOSAVE", "0.0001")
    whole = session()
    whole.run(PLAN.format(""))
    dead = session()
    dead.listeners = [Dies(17)]
    with pytest.raises(Dies.Now):
        dead.run(PLAN.format(""))
    del dead
    gc.collect()
    fresh = session()
    assert "resumed from" in str(fresh.resume())
    fresh.go_on()
    assert weights(fresh) == weights(whole)
    assert figures(fresh) == figures(whole)


class Dies:
    class Now(BaseException):
        pass

    def __init__(self, batch: int):
        self.left = batch

    def on_batch(self, step: int, steps: int) -> None:
        self.left -= 1
        if not self.left:
            raise self.Now


def test_autosave_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("TLNB_AUTOSAVE", "0")
    off = session()
    off.train(2, 0.01)
    assert not autosave.files(home / "autosave")
    assert "autosave is off" in str(off.status())
    with pytest.raises(CheckpointError, match="no autosave"):
        off.resume()


def test_without_a_home_it_stands_beside_the_notebook(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TLNB_HOME")
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    # Loading the extension notes the folder for the whole process: another test may have done so.
    monkeypatch.setattr("tlnb.engine.core.machine._loaded_in", None)
    session().train(1, 0.01)
    assert autosave.files(tmp_path / ".tlnb" / "autosave")


def test_a_disk_that_is_full_is_told_once_and_training_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, full = session(), session()
    whole.train(4, 0.01)
    usual = checkpoint.save_file

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("TLNB_AUTOSAVE", "0.0001")
    monkeypatch.setattr(checkpoint, "save_file", fail)
    full.train(4, 0.01)
    said = [text for text in full.listeners[0].said if "saved" in text]
    assert len(said) == 1
    assert "No space left on device; training goes on, nothing is saved yet" in said[0]
    assert "NOT" in str(full.status())
    assert weights(full) == weights(whole)
    monkeypatch.setattr(checkpoint, "save_file", usual)
    full.train(1, 0.01)
    assert full.listeners[0].said[-1] == "autosave works again"


@pytest.mark.parametrize("word", ["float16", "half", "16-mixed"])
def test_other_words_for_a_precision_are_refused(word: str) -> None:
    once = session()
    with pytest.raises(PlanError, match=f"precision takes one of fp32, bf16, fp16, auto, not '{word}'"):
        once.train(1, 0.01, precision=word)
    assert not len(once.history)


# ---------------------------------------------------------------- strict transfer


def test_strict_transfer_keeps_the_head_and_the_moments_on_new_data() -> None:
    old = session(9)
    old.train(3, 0.01)
    old.save("old")
    new = session(data=False)
    new.resume("old")
    head = new.model.head
    inputs, targets = samples(60, seed=5)
    new.data((inputs, targets + 10), batch=10)
    assert new.model.head is head
    before = new._paused.result.left.optimizer["head.weight"]["exp_avg"].clone()  # type: ignore[union-attr]
    assert before.abs().sum() > 0
    run = new.go_on()
    assert [r.epoch for r in run.records] == [1, 2, 3]
    # The schedule stands where it stood: after one epoch of three.
    assert run.stages[0].stage.epochs == 3


def test_a_file_holds_the_moments_once_and_the_network_of_before_where_it_was_trained() -> None:
    once = session()
    weight = sum(tensor.nbytes for tensor in once.model.state_dict().values())
    once.train(1, 0.01)
    once.listeners = [stop := StopAt(9)]
    stop.session = once
    once.train(3, 0.01)
    once.save("here")
    size = sum(tensor.nbytes for tensor in load_file("here.safetensors").values())
    heads = sum(p.nbytes for p in once.model.head.parameters())
    random = 3 * 5056  # of Python, numpy and torch
    # Itself, two moments, itself as it came and before the stage, which the guard goes back to; the head a task.
    assert size < 5 * weight + 2 * heads + random


def test_a_further_stage_begins_with_the_moments_of_the_last() -> None:
    kept, anew = session(), session()
    for each in (kept, anew):
        each.train(2, 0.01, schedule="constant")
    kept.go_on(epochs=1)
    anew.train(1, 0.01, schedule="constant")
    assert kept.history[-1].rate == 0.01
    assert weights(kept) != weights(anew)
    kept.save("end")
    again = session()
    again.resume("end")
    again.go_on(epochs=1)
    kept.go_on(epochs=1)
    assert weights(again) == weights(kept)


# ---------------------------------------------------------------- networks, heads and data by name


def test_a_named_network_comes_back_with_its_heads_and_data() -> None:
    first = Session([])
    first.load("convnet5")
    first.data("digits", per_class=6)
    first.head("mlp:16")
    first.freeze("0:5")
    first.train(1, 1e-3)
    first.save("named")
    second = Session([])
    assert "data digits is read again" in str(second.resume("named"))
    assert weights(second) == weights(first)
    assert (second.task, set(second.heads), second.frozen) == (first.task, set(first.heads), first.frozen)
    for name, head in first.heads.items():
        ours = [p.tolist() for p in head.parameters()]
        assert ours == [p.tolist() for p in second.heads[name].parameters()]
    for each in (first, second):
        each.train(1, 1e-3)
    assert weights(second) == weights(first)


def test_data_that_has_gone_is_said_and_the_rest_stands(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("a", "b"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(6):
            Image.new("L", (8, 8), 20 * i + 100 * (name == "b")).save(
                tmp_path / "pictures" / name / f"{i}.png"
            )
    first = Session([])
    first.load("convnet5")
    first.data("pictures")
    first.train(1, 1e-3)
    first.save("kept")
    (tmp_path / "pictures").rename(tmp_path / "moved")
    second = Session([])
    assert "is not there any more" in str(second.resume("kept"))
    assert weights(second) == weights(first)
    second.data("moved")
    assert second.model.get_submodule(second.view.need_model().head).out_features == 2


def test_a_module_of_ones_own_must_be_there_first() -> None:
    first = session()
    first.train(1, 0.01)
    first.save("own")
    with pytest.raises(CheckpointError, match=r"module of your own, Small; load it first \(%tl_load \$net\)"):
        Session([]).resume("own")


# ---------------------------------------------------------------- going back


def test_undo_goes_back_stage_by_stage() -> None:
    once = session()
    marks = [weights(once)]
    for epochs in (1, 2, 1):
        once.train(epochs, 0.01)
        marks.append(weights(once))
    for mark in reversed(marks[:-1]):
        once.undo()
        assert weights(once) == mark
    assert len(once.history) == 0
    with pytest.raises(NotReady, match="nothing to undo"):
        once.undo()


def test_after_undo_the_same_stage_gives_the_same() -> None:
    once = session()
    once.train(1, 0.01)
    once.train(2, 0.01)
    mark = weights(once), figures(once)
    once.undo()
    once.train(2, 0.01)
    assert (weights(once), figures(once)) == mark


def test_after_a_resume_there_is_nothing_to_undo_and_help_says_so() -> None:
    from tlnb.magics.commands import COMMANDS

    once = session()
    once.train(1, 0.01)
    once.save("here")
    once.resume("here")
    with pytest.raises(NotReady, match="no stage was trained since the network was loaded or resumed"):
        once.undo()
    assert "after %tl_resume there is nothing to undo" in " ".join(COMMANDS["tl_undo"].details.split())


def test_keep_best_ends_with_the_best_epoch() -> None:
    once = session()
    run = once.train(6, 0.3, keep_best=True)
    losses = [record.valid_loss for record in run.records]
    from tlnb.engine.training.passes import measure

    assert losses.index(min(losses)) != 5, "the test needs an epoch that is better than the last"
    loss, _ = measure(once.model, once._samples[1], once._data.task, once.device)  # type: ignore[index, union-attr]
    assert loss == pytest.approx(min(losses), rel=1e-5)


def test_a_loss_that_is_not_finite_puts_the_last_good_epoch_back_and_ends_the_plan() -> None:
    once = session()
    once.step = lambda model, x, y: (
        torch.nn.functional.cross_entropy(model(x), y) * (float("nan") if len(once.history.stages) else 1.0)
    )
    once.train(1, 0.01)
    good = weights(once)
    run = once.run("unfreeze all epochs 2 lr 0.01\nfreeze body epochs 1 lr 0.01")
    assert weights(once) == good
    assert run.diverged
    assert len(run.stages) <= 1
    once.step = None
    with pytest.raises(NotReady, match="give a lower one"):
        once.go_on()
    assert not once.go_on(lr=1e-3).diverged
    assert [s.stage.lr for s in once.history.stages] == [0.01, 1e-3, 0.01]


# ---------------------------------------------------------------- memory


def plain() -> torch.nn.Module:
    """A network without BatchNorm and dropout: pieces of a batch then add up to the batch."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3)
    )


@pytest.mark.parametrize("balance", [None, "weights"])
def test_what_does_not_fit_passes_in_pieces_with_the_same_result(balance: str | None) -> None:
    whole, short = Session([]), Session([])
    inputs, targets = samples(91)
    targets[:20] = 0
    for each in (whole, short):
        each.load(plain(), input="1,8,8")
        each.data((inputs, targets), batch=24, balance=balance)

    def only_five(module: Any, args: Any) -> None:
        if module.training and len(args[0]) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    hook = short.model.register_forward_pre_hook(only_five)
    whole.train(2, 0.01)
    run = short.train(2, 0.01)
    hook.remove()
    assert "memory was short: 3 samples at a time" in run.stages[0].note
    for ours, theirs in zip(short.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_where_nothing_fits_one_line_says_so_and_memory_is_let_go() -> None:
    import weakref

    held: list[Any] = []

    class Balloon:
        pass

    once = session()
    before = weights(once)

    def step(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        balloon = Balloon()
        held.append(weakref.ref(balloon))
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    once.step = step
    with pytest.raises(TrainingError, match="memory ran out in stage 1, 1 samples at a time") as caught:
        once.train(1, 0.01)
    assert caught.value is not None
    assert not [ref for ref in held if ref() is not None]
    assert weights(once) == before


# ---------------------------------------------------------------- files


def test_every_bad_file_is_one_line_and_changes_nothing(tmp_path: Path) -> None:
    once = session(5)
    once.run(PLAN.format(""))
    once.save("good")
    good = (tmp_path / "good.safetensors").read_bytes()
    mark = weights(once), figures(once), once.frozen, str(once.status()).splitlines()[0]
    for name, change in CHANGES.items():
        rewrite(tmp_path / "good.safetensors", tmp_path / "bad.safetensors", change)
        with pytest.raises(TlnbError) as caught:
            once.resume("bad.safetensors")
        assert "\n" not in str(caught.value), name
        assert (weights(once), figures(once), once.frozen, str(once.status()).splitlines()[0]) == mark, name
    (tmp_path / "good.safetensors").write_bytes(good)
    once.resume("good")


def rewrite(source: Path, target: Path, change: Any) -> None:
    """The same checkpoint with a change and a right checksum, as somebody hostile would make it."""
    import json

    with safe_open(source, "pt") as file:
        about = json.loads(file.metadata()["tlnb"])
    tensors = load_file(source)
    change(about, tensors)
    text = json.dumps(about)
    save_file(tensors, target, {"tlnb": text, "tlnb.crc32": checkpoint.checksum(text, tensors)})


CHANGES = {
    "a network of nowhere": lambda a, t: a["model"].update(own=False, name="os.system"),
    "a path for a name": lambda a, t: a["model"].update(own=False, name="../../etc/passwd"),
    "no model": lambda a, t: a.pop("model"),
    "a head of a terabyte": lambda a, t: a["tasks"][0].update(head=["linear", 1 << 24, 1 << 24, True]),
    "a head that runs": lambda a, t: a["tasks"][0].update(head=["exec", "import os"]),
    "a weight is missing": lambda a, t: t.pop("model.head.weight"),
    "a weight too many": lambda a, t: t.update({"model.x": torch.ones(1)}),
    "a weight of another shape": lambda a, t: t.update({"model.head.weight": torch.ones(2, 2)}),
    "a weight of another type": lambda a, t: t.update({"model.head.bias": torch.ones(3, dtype=torch.int64)}),
    "frozen what is not there": lambda a, t: a.update(frozen=[True] * 99),
    "a plan for layers that are not there": lambda a, t: a["pending"]["stages"][0].update(frozen=[0, 77]),
    "an epoch that is no number": lambda a, t: a["history"].append({"number": "x"}),
    "a rate that is not finite": lambda a, t: a["pending"]["result"]["left"].update(rate=float("nan")),
    "a task that is not there": lambda a, t: a.update(task="x"),
    "all is a list": lambda a, t: [a.update({k: []}) for k in list(a) if k not in ("format", "tlnb")],
    "all is null": lambda a, t: [a.update({k: None}) for k in list(a) if k not in ("format", "tlnb", "data")],
}


def test_names_from_a_file_move_no_terminal_and_no_page(tmp_path: Path) -> None:
    once = session()
    once.train(1, 0.01)
    once.save("good")
    evil = "\x1b[2J<img src=x onerror=alert(1)>\u202e"

    def change(about: dict[str, Any], tensors: object) -> None:
        about["model"]["weights"] = evil
        about["model"]["notes"] = [evil]
        about["data"]["name"] = evil
        about["history"][0]["stage"]["text"] = evil
        about["history"][0]["note"] = evil

    rewrite(tmp_path / "good.safetensors", tmp_path / "evil.safetensors", change)
    shown = [once.resume("evil"), once.status(), once.history]
    assert not [s for s in map(str, shown) if "\x1b" in s or "\u202e" in s]
    assert not [s for s in shown if "<img" in s._repr_html_()]


def test_save_overwrites_checkpoints_only(tmp_path: Path) -> None:
    once = session()
    once.train(1, 0.01)
    once.save("a")
    once.save("a")
    (tmp_path / "thesis.safetensors").write_text("years of work")
    with pytest.raises(CheckpointError, match="a file needs a name"):
        once.save(".")
    for name in ("thesis", "thesis.safetensors"):
        with pytest.raises(CheckpointError, match="is there and is no checkpoint of tlnb"):
            once.save(name)
    assert (tmp_path / "thesis.safetensors").read_text() == "years of work"
    with pytest.raises(CheckpointError, match="cannot be written"):
        once.save("thesis.safetensors/inside")


# ---------------------------------------------------------------- long runs


def test_two_thousand_epochs_keep_files_threads_and_memory_flat() -> None:
    import resource

    class Sizes:
        def __init__(self) -> None:
            self.seen: list[tuple[int, int, int]] = []

        def on_epoch(self, record: Any) -> None:
            if record.epoch % 200 == 0:
                memory = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
                self.seen.append((len(os.listdir("/proc/self/fd")), threading.active_count(), memory))

    once = Session([])
    once.load(plain(), input="1,8,8")
    once.data(samples(30), batch=16)
    once.listeners = [sizes := Sizes()]
    once.train(2000, 1e-3)
    files, threads, memory = zip(*sizes.seen, strict=True)
    # A leak an epoch would be 1,800; a library that opens a file or a thread once, late, is none.
    assert max(files[1:]) - files[1] < 10
    assert max(threads[1:]) - threads[1] < 10
    assert memory[-1] - memory[1] < 30e6
    assert len(once.history) == 2000
