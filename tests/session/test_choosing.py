"""Which network to start from: measured against scikit-learn and LogME written out; nothing of the session changes."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faults.calls import facts
from networks import blobs, small
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import nn

from tlnb.engine.data.folds import make_folds
from tlnb.engine.training.linear_fit import fit_linear
from tlnb.errors import BadArguments, ModelError, NotReady, TlnbError, WeightsError
from tlnb.session import Session


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))


def session(count: int = 150, noise: float = 4.0, **options: object) -> Session:
    found = blobs(count, 3)
    noisy = found.inputs + noise * torch.randn(found.inputs.shape, generator=torch.Generator().manual_seed(5))
    tl = Session([])
    tl.data((noisy, found.targets), **options)
    return tl


def wide(seed: int = 1) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 3))


def logme_written_out(f: np.ndarray, y: np.ndarray) -> float:
    """You et al. 2021 by whole matrices: each class a Bayesian regression whose evidence is maximised."""
    n, d = f.shape
    found = []
    for c in range(y.max() + 1):
        t, alpha, beta = (y == c).astype(float), 1.0, 1.0
        for _ in range(200):
            a = alpha * np.eye(d) + beta * f.T @ f
            m = beta * np.linalg.solve(a, f.T @ t)
            gamma = d - alpha * np.trace(np.linalg.inv(a))
            alpha, beta = gamma / (m @ m), (n - gamma) / np.square(t - f @ m).sum()
        a = alpha * np.eye(d) + beta * f.T @ f
        m = beta * np.linalg.solve(a, f.T @ t)
        evidence = n * math.log(beta) + d * math.log(alpha) - n * math.log(2 * math.pi)
        evidence -= beta * np.square(t - f @ m).sum() + alpha * m @ m + np.linalg.slogdet(a)[1]
        found.append(evidence / 2 / n)
    return float(np.mean(found))


def test_figures_are_those_of_scikit_learn_and_of_the_formula() -> None:
    tl, net = session(), wide()
    row = tl.choose(net)["Sequential"]
    data = tl._data
    x, y = data.train.prepare(None).batch(torch.arange(len(data.train))), data.train.targets
    with torch.no_grad():
        f = net[:3](x).double()
    right = {"head": 0, "neighbours": 0}
    for fold in make_folds(y, 5, digests=data.train.digests()):
        scale = StandardScaler().fit(f[fold.train])
        train, valid = scale.transform(f[fold.train]), scale.transform(f[fold.valid])
        c = fit_linear(f[fold.train].float(), y[fold.train], 3)["strength"]
        head = LogisticRegression(C=c, max_iter=5000, tol=1e-8).fit(train, y[fold.train])
        near = KNeighborsClassifier(5, weights="distance").fit(train, y[fold.train])
        for name, model in (("head", head), ("neighbours", near)):
            right[name] += int((model.predict(valid) == y[fold.valid].numpy()).sum())
    assert row.value == pytest.approx(right["head"] / len(y), abs=1 / len(y))
    assert row.neighbours == pytest.approx(right["neighbours"] / len(y), abs=1 / len(y))
    assert row.logme == pytest.approx(logme_written_out(f.numpy(), y.numpy()), rel=1e-3)
    assert row.low < row.value < row.high < 1
    assert row.parameters == sum(p.numel() for p in net.parameters())
    assert row.seconds > 0
    assert row.epoch > 0
    assert row.memory >= 16 * row.parameters


def test_the_better_network_comes_first_and_luck_is_told_from_more_than_luck() -> None:
    tl = session()
    poor = nn.Sequential(nn.Flatten(), nn.Linear(64, 2), nn.Tanh(), nn.Linear(2, 3))
    with torch.no_grad():
        poor[1].weight.zero_()
        poor[1].weight[0, 0] = 1.0
    choice = tl.choose(poor, wide(1), copy.deepcopy(wide(1)))
    assert choice.names[-1] == "Sequential"
    assert set(choice.names) == {"Sequential", "Sequential 2", "Sequential 3"}
    values = [choice[name].value for name in choice.names]
    assert values == sorted(values, reverse=True)
    assert not choice["Sequential"].level
    assert choice.level == choice.names[1:2]
    assert "may be luck" in choice.verdict
    assert choice.best in repr(choice)
    assert len(choice.frame()) == 3


def test_nothing_of_the_session_and_of_the_candidates_changes() -> None:
    tl, net = session(), small()
    tl.load(wide(), input="1,8,8")
    tl.train(1, 0.01)
    net.train()
    net.body[0].weight.requires_grad_(False)
    before, state = facts(tl, identity=True), torch.get_rng_state()
    weights = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    tl.choose(net, tl.model, images=40, folds=2)
    assert facts(tl, identity=True) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weights[name], tensor) for name, tensor in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert all(module.training for module in net.modules())
    assert not net.body[0].weight.requires_grad
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


@pytest.mark.parametrize(
    ("models", "error", "words"),
    [
        ((), BadArguments, "name the networks"),
        (("convnet6",), ModelError, "did you mean 'convnet5'"),
        (("hf/a/b/c",), ModelError, "hf/OWNER/NAME"),
        (("gone.pth",), WeightsError, "no weights file 'gone.pth'"),
        ((3,), ModelError, "not int"),
        (("convnet5", "convnet5"), BadArguments, "named twice"),
    ],
)
def test_wrong_names_are_refused_before_anything_runs(
    models: tuple[object, ...], error: type[TlnbError], words: str
) -> None:
    tl, net = session(), wide()
    ran: list[object] = []
    net.register_forward_hook(lambda *what: ran.append(what))
    with pytest.raises(error, match=words):
        tl.choose(net, *models) if models else tl.choose()
    assert not ran
    with pytest.raises(NotReady, match="no data yet"):
        Session([]).choose("convnet5")


def test_what_cannot_be_loaded_or_run_is_said_and_the_rest_runs(tmp_path: Path) -> None:
    (tmp_path / "<b>bad.pth").write_bytes(b"nothing that torch wrote")

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(4, 3)

        def forward(self, x):
            raise ValueError("line one\nline two")

    choice = session().choose(str(tmp_path / "<b>bad.pth"), wide(), Odd())
    assert choice.names == ("Sequential",)
    troubles = {row.name: row.trouble for row in choice.rows}
    assert "bad.pth" in troubles[str(tmp_path / "<b>bad.pth")]
    assert "\n" not in troubles["Odd"]
    assert "alone was measured" in choice.verdict
    assert "<b>" not in choice._repr_html_()
    with pytest.raises(ModelError, match="none of them can be measured"):
        session().choose(Odd())


def test_a_stop_leaves_all_as_it_was() -> None:
    tl = session()
    tl.load(wide(), input="1,8,8")
    before = facts(tl, identity=True)

    class Presses:
        seen = 0

        def on_walk(self, what: str, done: int, total: int) -> None:
            assert 0 <= done <= total
            Presses.seen += 1
            if Presses.seen == 4:
                tl.stop_request.ask()

    tl.listeners.append(Presses())
    with pytest.raises(NotReady, match="nothing has changed"):
        tl.choose(wide(1), wide(2))
    assert Presses.seen == 4
    assert facts(tl, identity=True) == before


def test_other_kinds_of_targets_and_groups() -> None:
    tl, found = Session([]), blobs(90)
    tl.data((found.inputs, found.inputs.mean((1, 2, 3))))
    choice = tl.choose(wide())
    assert choice.score.name == "r2"
    assert choice.rows[0].value > 0.9
    assert math.isnan(choice.rows[0].neighbours)
    labels = torch.stack([found.targets == c for c in range(3)], 1).float()
    tl.data((found.inputs, labels), target="labels")
    assert tl.choose(wide()).rows[0].value > 0.5
    tl.data((found.inputs, found.targets), groups=[str(i // 2) for i in range(90)])
    choice = tl.choose(wide(), folds=3)
    assert any("groups" in note for note in choice.notes)


def test_the_magic_loads_the_best_on_request(shell: Any) -> None:
    shell.run_line_magic("load_ext", "tlnb")
    tl = shell.user_ns["tl"]
    tl.listeners = []
    shell.user_ns["net"] = wide()
    shell.run_line_magic("tl_data", "digits --per-class 8")
    choice = shell.run_line_magic("tl_choose", "convnet5 $net --images 60 --folds 3")
    assert choice.best == "convnet5"
    assert "%tl_load convnet5" in choice.verdict
    assert tl.view.state.loaded is None
    with pytest.raises(NotReady):
        tl.model  # noqa: B018
    assert choice.load().name == "convnet5"
    assert tl.view.state.data is not None
    again = shell.run_line_magic("tl_choose", "$net convnet5 --folds 2 --weights none --load")
    assert tl.view.state.loaded.name in (again.best, "Sequential")
    with pytest.raises(BadArguments, match="none of"):
        again.load("resnet18")
