"""%tl_predict --sure, %tl_results and exports: sets that hold, what is none of the classes, the same without tlnb."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from session_scripts import run_without_tlnb
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch import nn

from tlnb.errors import BadArguments, DataError, TlnbError
from tlnb.magics.arguments import parse
from tlnb.magics.commands import COMMANDS
from tlnb.session import Session


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))


def linear(inputs: object, targets: object, **options: object) -> Session:
    """A linear network on inputs that are no pictures, its head fitted."""
    width = np.asarray(inputs).shape[1]
    found = Session([])
    torch.manual_seed(0)
    body = nn.Linear(width, 32)
    found.load(nn.Sequential(body, nn.ReLU(), nn.Linear(32, 10)), input=(width,))
    found.data((torch.as_tensor(np.asarray(inputs), dtype=torch.float32), targets), **options)
    return found


def digits() -> tuple[np.ndarray, np.ndarray]:
    found = load_digits()
    return (found.data / 16).astype(np.float32), found.target


# ------------------------------------------------------------------ sets


@pytest.mark.parametrize("sure", [0.8, 0.9])
def test_sets_hold_the_right_class_as_often_as_they_say(sure: float) -> None:
    inputs, targets = digits()
    shares = []
    for seed in range(12):
        order = np.random.default_rng(seed).permutation(len(targets))
        known, new = order[:900], order[900:]
        tl = linear(inputs[known], targets[known], valid=0.5, seed=seed)
        tl.run("fit head")
        found = tl.predict(inputs[new], sure=sure)
        assert found.sets is not None
        shares.append(np.mean([str(t) in held for t, held in zip(targets[new], found.sets, strict=True)]))
    assert np.mean(shares) == pytest.approx(sure, abs=0.015)


def test_the_sets_of_validation_samples_are_those_of_the_definition(trained: Session) -> None:
    pictures = trained.view.need_data().valid.images.numpy()
    known = trained.results(worst=0)
    found = trained.predict(pictures, sure=0.9)
    odds = np.log(known.answers.astype(np.float64)) - np.log1p(-np.minimum(known.answers, 1 - 1e-7))
    own = np.sort(odds[np.arange(len(odds)), known.targets])
    bound = own[len(own) - int(np.ceil(0.9 * (len(own) + 1)))]
    assert bound < 10  # else rounding to 1 would matter here
    theirs = [{known.classes[i] for i in np.flatnonzero(row >= bound - 1e-3)} for row in odds]
    assert [set(held) for held in found.sets] == theirs
    held = np.mean([known.classes[t] in own for t, own in zip(known.targets, found.sets, strict=True)])
    assert 0.9 <= held < 0.91
    assert found.sets[0][0] == known.classes[found.answers[0].argmax()]
    assert np.allclose(found.answers, known.answers, atol=1e-5)


def test_the_surer_the_larger_the_sets(trained: Session) -> None:
    pictures = trained.view.need_data().valid.images[:100].numpy()
    sizes = [np.mean([len(s) for s in trained.predict(pictures, sure=k).sets]) for k in (0.5, 0.9, 0.99)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2]


def test_probabilities_are_at_the_temperature(trained: Session) -> None:
    pictures = trained.view.need_data().valid.images[:50].numpy()
    value = trained.results(worst=0).temperature.value
    found = trained.predict(pictures, sure=0.9)
    warm = found.answers.astype(np.float64) ** (1 / value)
    assert np.allclose(found.probabilities, warm / warm.sum(1, keepdims=True), atol=1e-4)
    assert np.array_equal(trained.predict(pictures).probabilities, trained.predict(pictures).answers)


def test_it_shows_itself(trained: Session, tmp_path: Path) -> None:
    pictures = trained.view.need_data().valid.images[:3, 0].numpy()
    for index, picture in enumerate([*pictures, np.tile([[0, 255], [255, 0]], (4, 4)).astype(np.uint8)]):
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    found = trained.predict(str(tmp_path), sure=0.9)
    assert found.none.tolist() == [False, False, False, True]
    assert found.labels[3] == "none of these"
    assert len(found.sets) == len(found.strangeness) == 4
    for shown in (repr(found), found._repr_html_()):
        for words in ("none of these", "90 % sure", "--false-alarms", "broken.png"):
            assert words in shown, words
    assert list(found.frame()["none of these"]) == found.none.tolist()
    plain = trained.predict(str(tmp_path))
    assert (plain.sets, plain.none, plain.sure) == (None, None, None)
    assert "sure answers" not in repr(plain)
    with pytest.raises(DataError, match=r"broken\.png cannot be predicted on"):
        trained.predict(str(tmp_path / "broken.png"), sure=0.9)


# ------------------------------------------------------------------ none of these


def test_classes_that_were_left_out_are_told_better_than_by_the_largest_probability() -> None:
    images, targets = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8) * 15.9).astype(np.uint8)
    gains, alarms = [], []
    for left in ((3, 8), (0, 4), (1, 7)):
        rng = np.random.default_rng(left)
        known = rng.permutation(np.flatnonzero(~np.isin(targets, left)))
        seen, new = known[:1000], np.concatenate([known[1000:], np.flatnonzero(np.isin(targets, left))])
        tl = Session([])
        tl.load("convnet5")
        tl.data((images[seen], targets[seen]), valid=0.4)
        tl.run("fit head")
        found = tl.predict(images[new], sure=0.9)
        strange = np.isin(targets[new], left)
        softmax = roc_auc_score(strange, -found.answers.max(1))
        gains.append(roc_auc_score(strange, found.strangeness) - softmax)
        alarms.append(found.none[~strange].mean())
    assert np.mean(gains) > 0.03
    assert np.mean(alarms) == pytest.approx(0.05, abs=0.02)


def test_the_rate_of_false_alarms_can_be_chosen(trained: Session) -> None:
    pictures = trained.view.need_data().valid.images.numpy()
    for rate in (0.01, 0.05, 0.3):
        none = trained.predict(pictures, sure=0.9, false_alarms=rate).none
        assert none.mean() == pytest.approx(rate, abs=0.01)
        assert none.mean() <= rate


def test_too_few_samples_raise_no_alarm_and_say_so() -> None:
    inputs, targets = digits()
    tl = linear(inputs[:60], targets[:60], valid=0.2)
    found = tl.predict(inputs[100:120], sure=0.8)
    assert not found.none.any()
    assert "12 validation samples are too few for 5 % false alarms" in repr(found)
    assert not found.certainty.endswith("(--false-alarms)")


def test_a_network_without_a_head_of_its_own_is_judged_by_its_scores() -> None:
    inputs, targets = digits()

    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(64, 10, generator=torch.Generator().manual_seed(0)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.weight

    tl = Session([])
    tl.load(Bare(), input=(64,))
    tl.data((torch.from_numpy(inputs[:600]), targets[:600]))
    tl.train(3, 1e-2)
    found = tl.predict(inputs[600:700], sure=0.9)
    assert found.strangeness.shape == (100,)
    assert found.none.mean() < 0.3


# ------------------------------------------------------------------ nothing stale


def test_what_answers_are_judged_by_follows_weights_and_data() -> None:
    inputs, targets = digits()
    tl = linear(inputs[:600], targets[:600])
    tl.run("fit head")
    new = inputs[1000:1100]
    first = tl.predict(new, sure=0.9)
    tl.unfreeze("all")
    tl.train(1, 0.1)
    tl.undo()
    again = tl.predict(new, sure=0.9)
    assert again.sets == first.sets
    assert np.array_equal(again.strangeness, first.strangeness)
    with torch.no_grad():
        tl.model[2].weight.mul_(0.3)  # by hand: nothing of the session saw it
    cooler = tl.predict(new, sure=0.9)
    assert not np.allclose(cooler.strangeness, first.strangeness)
    known = tl.results()
    held = [known.classes[t] in own for t, own in
            zip(known.targets, tl.predict(tl.view.need_data().valid.inputs, sure=0.9).sets, strict=True)]  # fmt: skip
    assert np.mean(held) == pytest.approx(0.9, abs=0.01)


def test_a_session_that_comes_back_judges_as_before(tmp_path: Path) -> None:
    tl = Session([])
    tl.load("convnet5")
    tl.data("digits", per_class=10)
    tl.freeze("body")
    tl.train(lr=2e-2, epochs=1)
    pictures = tl.view.need_data().valid.images[:60].numpy()
    first = tl.predict(pictures, sure=0.9)
    tl.save(str(tmp_path / "kept"))
    other = Session([])
    other.resume(str(tmp_path / "kept"))
    again = other.predict(pictures, sure=0.9)
    assert again.sets == first.sets
    assert again.none.tolist() == first.none.tolist()


def test_the_temperature_is_out_of_fold_where_folds_were_measured() -> None:
    inputs, targets = digits()
    tl = linear(inputs[:500], targets[:500])
    tl.run("fit head")
    before = tl.results(worst=0).temperature
    assert before.of == "the validation samples"
    first = tl.predict(inputs[600:650], sure=0.9)
    folds = tl.cross_validate(3)
    after = tl.results(worst=0).temperature
    assert after.of == "500 answers out of fold"
    own = folds.answers[np.arange(500), folds.targets]
    assert after.loss[0] == pytest.approx(-np.log(own).mean(), rel=1e-5)
    found = tl.predict(inputs[600:650], sure=0.9)
    warm = first.answers.astype(np.float64) ** (1 / after.value)
    assert np.allclose(found.probabilities, warm / warm.sum(1, keepdims=True), atol=1e-4)
    assert found.sets == first.sets
    tl.train(1, 0.01)  # another network than the folds had
    assert tl.results(worst=0).temperature.of == "the validation samples"


# ------------------------------------------------------------------ results


def test_results_say_temperature_coverage_sizes_and_risk(trained: Session) -> None:
    found = trained.results(worst=0)
    scores = torch.from_numpy(found.answers).double().clamp(min=1e-40).log()
    targets = torch.from_numpy(found.targets)
    before, after = found.temperature.loss
    assert before == pytest.approx(found.loss, abs=1e-4)
    assert after == pytest.approx(
        nn.functional.cross_entropy(scores / found.temperature.value, targets).item(), abs=1e-4
    )
    assert found.temperature.error[0] == pytest.approx(found.calibration.error, abs=1e-6)
    assert found.coverage.share == pytest.approx(0.9, abs=0.03)
    assert sum(found.coverage.sizes) == len(found.targets)
    assert found.risk.risk[-1] == pytest.approx(1 - found.accuracy)
    for shown in (repr(found), found._repr_html_()):
        for words in ("temperature", "sets at 90 %", "sizes of the sets", "of the surest"):
            assert words in shown, words
    assert "sets at 80 %" in repr(trained.results(worst=0, sure=0.8))
    assert found.plot("risk") is not None
    rows = {name: (share, count) for name, share, _, count in found.sureness.of_classes}
    assert sum(share * count for share, count in rows.values()) / len(found.targets) == pytest.approx(
        found.coverage.share, abs=1e-6
    )


def test_too_few_validation_samples_leave_the_rest_of_the_results() -> None:
    inputs, targets = digits()
    found = linear(inputs[:40], targets[:40], valid=0.2).results()
    assert found.coverage is None
    assert "10 validation samples are too few for answers that are 90 % sure; 12 are needed" in repr(found)


# ------------------------------------------------------------------ other kinds of data


def test_measured_values_have_intervals(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(3000, 4, generator=generator)
    noise = torch.randn(3000, 2, generator=generator)
    values = torch.stack([100 + 10 * inputs[:, 0] + noise[:, 0], inputs[:, 1] + 0.1 * noise[:, 1]], 1)
    tl = Session([])
    tl.load(nn.Sequential(nn.Linear(4, 2)), input=(4,))
    tl.data((inputs[:1500], values[:1500]), target="regression", valid=0.4)
    tl.train(5, 0.05)
    found = tl.predict(inputs[1500:], sure=0.9)
    low, high = found.intervals[..., 0], found.intervals[..., 1]
    inside = (values[1500:].numpy() >= low) & (values[1500:].numpy() <= high)
    assert inside.all(1).mean() == pytest.approx(0.9, abs=0.03)
    assert np.allclose((low + high) / 2, found.answers, atol=1e-3)
    assert (found.sets, found.none) == (None, None)
    assert " to " in repr(found)
    widths = tl.results().sureness.widths
    assert np.allclose(widths, (high - low)[0] / 2, rtol=1e-3)
    assert "90 % of the values lie within ±" in repr(tl.results())
    tl.export(str(tmp_path / "net.safetensors"))
    np.save(tmp_path / "inputs.npy", inputs[:50].numpy())
    (tmp_path / "use.py").write_text(
        "import sys, numpy, torch\nsys.path.insert(0, '.')\nimport net\n"
        "numpy.save('spans.npy', net.judge(net.load(), torch.from_numpy(numpy.load('inputs.npy'))).numpy())"
    )
    run_without_tlnb(tmp_path / "use.py")
    own = tl.predict(inputs[:50], sure=0.9).intervals
    assert np.allclose(np.load(tmp_path / "spans.npy"), own, rtol=1e-5, atol=1e-4)


def test_several_labels_have_a_temperature_and_no_sets(tmp_path: Path) -> None:
    inputs = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    tl = Session([])
    tl.load(nn.Sequential(nn.Linear(4, 2)), input=(4,))
    tl.data((inputs, (inputs[:, :2] > 0).float()), target="labels")
    with pytest.raises(DataError, match="a sample may have several labels"):
        tl.predict(inputs, sure=0.9)
    assert tl.results().temperature is not None
    tl.export(str(tmp_path / "net.safetensors"))
    assert json.loads((tmp_path / "net.json").read_text())["sure"]["temperature"] > 0


# ------------------------------------------------------------------ exports

JUDGE = """
import json, sys, numpy, torch
sys.path.insert(0, '.')
import net
model, pixels = net.load(), torch.from_numpy(numpy.load('pixels.npy'))
found = {str(s): net.judge(model, pixels, s, a) for s, a in ((0.9, 0.05), (0.8, 0.2))}
print(json.dumps({"judged": found, "warm": net.calibrated(model, pixels).tolist()}))
"""


def test_the_loader_judges_as_the_session_does(trained: Session, tmp_path: Path) -> None:
    trained.export(str(tmp_path / "net.safetensors"))
    valid = trained.view.samples[1].pixels(torch.arange(300))
    strange = torch.randint(0, 256, (60, *valid.shape[1:]), dtype=torch.uint8)
    pixels = torch.cat([valid, strange])
    np.save(tmp_path / "pixels.npy", pixels.numpy())
    (tmp_path / "use.py").write_text(JUDGE)
    theirs = json.loads(run_without_tlnb(tmp_path / "use.py"))
    for sure, alarms in ((0.9, 0.05), (0.8, 0.2)):
        own = trained.predict(pixels.numpy(), sure=sure, false_alarms=alarms)
        sets, none = theirs["judged"][str(sure)]
        assert [tuple(names) for names in sets] == list(own.sets)
        assert none == own.none.tolist()
        assert 0 < sum(none) < len(none)
    assert np.allclose(theirs["warm"], own.probabilities, atol=1e-5)
    picture = Image.fromarray(valid[0, 0].numpy())
    picture.save(tmp_path / "digit.png")
    assert "temperature" in (tmp_path / "net.md").read_text()


@pytest.mark.parametrize("ending", [".safetensors", ".pt2", ".onnx"])
def test_every_export_carries_the_temperature_and_the_bounds(
    trained: Session, tmp_path: Path, ending: str
) -> None:
    trained.export(str(tmp_path / f"net{ending}"))
    if ending == ".safetensors":
        about = json.loads((tmp_path / "net.json").read_text())
    elif ending == ".pt2":
        inside = {"tlnb.json": ""}
        torch.export.load(str(tmp_path / "net.pt2"), extra_files=inside)
        about = json.loads(inside["tlnb.json"])
    else:
        import onnx

        told = {p.key: p.value for p in onnx.load(str(tmp_path / "net.onnx")).metadata_props}
        about = json.loads(told["tlnb.json"])
    told = about["sure"]
    known = trained.results(worst=0)
    assert told["temperature"] == pytest.approx(known.temperature.value)
    # A class is in the set where its log odds are not below the bound: of probabilities alone, too.
    chances = known.answers.astype(np.float64)
    others = np.stack([np.delete(chances, i, 1).sum(1) for i in range(10)], 1)
    member = np.log(chances) - np.log(others) > told["bounds"]["0.9"] - 1e-3
    own = trained.predict(trained.view.need_data().valid.images.numpy(), sure=0.9)
    theirs = [{known.classes[i] for i in np.flatnonzero(row)} for row in member]
    assert theirs == [set(held) for held in own.sets]


# ------------------------------------------------------------------ wrong use


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sure": 90}, "sure takes a number between 0 and 1, not 90"),
        ({"sure": "much"}, "sure takes a number, not 'much'"),
        ({"sure": True}, "sure takes a number"),
        (
            {"sure": 0.9999},
            "99.99 % sure need 9,999 validation samples or more, and there are 360; --sure 99",
        ),
        ({"sure": 0.9, "false_alarms": 0}, "false_alarms takes a number between 0 and 1"),
        ({"sure": 0.9, "views": 4}, "leave out --views"),
        ({"false_alarms": 0.1}, "--false-alarms goes with --sure"),
    ],
)
def test_wrong_use_is_one_line_and_changes_nothing(
    trained: Session, options: dict[str, object], words: str
) -> None:
    before = trained.view.state
    with pytest.raises(TlnbError, match=words) as caught:
        trained.predict(np.zeros((2, 8, 8), np.uint8), **options)
    assert "\n" not in str(caught.value)
    assert trained.view.state is before


def test_the_line_takes_percentages() -> None:
    line = parse(COMMANDS["tl_predict"], "photos --sure 90 --false-alarms 2", {})
    assert line == (["photos"], {"sure": 0.9, "false_alarms": 0.02})
    assert parse(COMMANDS["tl_results"], "--sure 95", {})[1] == {"sure": 0.95}
    for wrong in ("photos --sure 0.9", "photos --sure 100", "photos --sure much", "photos --sure"):
        with pytest.raises(BadArguments, match="a percentage from 1 to below 100, such as 90"):
            parse(COMMANDS["tl_predict"], wrong, {})
