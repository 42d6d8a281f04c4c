"""The map of samples: what its points are, that the test part is not read, and each kind of data."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import blobs, small
from numpy.linalg import svd
from pictures import class_folders
from sounds import tone_folders
from texts import network_folder, rows, table

from tlnb.engine.results import feature_map
from tlnb.errors import AddressError, BadArguments, NotReady
from tlnb.magics import network_and_data as commands
from tlnb.session import Session


@pytest.fixture
def session() -> Session:
    made = Session(listeners=[])
    made.load(small(seed=3))
    samples = blobs(90)
    made.data((samples.batch(torch.arange(90)), samples.targets), test=0.2, batch=8)
    made.freeze("body")
    made.unfreeze("-1:")
    return made


def test_points_are_the_principal_components_of_what_enters_the_head(session: Session) -> None:
    found = session.map()
    assert len(found) == len(session.split.train) + len(session.split.valid) < 90
    inputs = torch.cat([part.batch(torch.arange(len(part))) for part in session.view.samples])
    with torch.no_grad():
        features = session.model.body(inputs).flatten(1).double().numpy()
    centred = features - features.mean(0)
    u, s, _ = svd(centred, full_matrices=False)
    for axis in range(2):
        own, other = found.coordinates[:, axis], u[:, axis] * s[axis]
        assert min(np.abs(own - other).max(), np.abs(own + other).max()) < 1e-4
    share = round(100 * (s[:2] ** 2).sum() / (s**2).sum())
    assert f"PCA, {share} % of the spread" in repr(found)


def test_the_test_part_is_not_read(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    test = session.view.data.test
    for name in [name for name in dir(type(test)) if not name.startswith("__")]:
        if callable(getattr(type(test), name)):
            monkeypatch.setattr(type(test), name, lambda *a, **k: pytest.fail("the test part was read"))
    found = session.map()
    assert set(np.unique(found.part)) == {0, 1}
    drawn = [
        *session.split.train[found.index[found.part == 0]],
        *session.split.valid[found.index[found.part == 1]],
    ]
    assert not set(map(int, drawn)) & set(session.split.test.tolist())


def test_predictions_are_those_of_the_results_once_trained(session: Session) -> None:
    session.train(epochs=2, lr=0.05)
    found, judged = session.map(), session.results()
    valid = found.part == 1
    assert found.learned
    assert (found.predicted[valid] == judged.answers.argmax(1)).all()
    assert found.correct[valid].mean() == pytest.approx(judged.figure_value)
    assert found.sure[valid] == pytest.approx(judged.answers.max(1), abs=1e-5)


def test_a_selection_goes_to_the_answer_and_its_table(session: Session) -> None:
    found = session.map(colour="part")
    chosen = found.select([5, 2, 5])
    assert found.selected == (2, 5)
    assert len(chosen) == 2
    assert list(found.frame()["selected"]).count(True) == 2
    assert chosen.indexes == tuple(found.index[[2, 5]])
    with pytest.raises(BadArguments, match="places of this map"):
        found.select([len(found)])
    assert found.selected == (2, 5)


def test_a_layer_that_is_named_and_what_is_no_layer(session: Session) -> None:
    assert "layer 0, " in session.map(0).where
    assert session.map("head").coordinates.shape == session.map().coordinates.shape
    with pytest.raises(BadArguments, match="a map is of one layer"):
        session.map("body")
    with pytest.raises(AddressError):
        session.map(9)
    for wrong in ({"by": "tsne"}, {"colour": "red"}, {"samples": 1}):
        with pytest.raises(BadArguments):
            session.map(**wrong)


def test_fewer_samples_are_drawn_evenly_and_it_is_said(session: Session) -> None:
    found = session.map(samples=30)
    assert len(found) == 30
    assert np.bincount(found.targets, minlength=3).min() >= 8
    assert "--samples says how many" in repr(found)


def test_nothing_changes_and_kept_features_serve(session: Session) -> None:
    before = {name: value.clone() for name, value in session.model.state_dict().items()}
    state = session.view.state
    first = session.map()
    kept = session.view.planner.cache.bytes("memory")
    assert kept > 0
    second = session.map()
    assert session.view.planner.cache.bytes("memory") == kept
    assert np.array_equal(first.coordinates, second.coordinates)
    assert session.view.state is state
    assert all(torch.equal(value, before[name]) for name, value in session.model.state_dict().items())


def test_pictures_are_looked_at_without_their_random_changes(tmp_path: Path) -> None:
    session = Session(listeners=[])
    session.load("convnet5")
    session.data(str(class_folders(tmp_path / "pets", each=10)), augment="strong")
    found = session.map()
    assert found.look(0).picture.startswith("data:image/png;base64,")
    assert found.look(0) == found.look(0)
    assert not found.learned, "its head is new"
    assert found.names[0].endswith((".png", ".jpg"))


def test_texts_are_looked_at_as_words(tmp_path: Path) -> None:
    session = Session(listeners=[])
    session.load(str(network_folder(tmp_path / "net")))
    session.data(str(table(tmp_path / "texts.csv", rows())), text="text", label="label")
    found = session.map()
    place = int(np.flatnonzero(found.part == 1)[0])
    assert found.look(place).text == session.view.samples[1].texts[int(found.index[place])]
    assert found.coordinates.std(0).min() > 0


def test_a_sound_of_several_pieces_is_one_point_that_can_be_heard(tmp_path: Path) -> None:
    session = Session(listeners=[])
    session.load("convnet5")
    session.data(str(tone_folders(tmp_path / "tones", long=(0, 3))), window=0.4, rate=8000)
    pieces = sum(len(part) for part in session.view.samples)
    found = session.map()
    assert len(found) == 16 < pieces
    look = found.look(0)
    assert look.sound.startswith("data:audio/wav;base64,")
    assert look.picture.startswith("data:image/")


def test_rows_of_numbers_have_a_map_too() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(60, 6, generator=generator)
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    session = Session(listeners=[])
    session.load(net, input="6")
    session.data((inputs, inputs[:, 0]), target="regression")
    found = session.map(colour="correct")
    assert found.kind == "values"
    assert len(found.look(0).text.split(", ")) == 6
    assert found.correct.mean() == pytest.approx(0.5, abs=0.02)
    assert found._repr_png_()[:4] == b"\x89PNG"


def test_balanced_samples_stand_there_once() -> None:
    samples = blobs(90)
    keep = torch.tensor([i for i in range(90) if samples.targets[i] or i < 30])
    session = Session(listeners=[])
    session.load(small())
    session.data((samples.batch(keep), samples.targets[keep]), balance="samples")
    found = session.map()
    assert len(found) == len(keep)
    train = found.part == 0
    assert len(set(found.index[train].tolist())) == train.sum()
    assert (found.targets[train] == session.view.data.train.targets[found.index[train]].numpy()).all()


def test_umap_keeps_clusters_and_its_lack_is_one_line(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(NotReady, match=r'UMAP needs one more package: pip install "tlnb\[map\]"'):
        session.map(by="umap")


@pytest.mark.slow
def test_umap_draws_the_same_map_twice(session: Session) -> None:
    pytest.importorskip("umap")
    first, second = session.map(by="umap"), session.map(by="umap")
    assert np.array_equal(first.coordinates, second.coordinates)
    assert "UMAP, 15 neighbours" in repr(first)
    near = np.linalg.norm(first.coordinates[:, None] - first.coordinates[None], axis=2)
    np.fill_diagonal(near, np.inf)
    assert (first.targets[near.argmin(1)] == first.targets).mean() > 0.6


def test_hostile_names_are_text(tmp_path: Path) -> None:
    bad = "<img src=x onerror='hacked=1'>"
    session = Session(listeners=[])
    session.load("convnet5")
    session.data(str(class_folders(tmp_path / "p", (bad, "$x$"), each=8)))
    html = session.map()._repr_html_()
    assert "<img src=x" not in html
    assert "&lt;img src=x" in html


def test_the_words_of_the_magic_are_those_of_the_engine() -> None:
    assert (feature_map.COLOURS, feature_map.METHODS) == (commands.COLOURS, commands.METHODS)
