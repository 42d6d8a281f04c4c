"""A head on what all layers give: its features against hooks, its fit against scikit-learn; kept as any head is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from faults.calls import facts
from safetensors.torch import load_file
from session_scripts import run_without_tlnb
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F

from tlnb.engine.network.all_layers import AllLayers, Tap
from tlnb.engine.training.layer_fit import fit_layers
from tlnb.errors import CheckpointError, ModelError
from tlnb.session import Session


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))


class Forgets(nn.Module):
    """Its first layer sees which of three bars is bright; its last one, of another task, does not hand that on."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Conv2d(1, 6, 3, padding=1)
        self.more = nn.Conv2d(6, 6, 3, padding=1)
        self.forget = nn.Conv2d(6, 4, 3, padding=1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.see(x))
        x = F.relu(self.more(x))
        return self.head(F.relu(self.forget(x)).mean((2, 3)))


def forgets() -> Forgets:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return Forgets().eval()


def bars(count: int = 120, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Pictures with a bright third at a place that the class says; the mean brightness is the same."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    x = 0.7 * torch.randn(count, 1, 9, 9, generator=generator)
    for i, place in enumerate(y.tolist()):
        x[i, :, :, 3 * place : 3 * place + 3] += 1.0
    return x, y


def session(**options: object) -> Session:
    tl = Session([])
    tl.load(forgets(), input="1,9,9")
    tl.data(bars(), **options)
    return tl


def taps(model: nn.Module) -> int:
    return sum(isinstance(h, Tap) for m in model.modules() for h in m._forward_pre_hooks.values())


def answers(tl: Session) -> np.ndarray:
    samples = tl.view.need_samples()[1]
    with torch.no_grad():
        return tl.model.eval()(samples.batch(torch.arange(len(samples)))).numpy()


def test_it_is_better_where_the_last_layer_belongs_to_another_task() -> None:
    tl = session()
    tl.head("linear", init="fit")
    alone = tl.history.stages[-1].final.accuracy
    told = repr(tl.head("all-layers"))
    assert "all-layers at head" in told
    assert tl.history.stages[-1].final.accuracy > alone + 0.2
    assert "features of 3 layers" in tl.history.stages[-1].note
    assert isinstance(tl.model.head, AllLayers)
    assert type(tl.model) is Forgets
    assert taps(tl.model) == 2
    assert "sees what every layer gives" in tl.layers.note


def test_features_are_those_of_every_layer_and_the_fit_is_that_of_scikit_learn() -> None:
    tl = session()
    tl.head("all-layers")
    net, samples = tl.model.eval(), tl.view.need_samples()[0]
    x, y = samples.batch(torch.arange(len(samples))), samples.targets.numpy()
    with torch.no_grad():
        first = F.relu(net.see(x))
        second = F.relu(net.more(first))
        last = F.relu(net.forget(second)).mean((2, 3))
        each = [F.adaptive_avg_pool2d(part, 4).flatten(1) for part in (first, second)]
        f = torch.cat([*each, last], 1)
        scores = net(x)
    layer = net.head.linear
    assert torch.allclose(scores, layer(f), atol=1e-4)
    kept = layer.weight.abs().sum(0) > 0
    assert 0 < int(kept.sum()) <= f.shape[1]
    strength = fit_layers(f, 4, samples.targets, 3)["strength"]
    scale = StandardScaler().fit(f[:, kept].double())
    theirs = LogisticRegression(C=strength, max_iter=5000, tol=1e-9).fit(
        scale.transform(f[:, kept].double()), y
    )
    shares = theirs.predict_proba(scale.transform(f[:, kept].double()))
    assert np.allclose(scores.softmax(1).numpy(), shares, atol=2e-3)


def test_it_keeps_to_the_last_layer_where_the_others_do_not_help() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(200) % 3
    last = torch.randn(200, 5, generator=generator) + 1.5 * torch.eye(5)[y]
    noise = torch.randn(200, 300, generator=generator)
    found = fit_layers(torch.cat([noise, last], 1), 5, y, 3)
    assert found["kept"].tolist() == list(range(300, 305))
    assert not found["weight"][:, :300].any()
    turned = fit_layers(torch.cat([last, noise], 1), 300, y, 3)
    assert set(range(3)) <= set(turned["kept"].tolist())
    few = fit_layers(torch.cat([noise, last], 1)[:3], 5, y[:3], 3)  # a class has a single sample: no folds
    assert few["kept"].tolist() == list(range(300, 305))
    values = fit_layers(torch.cat([last, noise[:, :20]], 1), 20, last[:, :1] * 2 + 1, 1)
    assert 0 in values["kept"].tolist()


@pytest.mark.parametrize("weights", ["own", "convnet5"])
def test_saved_exported_scripted_undone_and_trained_on(weights: str, tmp_path: Path) -> None:
    if weights == "own":
        tl = session()
    else:
        tl = Session([])
        tl.load("convnet5")
        tl.data("digits", per_class=6, valid=0.1)
    tl.head("all-layers")
    wanted = answers(tl)
    tl.save(str(tmp_path / "kept"))
    late = Session([])
    if weights == "own":
        late.load(forgets(), input="1,9,9")
    late.resume(str(tmp_path / "kept.safetensors"))
    if weights == "own":
        late.data(bars())
    assert np.array_equal(answers(late), wanted)
    assert taps(late.model) == taps(tl.model)
    if weights == "convnet5":
        for name in ("net.safetensors", "net.pt2"):
            tl.export(str(tmp_path / name))  # checked by loading it anew without tlnb
        tl.script(str(tmp_path / "train.py"))
        shown = run_without_tlnb(tmp_path / "train.py")
        stage = tl.history.stages[-1]
        assert f"stage 1, {stage.note.partition(',')[0]}" in shown.replace(",", "", 0)
        found, ours = load_file(tmp_path / "train.trained.safetensors"), tl.model.state_dict()
        assert found.keys() == ours.keys()
        assert all(torch.equal(ours[name], found[name]) for name in ours)
    assert np.abs(tl.results().answers - torch.from_numpy(wanted).softmax(1).numpy()).max() < 1e-5
    before = answers(tl)
    tl.run("unfreeze all epochs 1 lr 1e-3 guard off")
    assert not np.array_equal(answers(tl), before)
    tl.undo()
    assert np.array_equal(answers(tl), before)
    tl.head("linear")
    assert taps(tl.model) == 0
    assert isinstance(tl.model.get_submodule("head" if weights == "own" else "classifier.7"), nn.Linear)
    tl.head("all-layers")
    assert np.array_equal(answers(tl), before)


def test_it_goes_and_comes_with_its_task_and_a_failure_takes_it_back() -> None:
    tl = session()
    first = tl.task
    tl.head("all-layers", task="hears")
    assert taps(tl.model) == 2
    wanted = answers(tl)
    tl.head(task=first)
    assert taps(tl.model) == 0
    tl.tasks()
    assert taps(tl.model) == 0
    tl.head(task="hears")
    assert taps(tl.model) == 2
    assert np.array_equal(answers(tl), wanted)
    before = facts(tl, identity=True)
    with pytest.raises(ModelError):
        tl.head("all-layer")
    assert facts(tl, identity=True) == before
    again = Session([])
    again.load(tl.model, input="1,9,9")  # a module that hears already
    assert again.view.state.loaded.head == "head"


def test_other_targets_convolutions_and_what_is_refused() -> None:
    x, y = bars()
    tl = session()
    tl.data((x, x[:, 0, 4, :3].mean(1)))
    tl.head("all-layers")
    assert tl.history.stages[-1].final.accuracy > 0.5
    tl.data((x, torch.stack([y == c for c in range(3)], 1).float()), target="labels")
    tl.head("all-layers")
    assert tl.history.stages[-1].final.accuracy > 0.8
    wide = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Conv2d(5, 3, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    other = Session([])
    other.load(wide, input="1,9,9")
    other.data((x, y))
    other.head("all-layers")
    assert isinstance(wide[4], AllLayers)
    assert other.history.stages[-1].final.accuracy > 0.6
    other.head("linear", init="fit")
    assert isinstance(wide[4], nn.Conv2d)
    short = Session([])
    short.load(nn.Sequential(nn.Flatten(), nn.Linear(81, 3)), input="1,9,9")
    short.data((x, y))
    with pytest.raises(ModelError, match="no layer before the last"):
        short.head("all-layers")


def test_a_file_with_a_head_for_another_network_is_refused(tmp_path: Path) -> None:
    tl = session()
    tl.head("all-layers")
    tl.save(str(tmp_path / "kept"))
    late = Session([])
    plain = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    late.load(plain, input="1,9,9")
    before = facts(late, identity=True)
    with pytest.raises((CheckpointError, ModelError)):
        late.resume(str(tmp_path / "kept.safetensors"))
    assert facts(late, identity=True) == before
    assert taps(plain) == 0
