"""Averages of weights: against averages taken by hand from outside, gone on with, and in scripts."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from session_scripts import run_without_tlnb
from stopping import goes_on_bit_equal, normed_session
from torch import nn
from torch.optim.swa_utils import update_bn

from tlnb.errors import BadArguments, ExportError, PlanError
from tlnb.session import Session


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))


def weights(session: Session) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in session.model.named_parameters()}


class Seen:
    """The weights after each step and each epoch, from outside."""

    session: Session

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []
        self.epochs: list[dict[str, torch.Tensor]] = []

    def on_batch(self, step: int, steps: int) -> None:
        self.steps.append(weights(self.session))

    def on_epoch(self, record: object) -> None:
        self.epochs.append(weights(self.session))


def trained(line: str) -> tuple[Session, Seen]:
    seen = Seen()
    session = seen.session = normed_session((seen,))
    session.run(line)
    return session, seen


def near(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.allclose(a[name], b[name], atol=1e-6) for name in b)


def test_an_exponential_average_over_steps() -> None:
    session, seen = trained("train all epochs 3 lr 0.02 average ema guard off")
    assert len(seen.steps) == 9
    by_hand = seen.steps[0]
    for step, now in enumerate(seen.steps[1:], start=2):
        decay = min(0.99, (1 + step) / (10 + step))
        by_hand = {name: decay * kept + (1 - decay) * now[name] for name, kept in by_hand.items()}
    assert near(weights(session), by_hand)
    assert not near(weights(session), seen.steps[-1])
    result = session.history.stages[-1]
    assert "ended with the average over 9 steps" in result.note
    assert result.ending is not None
    assert result.final.valid_loss != result.records[-1].valid_loss
    found = session.results().accuracy
    assert found == pytest.approx(result.accuracy)


def test_the_mean_of_the_last_epochs_with_statistics_of_its_own() -> None:
    session, seen = trained("train all epochs 4 lr 0.02 average last:3 guard off")
    by_hand = {name: sum(epoch[name] for epoch in seen.epochs[1:]) / 3 for name in seen.epochs[0]}
    assert near(weights(session), by_hand)
    twin = copy.deepcopy(session.model)
    train = session.view.need_samples()[0]
    update_bn([train.batch(rows) for rows in torch.arange(len(train)).split(32)], twin)
    theirs, ours = dict(twin.named_buffers()), dict(session.model.named_buffers())
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in theirs)
    assert all(
        module.momentum == 0.1 for module in session.model.modules() if isinstance(module, nn.BatchNorm2d)
    )


def test_frozen_statistics_and_layers_stay() -> None:
    session = normed_session()
    before = {name: t.clone() for name, t in session.model.state_dict().items()}
    session.run("freeze 0 epochs 2 lr 0.02 bn frozen average ema guard off")
    after = session.model.state_dict()
    still = [name for name in before if name.startswith(("0.", "1.")) or "running" in name]
    assert all(torch.equal(before[name], after[name]) for name in still)
    stage = session.history.stages[-1]
    assert stage.digest_before == stage.digest_after
    session.undo()
    assert all(torch.equal(t, before[name]) for name, t in session.model.state_dict().items())


@pytest.mark.parametrize("average", ["ema", "last:2"])
def test_a_stage_that_was_left_goes_on_bit_equal(average: str, tmp_path: Path) -> None:
    line = f"train all epochs 3 lr 0.02 average {average}"
    assert goes_on_bit_equal(line, tmp_path)


def test_a_script_ends_bit_equal(tmp_path: Path) -> None:
    session = Session([])
    session.load("convnet5")
    session.data("digits", per_class=10, valid=0.05)
    session.run(
        "train 3: epochs 2 lr 1e-3 average ema\nadapt 4: rank 1 epochs 2 lr 1e-2 average last:2 blend 0.5"
    )
    session.script(str(tmp_path / "train.py"))
    run_without_tlnb(tmp_path / "train.py")
    found, ours = load_file(tmp_path / "train.trained.safetensors"), session.model.state_dict()
    assert all(torch.equal(found[name], ours[name]) for name in ours)


@pytest.mark.parametrize("value", ["mean", "last", "last:0", "last:x"])
def test_a_wrong_average_says_what_there_is(value: str) -> None:
    session = normed_session()
    with pytest.raises(PlanError, match="ema or last:N"):
        session.run(f"train all average {value}")
    with pytest.raises(PlanError, match="two ends"):
        session.run("train all average ema", keep_best=True)
    assert len(session.history.stages) == 0


def body(session: Session) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in session.model.state_dict().items() if not name.startswith("8.")}


@pytest.mark.parametrize("kept", [True, False])
def test_a_blend_between_any_two_points_of_the_history(kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kept:  # the bodies after stages: what undo keeps serves then
        monkeypatch.setattr("tlnb.session.old_task.SNAPSHOTS", 0)
    session = normed_session()
    bodies = [body(session)]
    for _ in range(3):
        session.run("train all epochs 1 lr 0.02 guard off")
        bodies.append(body(session))
    for a, first, second in ((0.25, 1, 2), (0.5, 3, 1), (1.0, 0, 2), (0.0, 1, 3)):
        found = session.blend(a, between=(first, second))
        now = body(session)
        for name, tensor in now.items():
            one, other = bodies[first][name], bodies[second][name]
            wanted = torch.lerp(one, other, a) if tensor.is_floating_point() else other
            assert torch.allclose(tensor, wanted, atol=1e-7), name
        assert found.a == a
        assert f"stage {second}" in found.note
        with pytest.raises(ExportError):  # only the blend with what was before training is in a script
            session.script(network="model = None")
    session.blend(1)
    assert all(torch.equal(t, bodies[3][name]) for name, t in body(session).items())
    assert len(session.blend(between="1,2").points) == 11
    assert all(torch.equal(t, bodies[3][name]) for name, t in body(session).items())
    for wrong in ("1", "1,4", "2,2", "a,b", 3):
        with pytest.raises(BadArguments, match="between takes two of the points 0"):
            session.blend(0.5, between=wrong)
