"""Training by comparison: its loss by hand, what it asks for, what it leaves alone, and scripts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from networks import blobs
from safetensors.torch import load_file
from session_scripts import run_without_tlnb
from stopping import goes_on_bit_equal, normed_session
from torch import nn

from tlnb.engine.training.contrast import contrastive_loss
from tlnb.errors import PlanError, TrainingError
from tlnb.session import Session

LINE = "train body epochs 3 lr 0.01 contrast 0.2"


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))


def by_hand(features: np.ndarray, targets: list[int], temperature: float) -> float:
    """The formula of the paper, a sample and a pair at a time."""
    z = features / np.linalg.norm(features, axis=1, keepdims=True)
    losses = []
    for i in range(len(z)):
        others = [a for a in range(len(z)) if a != i]
        alike = [p for p in others if targets[p] == targets[i]]
        total = sum(np.exp(z[i] @ z[a] / temperature) for a in others)
        if alike:
            losses.append(-np.mean([np.log(np.exp(z[i] @ z[p] / temperature) / total) for p in alike]))
    return float(np.mean(losses)) if losses else 0.0


@pytest.mark.parametrize("targets", [[0, 0, 1, 1, 2], [0, 0, 0, 0, 0], [0, 1, 2, 3, 4], [1, 0, 1, 0, 1]])
@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_the_loss_is_that_of_the_paper(targets: list[int], temperature: float) -> None:
    features = torch.randn(5, 7, generator=torch.Generator().manual_seed(1), requires_grad=True)
    loss = contrastive_loss(features, torch.tensor(targets), temperature)
    expected = by_hand(features.detach().double().numpy(), targets, temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    loss.backward()
    assert torch.isfinite(features.grad).all()


def test_classes_draw_together_while_the_head_stays() -> None:
    session = normed_session()
    train = session.view.need_samples()[0]

    def now() -> float:
        with torch.no_grad():
            features = session.model.eval()[:-1](train.batch(torch.arange(len(train))))
        return contrastive_loss(features, train.targets, 0.2).item()

    before, head = now(), {n: t.clone() for n, t in session.model[-1].state_dict().items()}
    session.run(LINE)
    assert now() < before - 0.1
    assert all(torch.equal(t, head[n]) for n, t in session.model[-1].state_dict().items())
    stage = session.history.stages[-1]
    assert stage.digest_before == stage.digest_after != ""
    assert stage.share == 1.0  # no score of the head that fell behind takes it back
    session.run("fit head")
    assert session.results().accuracy > 0.9
    session.undo()
    session.undo()
    assert now() == pytest.approx(before, abs=1e-6)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("train all epochs 1 contrast 0.1", "freeze it, and fit it afterwards"),
        (f"{LINE} blend auto", "blend 0.5"),
        (f"{LINE} patience 2", "leave it out"),
        (f"{LINE} guard on", "leave it out"),
        (f"{LINE} guard strict", "leave it out"),
        (f"{LINE} smoothing 0.1", "leave it out"),
        (f"{LINE} micro 4", "leave micro out"),
        ("train body epochs 1 contrast 0", "a number above 0"),
        ("train body epochs 1 contrast soft", "a number above 0"),
    ],
)
def test_what_does_not_go_with_it_is_one_line_and_changes_nothing(line: str, says: str) -> None:
    session = normed_session()
    before = {n: t.clone() for n, t in session.model.state_dict().items()}
    with pytest.raises(PlanError, match=says) as caught:
        session.run(line)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(t, before[n]) for n, t in session.model.state_dict().items())
    assert not session.history.stages


def test_there_is_no_best_epoch_to_keep() -> None:
    session = normed_session()
    with pytest.raises(PlanError, match="best epoch"):
        session.run(LINE, keep_best=True)
    with pytest.raises(PlanError, match="best epoch"):
        session.cross_validate(2, f"{LINE}\nfit head", keep_best=True)
    assert not session.history.stages


def test_what_is_said_of_the_whole_plan_is_not_of_this_stage() -> None:
    session = normed_session()
    run = session.run(
        f"fit head\n{LINE}\nunfreeze all epochs 1 lr 1e-3", patience=3, smoothing=0.1, guard="strict"
    )
    contrast, last = (each.stage for each in run.stages[1:])
    assert (contrast.patience, contrast.smoothing, contrast.guard) == (None, 0.0, False)
    assert (last.patience, last.smoothing, last.guard) == (3, 0.1, "strict")


def test_adapted_layers_and_weighted_classes_are_refused_in_one_line() -> None:
    session = normed_session()
    with pytest.raises(PlanError, match="adapted layers keep theirs"):
        session.run("adapt all bias epochs 1 contrast 0.1")
    source = blobs(60)
    session.data((source.inputs, source.targets), batch=16, balance="weights")
    with pytest.raises(TrainingError, match="--balance samples"):
        session.run(LINE)


def test_half_precision_compares_in_single_precision() -> None:
    features = torch.randn(64, 384, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(64) % 8
    plain = contrastive_loss(features, targets, 0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert contrastive_loss(features, targets, 0.05).item() == pytest.approx(plain.item(), rel=1e-5)
    alone = contrastive_loss(features[:1].requires_grad_(), targets[:1], 0.05)
    alone.backward()
    assert alone.item() == 0.0


def test_the_share_that_is_kept_may_be_said() -> None:
    session = normed_session()
    session.run(f"{LINE} blend 0.5 guard off smoothing 0")
    assert session.history.stages[-1].share == 0.5


def test_a_step_of_ones_own_and_values_have_nothing_to_compare() -> None:
    session = normed_session()
    session.step = lambda model, x, y: nn.functional.cross_entropy(model(x), y)
    with pytest.raises(TrainingError, match="step of your own"):
        session.run(LINE)
    session = normed_session()
    source = blobs(40)
    session.data((source.inputs, torch.rand(40)), batch=16)
    with pytest.raises(TrainingError, match="labels and values have none"):
        session.run(LINE)


def test_a_stage_that_was_left_goes_on_bit_equal(tmp_path: Path) -> None:
    assert goes_on_bit_equal(LINE, tmp_path)


@pytest.mark.parametrize(
    ("head", "plan"),
    [("", LINE), ("", f"fit head\n{LINE} blend 0.5\nfit head"), ("knn:3", f"{LINE}\nfit head")],
)
def test_a_script_ends_bit_equal(head: str, plan: str, tmp_path: Path) -> None:
    session = Session([])
    session.load("convnet5")
    session.data("digits", per_class=10, valid=0.05)
    if head:
        session.head(head)
    session.run(plan.replace("epochs 3", "epochs 2"))
    session.script(str(tmp_path / "train.py"))
    run_without_tlnb(tmp_path / "train.py")
    found, ours = load_file(tmp_path / "train.trained.safetensors"), session.model.state_dict()
    assert all(torch.equal(found[name], ours[name]) for name in ours)
