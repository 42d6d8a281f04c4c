"""Whether two runs differ by more than luck: on the same validation samples, out of memory and out of files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import nn

from tlnb.engine.checkpoint import file as checkpoint
from tlnb.engine.results.bootstrap import Difference
from tlnb.engine.training import passes
from tlnb.errors import CheckpointError, NotReady
from tlnb.session import Session

CLASSES = 3


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))


def table(count: int = 150, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of six numbers, the first three of which tell the class, with noise."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % CLASSES
    x = torch.randn(count, 6, generator=generator)
    x[:, :CLASSES] += 1.2 * nn.functional.one_hot(targets, CLASSES)
    return x, targets


def begun(data: object, width: int = 16, outputs: int = CLASSES, **options: object) -> Session:
    torch.manual_seed(0)
    session = Session([])
    session.load(nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, outputs)), input=(6,))
    session.data(data, **options)
    return session


def ran(session: Session, rate: float = 1e-2, epochs: int = 4, **more: object):
    run = session.train(epochs=epochs, lr=rate, **more)
    return run, session.results()


def test_two_networks_on_the_same_samples():
    bad, before = ran(begun(table(), 4), 1e-6, 1)
    good, after = ran(begun(table(), 32), 3e-2, 12)
    found = Session([]).compare(bad, good)
    gap = found.difference
    assert gap.score.name == "accuracy"
    assert gap.values == pytest.approx((before.accuracy, after.accuracy))
    right = [r.predicted == r.targets for r in (before, after)]
    only = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    assert gap.only == only
    assert gap.p == pytest.approx(binomtest(only[0], sum(only), 0.5).pvalue)
    assert gap.low < gap.difference < gap.high
    assert gap.better == "run 2"
    assert "run 2 is better by more than luck" in repr(found)
    assert "better by more than luck" in found._repr_html_()
    with_itself = Session([]).compare(good, good)
    assert with_itself.difference.better is None
    assert "that may be luck" in repr(with_itself)


def test_what_is_kept_are_the_answers_of_the_weights_that_stayed():
    for more in ({"keep_best": True, "epochs": 8, "rate": 0.3}, {"blend": 0.5}, {}):
        run, results = ran(begun(table()), **more)
        final = run.stages[-1].final
        assert np.allclose(final.answers.numpy(), results.answers, atol=1e-5)
        held = [record for record in run.records if record.answers is not None]
        assert len(held) <= 2
    session = begun(table())
    run, results = ran(session, 3e-2, 10)
    worse = session.train(epochs=1, lr=5.0)  # is taken back
    assert worse.stages[-1].taken_back
    assert np.allclose(worse.stages[-1].final.answers.numpy(), results.answers, atol=1e-5)


def test_other_samples_are_not_paired():
    first, _ = ran(begun(table()))
    for data, options in ((table(), {"seed": 1}), (table(), {"valid": 0.4}), (table(seed=3), {})):
        other, _ = ran(begun(data, **options))
        found = Session([]).compare(first, other)
        assert found.difference is None
        assert found.verdicts[0].count("\n") == 0
        assert "other validation samples" in found.verdicts[0]
    same, _ = ran(begun(table(), per_class=10))
    assert Session([]).compare(first, same).difference is not None


def test_pictures_of_two_sizes_are_the_same_samples():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 2
    x = (torch.randint(0, 120, (60, 1, 20, 20), generator=generator) + 100 * y[:, None, None, None]).to(
        torch.uint8
    )
    runs = []
    for side in (14, 28):
        session = Session([])
        net = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
        )
        session.load(net, input=(1, side, side))
        session.data((x, y), size=side)
        runs.append(session.run("train all  epochs 1  lr 1e-2"))
        assert session.view.samples[1].batch(torch.arange(1)).shape == (1, 1, side, side)
    assert Session([]).compare(*runs).difference is not None


def test_groups_are_drawn_whole_and_other_scores_have_the_bootstrap():
    told = np.arange(150) // 5
    runs = [ran(begun(table(), width, groups=told, score="auroc"))[0] for width in (2, 32)]
    gap = Session([]).compare(*runs).difference
    assert (gap.score.name, gap.test) == ("auroc", "bootstrap")
    plain = [ran(begun(table(), width, groups=told))[0] for width in (2, 32)]
    assert Session([]).compare(*plain).difference.test == "bootstrap over groups"
    x, _ = table()
    values = [ran(begun((x, x[:, 0] * 100 + 7), width, 1))[0] for width in (2, 32)]
    gap = Session([]).compare(*values).difference
    assert gap.score.name == "r2"
    assert float(values[0].stages[-1].measured.targets.std()) > 50


def test_of_very_many_classes_the_likeliest_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(passes, "MOST_ANSWERS", 60)
    session = begun(table(), score="auroc")
    run, results = ran(session)
    final = run.stages[-1].final
    assert (final.answers.dtype, final.answers.dim()) == (torch.int32, 1)
    assert np.array_equal(final.answers.numpy(), results.predicted)
    session.save(str(tmp_path / "small"))
    gap = Session([]).compare(run, str(tmp_path / "small")).difference
    assert gap.score.name == "accuracy"
    assert gap.values[0] == results.accuracy


# -------------------------------------------------------------------- files


def test_saved_runs_keep_their_answers_and_older_files_say_that_they_have_none(tmp_path):
    session = begun(table(), groups=np.arange(150) // 5)
    first, results = ran(session)
    session.save(str(tmp_path / "one"))
    ran(session, 1e-3)
    session.save(str(tmp_path / "two"))
    found = session.compare(str(tmp_path / "one"), str(tmp_path / "two"))
    assert found.difference.names == ("one", "two")
    assert found.difference.values[0] == results.accuracy
    assert session.compare(first, str(tmp_path / "two")).difference.values == found.difference.values
    kept = checkpoint.read(tmp_path / "two.safetensors")
    assert sum(name.endswith(".targets") for name in kept.tensors) == 1  # one set of samples for both stages
    back = begun(table())
    back.resume(str(tmp_path / "two"))
    assert back.compare(back, str(tmp_path / "one")).difference is not None

    about = json.loads(json.dumps(kept.about))
    for stage in about["history"]:
        del stage["measured"]
    plain = {n: t for n, t in kept.tensors.items() if not n.startswith(("answers.", "measured."))}
    checkpoint.write(tmp_path / "old.safetensors", checkpoint.Checkpoint(about, plain))
    old = session.compare(str(tmp_path / "old"), str(tmp_path / "two"))
    assert old.difference is None
    assert "old kept no answer for each validation sample" in repr(old)
    begun(table()).resume(str(tmp_path / "old"))


@pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: t[:, :1], lambda t: t.long()[:, 0] - 9])
def test_a_file_whose_answers_do_not_fit_is_refused(tmp_path, change):
    session = begun(table())
    ran(session)
    session.save(str(tmp_path / "one"))
    kept = checkpoint.read(tmp_path / "one.safetensors")
    key = next(name for name in kept.tensors if name.startswith("measured."))
    damaged = {**kept.tensors, "answers.0": change(kept.tensors["answers.0"])}
    if change(kept.tensors["answers.0"]).dim() == 1:
        damaged = {**kept.tensors, key: kept.tensors[key] - 9}
    checkpoint.write(tmp_path / "bad.safetensors", checkpoint.Checkpoint(kept.about, damaged))
    with pytest.raises(CheckpointError):
        begun(table()).resume(str(tmp_path / "bad"))
    with pytest.raises(CheckpointError):
        session.compare(str(tmp_path / "bad"))


# -------------------------------------------------------------------- folds


def test_two_cross_validations_are_compared_by_their_out_of_fold_answers():
    session = begun(table())
    weak = session.cross_validate(3, "train all  epochs 1  lr 1e-6")
    strong = session.cross_validate(3, "train all  epochs 10  lr 3e-2")
    found = session.compare(weak, strong)
    assert isinstance(found, Difference)
    assert found.values == (weak.accuracy, strong.accuracy)
    assert found.better == "the second"
    assert "<p>" in found._repr_html_()
    with pytest.raises(NotReady, match="other samples"):
        session.compare(weak, begun(table(), per_class=20).cross_validate(3, "train all  epochs 1  lr 1e-2"))
    with pytest.raises(NotReady, match="no run"):
        session.compare(weak)
