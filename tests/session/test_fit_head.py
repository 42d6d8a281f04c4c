"""``fit head``: the head of a session is that of a logistic regression on what enters it; what cannot be is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import blobs, small
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from tlnb.engine.training.fit_head import SOFT
from tlnb.engine.training.linear_fit import fit_linear
from tlnb.errors import TlnbError
from tlnb.session import Session


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))


def session(**options: object) -> Session:
    """A network that knows two classes, with data of three."""
    tl = Session([])
    tl.load(small(2, seed=4), input="1,8,8")
    tl.data((blobs(90).inputs, blobs(90).targets), **options)
    return tl


def entering(tl: Session) -> torch.Tensor:
    """What enters the head for each training sample."""
    seen: list[torch.Tensor] = []
    hook = tl.model.head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        tl.model.eval()(tl._samples[0].batch(torch.arange(len(tl._samples[0]))))  # type: ignore[index]
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("cache", [True, False])
def test_it_is_that_of_scikit_learn_and_nothing_else_has_changed(cache: bool) -> None:
    tl = session()
    body = {name: tensor.clone() for name, tensor in tl.model.body.state_dict().items()}
    run = tl.run("fit head", cache=cache)
    assert all(torch.equal(tensor, body[name]) for name, tensor in tl.model.body.state_dict().items())
    (stage,) = run.stages
    assert (stage.stage.kind, stage.rate, stage.curve, len(stage.records)) == ("fit", 0.0, None, 1)
    assert stage.digest_before == stage.digest_after != ""
    assert stage.note.endswith(" by 5 folds")
    strength = float(re.findall(r"strength ([^, ]+)", stage.note)[0])
    x, y = entering(tl).double().numpy(), tl._samples[0].targets  # type: ignore[index]
    scaler = StandardScaler()
    theirs = LogisticRegression(C=strength, tol=1e-10, max_iter=100_000).fit(scaler.fit_transform(x), y)
    head = tl.model.head
    weight, bias = head.weight.detach().double().numpy(), head.bias.detach().double().numpy()
    np.testing.assert_allclose(weight * scaler.scale_, theirs.coef_, rtol=0, atol=1e-4)
    bias = bias + weight @ scaler.mean_
    np.testing.assert_allclose(
        bias - bias.mean(), theirs.intercept_ - theirs.intercept_.mean(), rtol=0, atol=1e-4
    )
    scores = torch.from_numpy(x).float() @ head.weight.T + head.bias
    loss = nn.functional.cross_entropy(scores, y).item()
    assert stage.records[0].train_loss == pytest.approx(loss, abs=1e-4)
    assert stage.row()[3] == "-"


def test_stages_after_it_go_on_from_there() -> None:
    tl, alone = session(), session()
    alone.run("fit head")
    run = tl.run("fit head\nunfreeze 2: epochs 1 lr 1e-12 bn frozen guard off")
    assert run.stages[1].records[0].valid_loss == pytest.approx(alone.history[-1].valid_loss, rel=1e-4)
    torch.testing.assert_close(tl.model.head.weight, alone.model.head.weight)
    assert run.stages[1].before == run.stages[0].final


@pytest.mark.parametrize("init", ["keep", "soft", "zero"])
def test_a_stage_begins_with_the_head_that_init_asks_for(init: str) -> None:
    tl = session()
    tl.run("fit head")
    fitted = tl.model.head.weight.detach().clone()
    x, y = entering(tl), tl._samples[0].targets  # type: ignore[index]
    tl.train(1, 1e-12, init=init, guard=False)
    expected = {
        "keep": fitted,
        "zero": torch.zeros_like(fitted),
        "soft": fit_linear(x, y, 3, strength=SOFT)["weight"].float(),
    }[init]
    torch.testing.assert_close(tl.model.head.weight.detach(), expected, rtol=1e-3, atol=1e-6)
    if init == "soft":
        assert 0 < expected.norm() < fitted.norm() / 10


def test_labels_and_values_are_fitted_too() -> None:
    inputs, targets = blobs(90).inputs, blobs(90).targets
    labels = torch.stack([targets > 0, targets > 1], 1).float()
    tl = Session([])
    tl.load(small(seed=4), input="1,8,8")
    tl.data((inputs, labels), target="labels")
    assert tl.run("fit head").accuracy > 0.9  # type: ignore[operator]
    tl.data((inputs, inputs.mean((1, 2, 3))[:, None]), target="regression")
    assert tl.run("fit head").accuracy > 0.5  # type: ignore[operator]


def test_an_mlp_has_its_last_layer_fitted() -> None:
    tl = session()
    tl.head("mlp:16")
    first = tl.model.head[0].weight.detach().clone()
    assert tl.run("fit head").accuracy > 0.5  # type: ignore[operator]
    assert torch.equal(tl.model.head[0].weight, first)
    assert tl.model.head[2].weight.any()


def test_a_new_head_is_fitted_at_once_where_that_is_asked_for() -> None:
    tl, other = session(), session()
    said = str(tl.head("linear", init="fit"))
    assert "fitted to the data" in said
    assert f"accuracy {100 * tl.history[-1].accuracy:.1f} % on validation" in said
    other.run("fit head")
    assert torch.equal(tl.model.head.weight, other.model.head.weight)


def test_pictures_under_random_changes_are_fitted_as_they_are() -> None:
    pictures = (blobs(60).inputs * 20 + 100).clamp(0, 255).to(torch.uint8), blobs(60).targets
    weights = []
    for augment in ("none", "strong"):
        tl = Session([])
        tl.load(small(2, seed=4), input="1,8,8")
        tl.data(pictures, augment=augment)
        tl.run("fit head")
        weights.append(tl.model.head.weight)
    assert torch.equal(*weights)


# ---------------------------------------------------------------- refused


class Behind(nn.Module):
    """A head with something around it."""

    def __init__(self, head: nn.Module, how: str):
        super().__init__()
        self.body, self.head, self.how = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU()), head, how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x)
        if self.how == "twice":
            return self.head(x) + self.head(-x)
        if self.how == "nan":
            x = x / (x * 0)
        scores = self.head(x)
        return {"softmax": scores.softmax(1), "scaled": scores * 10}.get(self.how, scores)


@pytest.mark.parametrize(
    ("how", "head", "why"),
    [
        ("softmax", nn.Linear(8, 3), "something behind the head changes its scores"),
        ("scaled", nn.Linear(8, 3), "something behind the head changes its scores"),
        ("twice", nn.Linear(8, 3), "runs once for each sample"),
        ("nan", nn.Linear(8, 3), "is not finite"),
        ("", nn.Linear(8, 3, bias=False), "needs a head with a bias"),
    ],
)
def test_what_cannot_be_fitted_is_one_line_and_nothing_has_changed(
    how: str, head: nn.Module, why: str
) -> None:
    tl = Session([])
    tl.load(Behind(head, how), input="1,8,8")
    tl.view.need_model().categories = ("0", "1", "2")  # the head that came with the network stays
    tl.data((blobs(90).inputs, blobs(90).targets))
    before, frozen = [p.clone() for p in tl.model.parameters()], tl.frozen
    with pytest.raises(TlnbError, match=why) as caught:
        tl.run("fit head\nunfreeze all epochs 1 lr 1e-3")
    assert "\n" not in str(caught.value)
    assert all(map(torch.equal, tl.model.parameters(), before))
    assert (len(tl.history), tl.frozen) == (0, frozen)


def test_a_network_without_a_head_is_one_line() -> None:
    tl = Session([])
    tl.load(nn.Sequential(nn.BatchNorm1d(3)), input="3")
    tl.view.need_model().categories = ("0", "1", "2")
    tl.data((torch.randn(90, 3), torch.arange(90) % 3))
    before = [tensor.clone() for tensor in tl.model.state_dict().values()]
    for plan in ("fit head", "train all lr 1e-3\nunfreeze all lr 1e-3 init zero"):
        with pytest.raises(TlnbError, match=r"^[^\n]*needs a head, and this network ends in no[^\n]*$"):
            tl.run(plan)
    assert all(map(torch.equal, tl.model.state_dict().values(), before))
