"""%tl_results, %tl_predict and %tl_compare: figures against scikit-learn, files that break, names that bite."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support
from torch import nn

from tlnb.__main__ import show_environment
from tlnb.errors import DataError, ExportError, NotReady
from tlnb.session import Session

HOSTILE = ("<script>alert(1)</script>", "$x^2$ & co", "plain")


def test_the_figures_are_those_of_scikit_learn(trained: Session) -> None:
    found = trained.results()
    assert found.accuracy == accuracy_score(found.targets, found.predicted) == trained.history[-1].accuracy
    assert found.loss == pytest.approx(trained.history[-1].valid_loss, abs=1e-6)
    assert (found.confusion == confusion_matrix(found.targets, found.predicted)).all()
    theirs = precision_recall_fscore_support(found.targets, found.predicted, zero_division=0)
    assert np.allclose([row[1:] for row in found.rows], np.array(theirs).T)
    low, high = found.interval or (0, 0)
    assert 0 < low < found.accuracy < high < 1


def test_the_worst_mistakes_are_wrong_and_ranked(trained: Session) -> None:
    found = trained.results(worst=5)
    wrong = found.predicted != found.targets
    losses = [mistake.loss for mistake in found.mistakes]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] == pytest.approx(found.losses[wrong].max())
    for mistake in found.mistakes:
        assert wrong[mistake.index]
        assert mistake.predicted == found.classes[found.predicted[mistake.index]]
    assert found.pictures is not None
    assert found.pictures.maps.shape == (5, 32, 32)


def test_the_answer_shows_itself_and_leaves_the_network_alone(trained: Session) -> None:
    before = {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}
    found = trained.results(worst=2)
    assert "accuracy" in repr(found).splitlines()[0]
    assert found._repr_html_().count("<img ") == 2 + 2  # mistakes; calibration, and risk and coverage
    assert all(torch.equal(t, before[n]) for n, t in trained.model.state_dict().items())
    frame = found.frame()
    assert list(frame["true"][:3]) == [found.classes[i] for i in found.targets[:3]]


def test_names_from_outside_are_escaped() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (60, 1, 32, 32), dtype=torch.uint8, generator=generator)
    session = Session([])
    session.load("convnet5")
    session.data((images, np.array([HOSTILE[i % 3] for i in range(60)])))
    found = session.results(worst=3)
    html = found._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    for what in ("confusion", "calibration", "mistakes"):
        figure = found.plot(what)
        assert figure is not None
        figure.savefig(io.BytesIO(), format="png")  # a name read as a formula would raise here


def test_measured_values_and_labels_have_figures_too() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(50, 4, generator=generator)
    session = Session([])
    session.load(nn.Sequential(nn.Linear(4, 2)))
    session.data((inputs, inputs[:, :2] * 100 + 3), target="regression")
    session.train(lr=0.1, epochs=3)
    found = session.results()
    assert found.kind == "values"
    assert found.plot("confusion") is None
    error = found.answers[:, 0] - found.targets[:, 0]
    assert found.rows[0][3] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-5)
    assert np.abs(found.targets).max() > 50  # the user's unit

    session.data((inputs, (inputs[:, :2] > 0).float()), target="labels")
    labels = session.results()
    assert labels.kind == "labels"
    assert set(np.unique(labels.predicted)) <= {0, 1}
    assert "mAP" in labels.summary


def test_predictions_are_those_of_the_network(trained: Session) -> None:
    data = trained.view.need_data()
    found = trained.predict(data.valid.images.numpy())
    known = trained.results()
    assert np.allclose(found.answers, known.answers, atol=1e-5)
    assert found.labels[0] == known.classes[known.predicted[0]]
    assert len(found) == len(known.targets)
    one = trained.predict(data.valid.images[0, 0].numpy())
    assert np.allclose(one.answers[0], found.answers[0], atol=1e-5)


def test_views_are_averaged_and_repeat(trained: Session) -> None:
    pictures = trained.view.need_data().valid.images[:20].numpy()
    one, four, again = (trained.predict(pictures, views=k).answers for k in (1, 4, 4))
    assert np.array_equal(four, again)
    assert not np.allclose(one, four)
    assert np.allclose(four.sum(1), 1, atol=1e-5)


def test_files_that_break_are_named_and_the_others_predicted(trained: Session, tmp_path: Path) -> None:
    images = trained.view.need_data().valid.images[:3, 0].numpy()
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "empty.jpg").write_bytes(b"")
    found = trained.predict(str(tmp_path))
    assert [Path(name).name for name in found.names] == ["0.png", "1.png", "2.png"]
    assert {Path(problem.path).name for problem in found.problems} == {"broken.png", "empty.jpg"}
    assert "broken.png" in repr(found)
    lines = "\n".join(str(tmp_path / f"{i}.png") for i in range(3))
    assert np.array_equal(trained.predict(lines).answers, found.answers)
    with pytest.raises(DataError, match=r"broken\.png cannot be predicted on: damaged"):
        trained.predict(str(tmp_path / "broken.png"))


def test_what_cannot_be_predicted_on_is_one_line(trained: Session, tmp_path: Path) -> None:
    for source in (str(tmp_path / "nothing.png"), str(tmp_path), {}, [], torch.rand(2, 9, 9, 9)):
        with pytest.raises(DataError) as caught:
            trained.predict(source)
        assert "\n" not in str(caught.value)


def test_runs_are_drawn_side_by_side(trained: Session, tmp_path: Path) -> None:
    other = Session([])
    other.load("convnet5")
    other.data("digits", per_class=4)
    other.freeze("body")
    run = other.train(lr=1e-2, epochs=3)
    other.save(str(tmp_path / "kept"))
    found = trained.compare(trained.history, run, str(tmp_path / "kept"))
    assert [len(line.records) for line in found.lines] == [2, 3, 3]
    assert found.lines[2].name == "kept"
    assert repr(found).count("train 7") == 3
    assert found.save(tmp_path / "curves.svg").read_text().startswith("<?xml")
    assert found.svg == found.svg
    assert found.save(tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ExportError, match=r"\.svg or \.png"):
        found.save(tmp_path / "curves.pdf")
    assert trained.history.plot().lines[0].ends == [2]


def test_nothing_trained_is_nothing_to_draw() -> None:
    session = Session([])
    with pytest.raises(NotReady, match="nothing was trained"):
        session.compare()
    with pytest.raises(NotReady, match="a dict holds no run"):
        session.compare({})


def test_the_doctor_names_what_is_there() -> None:
    table = Session([]).status(env=True)
    text = repr(table)
    assert torch.__version__.split("+")[0] in text
    assert "widgets here" in text
    assert str(Path.home()) in text or "weights" in text


def test_the_doctor_says_what_to_do_about_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for variable in ("TLNB_HOME", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "file" / "below"))
    advice = {row[0]: row[2] for row in Session([]).status(env=True).rows}
    assert "set TLNB_HOME" in advice["tlnb's folder"]
    assert "set TORCH_HOME" in advice["weights"]


def test_the_doctor_names_a_package_that_is_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tlnb.engine.doctor", Broken())
    assert show_environment() == 1
    assert capsys.readouterr().err.endswith("to do: pip install --force-reinstall scikit-learn\n")


class Broken:
    """Stands for the doctor where a package is missing."""

    def __getattr__(self, name: str) -> object:
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")
