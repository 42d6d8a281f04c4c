"""Heads that need no schedule, against scikit-learn; saved, exported, written as a script, trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from session_scripts import run_without_tlnb
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.preprocessing import StandardScaler

from tlnb.engine.core.objectives import Classification
from tlnb.engine.training.linear_fit import fit_nearest
from tlnb.errors import ModelError, TrainingError
from tlnb.session import Session


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))


def digits(per_class: int = 12, **options: object) -> Session:
    session = Session([])
    session.load("convnet5")
    session.data("digits", per_class=per_class, valid=0.1, **options)
    return session


def entering(session: Session, part: int) -> tuple[np.ndarray, np.ndarray]:
    """What enters the head for the samples of a part, and their classes."""
    seen: list[torch.Tensor] = []
    head = session.model.get_submodule("classifier.7")
    handle = head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    samples = session.view.need_samples()[part]
    with torch.no_grad():
        for rows in torch.arange(len(samples)).split(64):
            session.model.eval()(samples.batch(rows))
    handle.remove()
    return torch.cat(seen).numpy(), samples.targets.numpy()


def answers(session: Session) -> np.ndarray:
    samples = session.view.need_samples()[1]
    with torch.no_grad():
        return session.model.eval()(samples.batch(torch.arange(len(samples)))).numpy()


def test_nearest_is_the_centroid_of_scikit_learn() -> None:
    session = digits()
    told = repr(session.head("nearest"))
    assert "accuracy" in told
    (x, y), (v, _) = entering(session, 0), entering(session, 1)
    scale = StandardScaler().fit(x)
    theirs = NearestCentroid().fit(scale.transform(x), y).predict(scale.transform(v))
    assert (answers(session).argmax(1) == theirs).mean() == 1.0
    assert session.history.stages[-1].note.startswith("fitted to the means of the classes")
    assert isinstance(session.model.classifier[7], torch.nn.Linear)


def test_neighbours_are_those_of_scikit_learn() -> None:
    session = digits()
    session.head("knn:5")
    (x, y), (v, _) = entering(session, 0), entering(session, 1)
    scale = StandardScaler().fit(x)
    theirs = KNeighborsClassifier(5, weights="distance").fit(scale.transform(x), y)
    shares = theirs.predict_proba(scale.transform(v))
    ours = np.exp(answers(session))
    assert np.allclose(ours, 0.99 * shares + 0.001, atol=1e-3)
    assert np.allclose(ours.sum(1), 1, atol=1e-5)
    assert "keeping 120 samples, 5 of which vote" in session.history.stages[-1].note
    session.results()
    assert len(session.predict(torch.rand(3, 1, 32, 32)).labels) == 3


def test_the_scale_makes_probabilities_right_and_classes_without_samples_are_never_told() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(400) % 4
    x = torch.randn(400, 6, generator=generator) + 1.2 * torch.eye(6)[y]
    found = fit_nearest(x, y, 5)
    fresh = torch.randn(2000, 6, generator=generator) + 1.2 * torch.eye(6)[torch.arange(2000) % 4]
    scores = fresh.double() @ found["weight"].T + found["bias"]
    assert scores.argmax(1).max() < 4
    sure = scores.softmax(1).max(1).values.mean()
    right = (scores.argmax(1) == torch.arange(2000) % 4).double().mean()
    assert abs(float(sure - right)) < 0.05
    one = fit_nearest(x[:4], y[:4], 4)
    assert (x[:4].double() @ one["weight"].T + one["bias"]).argmax(1).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("spec", ["nearest", "knn:3"])
def test_saved_exported_scripted_undone_and_trained_on(spec: str, tmp_path: Path) -> None:
    session = digits(per_class=6)
    session.head(spec)
    wanted = answers(session)
    session.save(str(tmp_path / "kept"))
    late = Session([])
    late.resume(str(tmp_path / "kept.safetensors"))
    assert np.array_equal(answers(late), wanted)
    if spec == "knn:3":
        session.export(str(tmp_path / "net"))  # checked by loading it anew without tlnb
    session.script(str(tmp_path / "train.py"))
    shown = run_without_tlnb(tmp_path / "train.py")
    stage = session.history.stages[-1]
    assert f"stage 1, {stage.note.partition(',')[0]}: validation loss {stage.final.valid_loss:.4f}" in shown
    found, ours = load_file(tmp_path / "train.trained.safetensors"), session.model.state_dict()
    assert found.keys() == ours.keys()
    assert all(torch.equal(ours[name], found[name]) for name in ours)
    before = answers(session)
    session.run("unfreeze 6: epochs 1 lr 1e-4 guard off")
    assert not np.array_equal(answers(session), before)
    session.undo()
    assert np.array_equal(answers(session), before)
    session.head("linear")  # another head in its place
    assert isinstance(session.model.classifier[7], torch.nn.Linear)


@pytest.mark.parametrize(
    ("spec", "word"),
    [("knn:0", "knn:5"), ("knn:x", "knn:5"), ("knn:500", "cannot vote"), ("nearst", "nearest")],
)
def test_a_wrong_head_says_why_and_changes_nothing(spec: str, word: str) -> None:
    session = digits(per_class=3)
    before = session.model.classifier[7]
    with pytest.raises(ModelError, match=word):
        session.head(spec)
    assert session.model.classifier[7] is before


def test_other_kinds_of_targets_and_other_samples_are_refused() -> None:
    session = Session([])
    session.load("convnet5")
    x = torch.rand(40, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    session.data((x, torch.rand(40, generator=torch.Generator().manual_seed(1))))
    for spec in ("nearest", "knn"):
        with pytest.raises(ModelError, match="tell classes apart"):
            session.head(spec)
    session.data("digits", per_class=3)
    session.head("knn:3")
    assert isinstance(session.view.need_data().task, Classification)
    session.data("digits", per_class=4)
    with pytest.raises(TrainingError, match="keeps 30 samples, and there are 40 now"):
        session.run("fit head")
