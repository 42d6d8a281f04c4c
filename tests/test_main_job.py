"""The five cells of the quickstart, typed into a shell, and what they promise."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from tlnb.__main__ import CELLS
from tlnb.engine.core.fingerprint import tensors_digest
from tlnb.engine.network import freeze


def state(session) -> tuple:
    """What a user could miss: weights, buffers, modes, flags, random state, history."""
    model = session.model
    return (
        tensors_digest(model.state_dict().items()),
        [m.training for m in model.modules()],
        [(p.requires_grad, p.grad is None) for p in model.parameters()],
        torch.get_rng_state().tolist(),
        session.frozen,
        len(session.history),
        session.step,
    )


@pytest.fixture
def ready(shell):
    """A shell in which the first four cells were run."""
    for cell in CELLS[:4]:
        shell.run(cell)
    return shell


# The quickstart, which is run as a test too, has seed 0.
@pytest.mark.parametrize("seed", range(5) if "TLNB_TEST_ALL" in os.environ else (1,))
def test_five_cells_read_handwriting(shell, seed):
    for cell in CELLS[:4]:
        shell.run(f"{cell} --seed {seed}" if cell.startswith("%tl_data") else cell)
    session = shell.user_ns["tl"]
    loaded = {k: v.clone() for k, v in session.model.state_dict().items()}
    after_first = {}

    class Look:
        def on_stage_end(self, result):
            if result.number == 1:
                after_first.update({k: v.clone() for k, v in session.model.state_dict().items()})

    session.listeners.append(Look())
    run = shell.run(CELLS[4])
    assert run.accuracy >= 0.97
    assert not run.stopped
    convolutions = [name for name in loaded if name.startswith("features.")]
    assert len(convolutions) == 30, "five convolutions, five batch norms with their buffers"
    assert all(torch.equal(after_first[name], loaded[name]) for name in convolutions)
    assert [stage.trained for stage in run.stages] == [(7,), (3, 4, 5, 6, 7), tuple(range(8))]
    assert all(stage.digest_before == stage.digest_after for stage in run.stages)
    assert [len(stage.records) for stage in run.stages] == [1, 2, 2]


def test_the_digest_shown_is_that_of_the_frozen_layers(ready):
    session = ready.user_ns["tl"]
    layers = session.view.need_layers()
    expected = freeze.digest(session.model, layers, range(7))
    run = ready.run("%%tl_train\nfreeze body epochs 1 lr 1e-3")
    assert run.stages[0].digest_after == expected
    assert f"unchanged, sha256 {expected[:8]}" in repr(run)
    assert session.history[0].digest == expected


def test_two_range_tests_give_one_curve_and_leave_no_trace(ready):
    session = ready.user_ns["tl"]
    before = state(session)
    first, second = ready.run("%tl_lr"), ready.run("%tl_lr")
    assert first.losses == second.losses
    assert first.suggestions == second.suggestions
    assert state(session) == before


@pytest.mark.parametrize("step", [1, 10])
def test_a_range_test_that_is_interrupted_leaves_no_trace(ready, step):
    session = ready.user_ns["tl"]
    before, calls = state(session), []

    def interrupted(model, x, y):
        calls.append(1)
        if len(calls) == step:
            os.kill(os.getpid(), signal.SIGINT)
        return torch.nn.functional.cross_entropy(model(x), y)

    session.step = interrupted
    with pytest.raises(KeyboardInterrupt):
        session.find_lr()
    session.step = None
    assert state(session) == before


def test_an_interrupted_magic_is_one_line(ready, monkeypatch):
    def interrupted(**keys):
        raise KeyboardInterrupt

    monkeypatch.setattr(ready.user_ns["tl"], "find_lr", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        ready.run("%tl_lr")
    said = "KeyboardInterrupt: %tl_lr was interrupted; %tl_status says where the session stands"
    assert caught.value._render_traceback_() == [said]


def test_a_range_test_that_meets_nan_leaves_no_trace(ready):
    session = ready.user_ns["tl"]
    before, calls = state(session), []

    def poisoned(model, x, y):
        calls.append(1)
        loss = torch.nn.functional.cross_entropy(model(x), y)
        return loss * float("nan") if len(calls) > 12 else loss

    session.step = poisoned
    curve = ready.run("%tl_lr")
    session.step = None
    assert "not finite" in curve.reason
    assert state(session) == before


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        ("%tl_freeze 9:12", "AddressError", ["9:12", "0-7"]),
        ("%tl_freeze layr3", "AddressError", ["layr3"]),
        ("%tl_load resnet81", "ModelError", ["resnet81", "did you mean 'resnet18'"]),
        ("%tl_train epochs two", "BadArguments", ["epochs", "whole number", "'two'"]),
        ("%tl_data digitz", "DataError", ["digitz", "digits"]),
        ("%tl_head mpl:3", "ModelError", ["mpl:3", "mlp:512,256"]),
        (
            "%%tl_train\nfreeze body epochs 1\nunfreeze 3: epochs 1\nunfreze all epochs 1",
            "PlanError",
            ["line 3", "unfreze", "did you mean 'unfreeze'"],
        ),
    ],
)  # fmt: skip
def test_a_wrong_word_is_one_clear_line_and_changes_nothing(ready, line, kind, words):
    session = ready.user_ns["tl"]
    before, model = state(session), session.model
    with pytest.raises(Exception, match=r"\w") as caught:
        ready.run(line)
    error = caught.value
    assert type(error).__name__ == kind
    assert error._render_traceback_() == [f"{kind}: {error}"]
    assert "\n" not in str(error)
    assert all(word in str(error) for word in words), str(error)
    assert session.model is model
    assert state(session) == before


def test_training_before_data_says_what_to_do(shell):
    shell.run("%load_ext tlnb")
    with pytest.raises(Exception, match=r"no model yet; load one first, such as: %tl_load convnet5$"):
        shell.run("%tl_train")
    shell.run("%tl_load convnet5")
    with pytest.raises(Exception, match=r"no data yet; name some first, such as: %tl_data digits"):
        shell.run("%tl_train")


def test_an_interrupt_in_training_ends_at_a_batch_edge_and_the_next_cell_works(ready):
    session = ready.user_ns["tl"]

    class Interrupt:
        def on_batch(self, step, steps):
            if step == 5:
                os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    session.listeners.append(Interrupt())
    run = ready.run("%%tl_train\nfreeze 0:5 epochs 2 lr 1e-3\nunfreeze all epochs 1")
    assert run.stopped
    assert len(run.stages) == 1
    assert signal.getsignal(signal.SIGINT) is handler
    session.listeners.pop()
    assert not any(m.training for m in session.model.modules())
    assert not ready.run("%tl_train epochs 1 lr 1e-3").stopped


def test_a_step_of_ones_own_trains(ready):
    ready.run("import torch")
    ready.run("%%tl_step\nscores = model(x)\nloss = torch.nn.functional.multi_margin_loss(scores, y)")
    run = ready.run("%tl_train epochs 1 lr 1e-3")
    assert run.accuracy > 0.5
    assert run.records[0].train_loss < 1.0, "the margin loss of ten classes is below cross-entropy's log 10"


def test_a_loss_that_is_not_finite_puts_the_last_good_epoch_back(ready):
    session, calls = ready.user_ns["tl"], []

    def poisoned(model, x, y):
        calls.append(1)
        loss = torch.nn.functional.cross_entropy(model(x), y)
        return loss * float("inf") if len(calls) == 30 else loss

    session.step = poisoned
    run = ready.run("%tl_train epochs 3 lr 1e-3")
    assert len(run.records) == 1
    assert "step 7 of epoch 2" in run.stages[0].note
    assert all(torch.isfinite(p).all() for p in session.model.parameters())


def test_loading_the_extension_again_keeps_the_session(ready):
    session = ready.user_ns["tl"]
    ready.run("%reload_ext tlnb")
    assert ready.run("%tl_status") is not None
    assert ready.user_ns["tl"] is session
    assert session.frozen[:5] == (True,) * 5
