"""Cross-validation: fold by fold what a session of its own trains, the frozen part once, and nothing of the session."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tlnb.engine.data.folds import make_folds
from tlnb.engine.data.samples import ImageSamples
from tlnb.engine.features import prefix
from tlnb.engine.results.bootstrap import fold_interval
from tlnb.errors import DataError, NotReady, PlanError, TlnbError, TrainingError
from tlnb.session import Session

HEAD = "freeze body  epochs 2  lr 1e-2"


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))


def pictures(count: int = 60, classes: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Small grey pictures whose brightness tells the class, each of its own."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % classes
    noise = torch.randint(0, 100, (count, 1, 12, 12), generator=generator)
    return (noise + 50 * targets[:, None, None, None]).to(torch.uint8), targets


def begun(data: object, **options: object) -> Session:
    session = Session([])
    session.load("convnet5")
    session.data(data, **options)
    return session


def weights_of(session: Session) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in session.model.state_dict().items()}


# -------------------------------------------------------------------- what a fold is


@pytest.mark.parametrize(
    "plan",
    [
        HEAD,
        "fit head\ntrain 6:  epochs 1  lr 1e-3  init soft  blend auto",
        "train 6:  epochs 2  lr 1e-3  augment light  views 2",
        "fit head\nadapt 5: bias  epochs 1  lr 1e-3  init soft\ntrain 6:  epochs 1  lr 1e-3  init soft  guard strict",
        "train 6  epochs 1  lr 1e-3  contrast 0.2  blend 0.5\nfit head",
        "train 6:  epochs 1  lr 1e-3  keep l2sp:1\ntrain 6:  epochs 1  lr 1e-2  keep lwf:1  patience 1",
    ],
)
def test_each_fold_is_what_a_session_of_its_own_trains(plan):
    x, y = pictures()
    session = begun((x, y))
    cv = session.cross_validate(3, plan)
    for fold, found in zip(cv.folds, cv.results, strict=True):
        alone = begun(((x[fold.train], y[fold.train]), (x[fold.valid], y[fold.valid])))
        alone.run(plan)
        results = alone.results()
        assert np.allclose(results.answers, found.answers, atol=1e-4)
        assert results.accuracy == found.value
        assert alone.history.final.valid_loss == pytest.approx(found.stages[-1].final.valid_loss, abs=1e-4)


def test_each_fold_starts_with_the_adapters_that_other_data_taught():
    before, plan = (
        "adapt all bias  epochs 2  lr 3e-2  guard off",
        "fit head\ntrain head  epochs 1  lr 1e-9  guard off",
    )

    def taught() -> Session:
        session = begun("digits", per_class=6)
        session.run(before)
        return session

    x, y = pictures()
    session = taught()
    session.data((x, y))
    cv = session.cross_validate(3, plan)
    assert any("as it is" in note for note in cv.notes)
    for fold, found in zip(cv.folds, cv.results, strict=True):
        alone = taught()
        alone.data(((x[fold.train], y[fold.train]), (x[fold.valid], y[fold.valid])))
        alone.run(plan)
        assert np.allclose(alone.results().answers, found.answers, atol=1e-4)
    assert session.view.need_layers().adapters


def test_a_step_of_ones_own_trains_each_fold():
    x, y = pictures()

    def step(model, x, y):
        return nn.functional.multi_margin_loss(model(x), y)

    session = begun((x, y))
    session.step = step
    plan = "train 7:  epochs 1  lr 1e-2"
    cv = session.cross_validate(2, plan)
    fold, found = next(iter(cv.folds)), cv.results[0]
    alone = begun(((x[fold.train], y[fold.train]), (x[fold.valid], y[fold.valid])))
    alone.step = step
    alone.run(plan)
    assert np.allclose(alone.results().answers, found.answers, atol=1e-4)


def test_ewc_would_weigh_by_samples_of_other_folds():
    session = begun(pictures())
    with pytest.raises(TrainingError, match="keep ewc would weigh by samples of other folds"):
        session.cross_validate(2, "train 7:  epochs 1  lr 1e-3  keep ewc:1")


def test_pictures_in_files_with_augmentation_and_a_test_part(tmp_path):
    x, y = pictures(48)
    for number, (picture, kind) in enumerate(zip(x, y.tolist(), strict=True)):
        place = tmp_path / "photos" / "abc"[kind] / f"{number:02}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture[0].numpy()).save(place)
    session = begun(str(tmp_path / "photos"), test=0.25, augment="light", balance="samples")
    cv = session.cross_validate(3, HEAD)
    assert len(cv.positions) == 36
    assert not set(cv.positions.tolist()) & set(session.split.test.tolist())
    assert len(cv.done) == 3
    assert session.cross_validate(3, "fit head").accuracy > 0.6


def test_measured_values_are_standardised_by_each_folds_own_samples():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(45, 4, generator=generator)
    y = 100 + 10 * x[:, 0] + torch.randn(45, generator=generator)

    def network() -> nn.Module:
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))

    session = Session([])
    session.load(network(), input=(4,))
    session.data((x, y))
    cv = session.cross_validate(3, "train all  epochs 3  lr 1e-2")
    assert cv.score.name == "r2"
    for fold, found in zip(cv.folds, cv.results, strict=True):
        alone = Session([])
        alone.load(network(), input=(4,))
        alone.data(((x[fold.train], y[fold.train]), (x[fold.valid], y[fold.valid])))
        alone.run("train all  epochs 3  lr 1e-2")
        assert np.allclose(alone.results().answers, found.answers, rtol=1e-4, atol=1e-3)
    assert np.allclose(cv.targets[:, 0], y.numpy(), atol=1e-3)


def test_weights_of_rare_classes_are_each_folds_own():
    x, y = pictures(66)
    y[:20] = 0
    cv = begun((x, y), balance="weights").cross_validate(3, HEAD)
    fold, found = next(iter(cv.folds)), cv.results[0]
    alone = begun(((x[fold.train], y[fold.train]), (x[fold.valid], y[fold.valid])), balance="weights")
    alone.run(HEAD)
    assert np.allclose(alone.results().answers, found.answers, atol=1e-4)


def test_a_network_that_was_trained_starts_from_before_and_stays_as_it_is():
    x, y = pictures()
    fresh = begun((x, y)).cross_validate(3, HEAD)
    session = begun((x, y))
    session.run("train all  epochs 1  lr 1e-3")
    before, history = weights_of(session), len(session.history)
    again = session.cross_validate(3, HEAD)
    assert np.array_equal(again.answers, fresh.answers)
    assert len(session.history) == history
    assert all(torch.equal(tensor, before[name]) for name, tensor in session.model.state_dict().items())
    with_random = Session([])
    with_random.load("convnet5", weights="none")
    with_random.data((x, y))
    first = with_random.cross_validate(3, "train all  epochs 1  lr 1e-3").answers
    with_random.run("train all  epochs 1  lr 1e-3")
    with_random.run(HEAD)
    assert np.array_equal(with_random.cross_validate(3, "train all  epochs 1  lr 1e-3").answers, first)


def test_other_data_that_was_learned_before_is_part_of_the_start():
    session = begun("digits", per_class=5)
    session.run("train all  epochs 1  lr 1e-3")
    twin = begun("digits", per_class=5)
    twin.run("train all  epochs 1  lr 1e-3")
    x, y = pictures()
    session.data((x, y))
    cv = session.cross_validate(2, "fit head")
    assert any("what it was trained on is other data" in note for note in cv.notes)
    fold = next(iter(cv.folds))
    twin.data(((x[fold.train], y[fold.train]), (x[fold.valid], y[fold.valid])))
    twin.run("fit head")
    assert np.allclose(twin.results().answers, cv.results[0].answers, atol=1e-3)
    session.run("fit head")
    again = session.cross_validate(2, "fit head")
    assert any("as it was before training" in note for note in again.notes)
    assert not np.allclose(again.answers, cv.answers, atol=0.01)


def test_a_head_of_another_form_has_another_plan():
    session = begun(pictures())
    session.run(HEAD)
    session.head("mlp:8")
    session.freeze("body")
    assert "default plan" in session.cross_validate(2).notes[0]


def test_the_plan_is_the_one_given_trained_advised_or_the_default():
    session = begun(pictures())
    assert session.cross_validate(2).plan.startswith("fit head")
    session.run("fit head")
    session.run(HEAD)
    found = session.cross_validate(2)
    assert found.plan == f"fit head\n{' '.join(HEAD.split())}"
    assert "what the session trained" in found.notes[0]
    assert session.cross_validate(2, "fit head").plan == "fit head"


def test_what_looks_at_the_folds_own_samples_is_said():
    session = begun(pictures())
    assert not any("too good" in note for note in session.cross_validate(2, HEAD).notes)
    found = session.cross_validate(2, HEAD, keep_best=True)
    assert any(note.startswith("keep-best looked at") for note in found.notes)


# -------------------------------------------------------------------- what it costs


def test_the_frozen_part_runs_over_each_sample_once(monkeypatch):
    passes = []
    run_pass = prefix.run_pass
    monkeypatch.setattr(
        prefix,
        "run_pass",
        lambda parts, source, *rest: passes.append(len(source)) or run_pass(parts, source, *rest),
    )
    seen: list[int] = []
    pixels = ImageSamples.pixels
    monkeypatch.setattr(
        ImageSamples, "pixels", lambda self, indices: seen.append(len(indices)) or pixels(self, indices)
    )
    session = begun(pictures(90))
    seen.clear()
    session.cross_validate(5, HEAD, repeats=2)
    assert sum(passes) == 90
    # What is left are looks at a few samples in each fold, to see that the network still computes what was kept.
    assert sum(seen) < 90 + 10 * 32
    passes.clear()
    session.cross_validate(5, "freeze body  epochs 1  lr 1e-2")
    session.run(HEAD)
    assert not passes


# -------------------------------------------------------------------- which samples are where


def test_groups_equal_samples_and_classes_and_never_a_test_sample():
    x, y = pictures(90)
    x[1::9] = x[0::9]  # ten pairs of equal pictures
    y[1::9] = y[0::9]
    told = np.arange(90) // 6
    session = begun((x, y), groups=told, test=0.2)
    cv = session.cross_validate(4, HEAD, repeats=2)
    assert not set(cv.positions) & set(session.split.test.tolist())
    assert sorted(cv.positions) == sorted(torch.cat([session.split.train, session.split.valid]).tolist())
    for fold in cv.folds:
        sides = [cv.positions[rows.numpy()] for rows in (fold.train, fold.valid)]
        assert not set(told[sides[0]]) & set(told[sides[1]])
        assert not {x[i].numpy().tobytes() for i in sides[0]} & {x[i].numpy().tobytes() for i in sides[1]}
        assert set(y[sides[1]].tolist()) == {0, 1, 2}
    assert cv.fold.shape == (len(cv.positions), 2)
    assert "none in two folds" in repr(cv)
    assert session.view.data.test.looks == ()


def test_folds_go_in_time():
    x, y = pictures(80)
    day = np.random.default_rng(0).permutation(80)
    cv = begun((x, y), time=day).cross_validate(3, HEAD)
    for fold in cv.folds:
        assert day[cv.positions[fold.train.numpy()]].max() < day[cv.positions[fold.valid.numpy()]].min()
    there = cv.answered
    assert 0 < there.sum() < 80
    assert (cv.predicted[~there] == -1).all()


# -------------------------------------------------------------------- what it answers


def test_mean_spread_interval_and_the_out_of_fold_answers():
    x, y = pictures()
    cv = begun((x, y)).cross_validate(5, HEAD)
    assert cv.mean == pytest.approx(np.mean(cv.values))
    assert cv.spread == pytest.approx(np.std(cv.values, ddof=1))
    expected = fold_interval(list(cv.values), float(np.mean([f.valid / f.train for f in cv.results])))
    assert (cv.interval.low, cv.interval.high) == (expected.low, min(expected.high, 1.0))
    frame = cv.frame()
    assert list(frame["position"]) == list(range(60))
    assert list(frame["true"]) == [str(c) for c in y.tolist()] == list(cv.labels)
    assert list(frame["predicted"]) == list(cv.predictions)
    assert np.allclose(cv.probabilities.sum(1), 1, atol=1e-5)
    right = (cv.predictions == cv.labels).mean()
    assert cv.accuracy == cv.pooled == right
    assert cv.confusion.sum() == 60
    by_fold = [(cv.predictions == cv.labels)[cv.fold == k].mean() for k in range(5)]
    assert np.allclose(by_fold, cv.values)
    assert "accuracy" in repr(cv)
    assert len(cv.table.rows) == 5
    html = cv._repr_html_()
    assert html.count("<img") == 2
    assert "<table" in html


def test_it_goes_by_the_datas_score_and_escapes_names():
    x, y = pictures(60, 2)
    session = begun((x, np.array(["<b>a", "b"])[y.numpy()]), score="auroc")
    cv = session.cross_validate(3, HEAD)
    assert cv.score.name == "auroc"
    from sklearn.metrics import roc_auc_score

    there = [roc_auc_score(cv.targets[cv.fold == k], cv.answers[cv.fold == k, 1]) for k in range(3)]
    assert np.allclose(cv.values, there)
    assert "<b>a" not in cv._repr_html_()


# -------------------------------------------------------------------- progress, a stop, and going on


class StopAfter:
    """Presses the stop button when so many folds have ended."""

    def __init__(self, session: Session, folds: int):
        self.session, self.folds, self.said = session, folds, []

    def on_message(self, text: str) -> None:
        self.said.append(text)
        if text.startswith("fold") and sum(line.startswith("fold") for line in self.said) == self.folds:
            self.session.stop_request.ask()


def test_a_stop_keeps_what_ended_and_the_same_call_goes_on():
    x, y = pictures()
    whole = begun((x, y)).cross_validate(4, HEAD)
    session = begun((x, y))
    listener = StopAfter(session, 2)
    session.listeners = [listener]
    cv = session.cross_validate(4, HEAD)
    assert (cv.stopped, len(cv.done)) == (True, 2)
    assert "--continue" in repr(cv)
    assert np.isnan(cv.answers).any()
    assert any("s left" in line for line in listener.said)
    session.listeners = []
    again = session.cross_validate(4, HEAD)
    assert again is cv
    assert not cv.stopped
    assert np.array_equal(cv.answers, whole.answers)
    session.listeners = [StopAfter(session, 1)]
    other = session.cross_validate(3, HEAD)
    assert other.stopped
    session.listeners = []
    assert session.go_on_with_folds() is other
    assert len(other.done) == 3
    assert session.go_on_with_folds() is other
    assert session.cross_validate(3, HEAD) is other


# -------------------------------------------------------------------- the magic, and wrong use


def test_the_magic_takes_a_number_a_plan_in_quotes_and_a_cell(shell):
    shell.run_line_magic("load_ext", "tlnb")
    session = shell.user_ns["tl"]
    session.load("convnet5")
    shell.user_ns["share"] = pictures()
    shell.run_line_magic("tl_data", "$share")
    shell.user_ns["tl"].listeners = []
    line = shell.run('%tl_cv 2 "freeze body epochs 1 lr 1e-2" --repeats 2')
    assert (len(line.done), line.plan) == (4, "freeze body epochs 1 lr 1e-2")
    cell = shell.run("%%tl_cv 3\nfit head\n")
    assert (len(cell.done), cell.plan) == (3, "fit head")
    assert len(shell.run("%%tl_cv --repeats 1\nfit head\n").done) == 5
    assert shell.run("%tl_cv --continue").done


@pytest.mark.parametrize(
    ("options", "call", "says"),
    [
        ({}, {"folds": 1}, "folds"),
        ({}, {"folds": 200}, "200 folds need 200 groups or more; there are 60 different samples"),
        ({"groups": np.arange(60) // 20}, {"folds": 4}, "4 folds need 4 groups or more; there are 3 groups"),
        ({}, {"folds": 3, "plan": "freez body"}, "freez"),
        ({}, {"folds": 3, "plan": 3}, "a plan is text"),
        ({}, {"folds": 3, "repeats": 0}, "--repeats"),
        ({}, {"folds": 3, "epochs": 3}, "give the plan too"),
        ({"time": np.arange(60)}, {"folds": 3, "repeats": 2}, "one order only"),
    ],
)
def test_wrong_use_is_one_line(options, call, says):
    session = begun(pictures(), **options)
    with pytest.raises(TlnbError, match=says) as caught:
        session.cross_validate(**call)
    assert "\n" not in str(caught.value)
    assert session.view.state.folds is None


def test_what_is_missing_is_said():
    with pytest.raises(NotReady, match="no model"):
        Session([]).cross_validate(3)
    session = begun(pictures())
    with pytest.raises(NotReady, match="tl_cv 5 begins"):
        session.go_on_with_folds()
    with pytest.raises(PlanError, match="frozen"):
        session.cross_validate(3, "freeze all epochs 1")


def test_a_class_in_one_group_alone_is_refused():
    with pytest.raises(DataError, match="in one group only"):
        make_folds(torch.tensor([0] * 6 + [1] * 6), 2, groups=_groups([0, 0, 1, 1, 2, 2] + [3] * 6))


def _groups(numbers: list[int]):
    from tlnb.engine.data.groups import groups_by

    return groups_by(np.array(numbers), len(numbers))
