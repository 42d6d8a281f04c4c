"""How stages end: guarded, blended, with statistics that stay; and the plan that runs where nothing is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from networks import blobs, small
from torch import nn

from tlnb.engine.training import ending
from tlnb.engine.training.history import Run
from tlnb.engine.training.plan import Traits
from tlnb.session import Session

RUIN = "unfreeze all epochs 1 lr 3 schedule constant"


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))


def session(count: int = 90) -> Session:
    tl = Session([])
    tl.load(small(2, seed=4), input="1,8,8")
    tl.data((blobs(count).inputs, blobs(count).targets))
    return tl


def state(tl: Session) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in tl.model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


# ---------------------------------------------------------------- the guard


def test_a_stage_that_ends_worse_is_taken_back_and_that_is_said() -> None:
    tl = session()
    tl.run("fit head")
    before, score = state(tl), tl.history.stages[0].final
    run = tl.run(RUIN)
    (stage,) = run.stages
    assert stage.records[-1].accuracy < score.accuracy - 0.2  # type: ignore[union-attr]
    assert same(before, state(tl))
    assert (stage.share, stage.final, run.accuracy) == (0.0, score, score.accuracy)  # type: ignore[union-attr]
    said = "was worse ("
    assert said in stage.note
    assert "so the network is that of stage 1 again; guard off keeps" in stage.note
    assert said in repr(run)
    assert f"accuracy {100 * score.accuracy:.1f} % on validation" in repr(run)  # type: ignore[union-attr]
    # What comes next is compared with what the network is now.
    assert tl.run("freeze body epochs 1 lr 1e-9").stages[0].before == score
    assert tl.undo()
    assert tl.undo()
    assert len(tl.history.stages) == 1


def test_without_a_guard_it_stays() -> None:
    tl = session()
    tl.run("fit head")
    before = state(tl)
    run = tl.run(f"{RUIN} guard off")
    assert not same(before, state(tl))
    assert (run.stages[0].share, run.stages[0].ending, run.stages[0].note) == (1.0, None, "")


def test_the_first_stage_and_one_on_other_data_have_nothing_to_be_compared_with() -> None:
    tl = session()
    run = tl.run(RUIN)
    assert (run.stages[0].before, run.stages[0].share) == (None, 1.0)
    tl.undo()
    tl.run("fit head")
    tl.data((blobs(60, seed=3).inputs, blobs(60, seed=3).targets))
    assert tl.run(RUIN).stages[0].before is None


def test_after_a_change_by_hand_the_old_score_does_not_count() -> None:
    tl = session()
    tl.run("fit head")
    with torch.no_grad():
        tl.model.head.bias[0] += 1.0
    assert tl.run("freeze body epochs 1 lr 1e-3").stages[0].before is None


def test_a_hair_worse_is_not_worse() -> None:
    record = session().run("fit head").stages[0].final
    assert record is not None
    half = replace(record, accuracy=0.5)
    for accuracy, worse in ((0.49, False), (0.46, False), (0.44, True), (float("nan"), True)):
        assert ending._worse(replace(record, accuracy=accuracy), half, 100, ending.WORSE) is worse


# ---------------------------------------------------------------- blends


def test_a_blend_is_taken_between_the_two_ends() -> None:
    tl, whole = session(), session()
    for each in (tl, whole):
        each.run("fit head")
    start = state(tl)
    plan = "unfreeze all epochs 1 lr 0.01 guard off"
    whole.run(plan)
    end = state(whole)
    (stage,) = tl.run(f"{plan} blend 0.25").stages
    for name, tensor in state(tl).items():
        middle = torch.lerp(start[name], end[name], 0.25) if tensor.is_floating_point() else end[name]
        assert torch.equal(tensor, middle), name
    assert (stage.share, stage.note) == (0.25, "kept 0.25 of what it learned")
    loss, score = measured(tl)
    assert (stage.final.valid_loss, stage.final.accuracy) == pytest.approx((loss, score))  # type: ignore[union-attr]
    assert stage.records[-1].valid_loss == whole.history[-1].valid_loss


def measured(tl: Session) -> tuple[float, float]:
    from tlnb.engine.training.passes import measure

    return measure(tl.model, tl._samples[1], tl._data.task, tl.device)  # type: ignore[index, union-attr]


@pytest.mark.parametrize(
    ("scores", "share"),
    [
        ({0.25: 0.8, 0.5: 0.8, 0.75: 0.8, 1.0: 0.8}, 1.0),
        ({0.25: 0.82, 0.5: 0.81, 0.75: 0.8, 1.0: 0.8}, 1.0),  # by luck
        ({0.25: 0.9, 0.5: 0.95, 0.75: 0.8, 1.0: 0.5}, 0.5),
        ({0.25: 0.9, 0.5: 0.9, 0.75: 0.2, 1.0: 0.5}, 0.5),  # of equal ones the larger
    ],
)
def test_auto_takes_the_share_that_is_clearly_best(
    monkeypatch: pytest.MonkeyPatch, scores: dict[float, float], share: float
) -> None:
    tl = session()
    put, at = ending._Ends.put, [1.0]
    monkeypatch.setattr(
        ending._Ends, "put", lambda self, share: (at.__setitem__(0, share), put(self, share))[1]
    )

    def scored(trainer: object, stop: object = None) -> tuple[float, float]:
        return 1.0, scores[at[0]]

    monkeypatch.setattr("tlnb.engine.training.trainer.StageTrainer.evaluate", scored)
    (stage,) = tl.run("unfreeze all epochs 1 lr 0.01 blend auto").stages
    assert stage.share == share
    assert stage.accuracy == scores[share]
    assert ("by validation" in stage.note) is (share < 1)


@pytest.mark.parametrize(
    ("guard", "score", "loss", "stays"),
    [
        ("on", 0.80, 2.0, True),
        ("on", 0.76, 2.0, True),  # within a standard error of 90 samples
        ("on", 0.70, 2.0, False),
        ("strict", 0.80, 0.5, False),
        ("strict", 0.83, 0.5, False),
        ("strict", 0.90, 0.5, True),
        ("strict", 0.90, 1.5, False),  # more right answers, and a higher loss
        ("off", 0.10, 9.0, True),
    ],
)
def test_a_strict_guard_asks_for_more_than_luck(
    monkeypatch: pytest.MonkeyPatch, guard: str, score: float, loss: float, stays: bool
) -> None:
    tl, found = session(450), [(1.0, 0.8)]
    assert len(tl.view.need_samples()[1]) == 90
    monkeypatch.setattr(
        "tlnb.engine.training.trainer.StageTrainer.evaluate", lambda trainer, stop=None: found[-1]
    )
    tl.run("fit head")
    before = state(tl)
    found.append((loss, score))
    run = tl.run(f"unfreeze all epochs 1 lr 0.01 guard {guard}")
    (stage,) = run.stages
    assert ("stage 2 was not clearly better and is taken back" in repr(run)) is (
        guard == "strict" and not stays
    )
    assert same(before, state(tl)) is not stays
    assert stage.share == float(stays)
    surer = "surer of its mistakes: the loss on validation went from 1 to 1.5 (80.0 % → 90.0 %)" in stage.note
    assert surer is (guard == "strict" and loss > 1)
    assert ("not better by more than luck" in stage.note) is (guard == "strict" and not stays and not surer)
    assert stage.stage.guard == {"on": True, "off": False}.get(guard, guard)


def test_thirty_right_answers_of_thirty_are_no_certainty() -> None:
    """One wrong answer of a thousand is within the error of none; the plain error of a share of 1 is zero."""
    tl = session()
    tl.run("freeze body epochs 1 lr 1e-9")
    record = tl.history.stages[0].final
    assert record is not None
    perfect, almost = replace(record, accuracy=1.0), replace(record, accuracy=0.9995)
    assert not ending._worse(almost, perfect, 1000, 1.0)
    assert ending._worse(replace(record, accuracy=0.99), perfect, 1000, 1.0)


# ---------------------------------------------------------------- statistics


def statistics(tl: Session) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in state(tl).items() if "running" in name or "tracked" in name}


class Deep(nn.Module):
    """Twelve norm layers."""

    def __init__(self) -> None:
        super().__init__()
        norms = [part for _ in range(12) for part in (nn.BatchNorm1d(64), nn.Tanh())]
        self.body, self.head = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), *norms), nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


@pytest.mark.parametrize("network", [lambda: small(2, seed=4), Deep])
def test_frozen_statistics_stay_bit_equal_and_auto_is_what_the_network_asks_for(network: object) -> None:
    moved = {}
    for bn in ("frozen", "train", "auto"):
        tl = Session([])
        tl.load(network(), input="1,8,8")  # type: ignore[operator]
        tl.data((blobs(40).inputs, blobs(40).targets))
        before = statistics(tl)
        (stage,) = tl.run(f"unfreeze all epochs 1 lr 1e-3 bn {bn}").stages
        moved[bn] = not same(before, statistics(tl))
        weight = next(m for m in tl.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)).weight
        assert not torch.equal(weight, torch.ones_like(weight)), "the norm itself trains"
        if bn == "auto":
            assert stage.recipe.bn == Traits.of(tl.model, trained=True).bn
    deep = network is Deep
    assert moved == {"frozen": False, "train": True, "auto": not deep}


# ---------------------------------------------------------------- nothing said


class Deeper(nn.Module):
    """Eleven convolutions that have biases and no norms, in two parts, and a head."""

    def __init__(self, *, bias: bool = True) -> None:
        super().__init__()
        wide = [nn.Conv2d(4, 4, 3, padding=1, bias=bias) for _ in range(10)]
        self.one = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, bias=bias), nn.Tanh())
        self.two = nn.Sequential(*(part for layer in wide for part in (layer, nn.Tanh())))
        self.head = nn.Linear(36, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.two(self.one(x)).flatten(1))


def deeper(*, bias: bool = True, held: str = "") -> Session:
    torch.manual_seed(0)
    tl, model = Session([]), Deeper(bias=bias)
    if held:
        model.get_parameter(held).requires_grad_(False)
    tl.load(model, input="1,8,8")
    tl.data((blobs(200).inputs, blobs(200).targets))
    return tl


def lines(run: Run) -> list[str]:
    return [stage.stage.text.split(" epochs")[0] for stage in run.stages]


def test_a_network_near_to_the_data_adapts_its_biases_first() -> None:
    tl = deeper()
    weights = {name: t for name, t in state(tl).items() if name.endswith("weight") and "head" not in name}
    run = tl.train()
    assert [stage.stage.text for stage in run.stages] == [
        "fit head", "adapt all bias epochs 10 lr 0.001 init soft",
        "train all epochs 10 lr 0.0003 init soft blend auto guard strict",
    ]  # fmt: skip
    assert run.stages[1].digest_before == run.stages[1].digest_after != ""
    stayed = all(torch.equal(tl.model.get_parameter(name), t) for name, t in weights.items())
    assert stayed is (run.stages[2].share == 0.0)
    assert set(tl.model.state_dict()) == set(Deeper().state_dict())


def test_what_is_frozen_is_not_adapted() -> None:
    tl = deeper()
    tl.freeze("one")
    run = tl.train()
    last = f"{len(tl.view.need_layers()) - 1}"
    assert lines(run)[0] == "fit head"
    assert [line.split()[0] for line in lines(run)] == ["fit", "adapt", "train"]
    assert all(stage.digest_before == stage.digest_after != "" for stage in run.stages)
    assert not any(line.split()[1] == "all" for line in lines(run)[1:])
    assert last not in run.stages[1].frozen_names


def test_a_bias_that_its_owner_holds_is_not_adapted_and_does_not_move() -> None:
    tl = deeper(held="two.4.bias")
    before = tl.model.get_parameter("two.4.bias").clone()
    tl.train()
    assert torch.equal(tl.model.get_parameter("two.4.bias"), before)


@pytest.mark.parametrize("advised", [True, False])
def test_where_layers_are_adapted_otherwise_the_plan_trains_them_at_once(advised: bool) -> None:
    tl = deeper()
    tl.run("adapt all rank 1 epochs 1 lr 1e-3 guard off")
    tl.unfreeze("all")
    if not advised:
        tl.data((blobs(160, seed=2).inputs, blobs(160, seed=2).targets))
        tl.head("linear")
    run = tl.train_advised() if advised else tl.train()
    assert not any("bias" in line for line in lines(run))


def test_where_there_is_no_bias_nothing_is_adapted() -> None:
    assert not any("adapt" in line for line in lines(deeper(bias=False).train()))


@pytest.mark.parametrize(
    ("metric", "before", "after", "worse"),
    [
        ("accuracy", 0.80, 0.77, False),  # within the error of 90 samples
        ("accuracy", 0.80, 0.70, True),
        ("rmse", 0.002, 0.010, True),  # less is better, in units of the data
        ("rmse", 5000.0, 5100.0, True),
        ("rmse", 0.010, 0.002, False),
        ("r2", -3.0, -3.1, True),
    ],
)
def test_scores_in_units_of_the_data_have_no_error_of_a_share(
    metric: str, before: float, after: float, worse: bool
) -> None:
    tl = session()
    tl.run("freeze body epochs 1 lr 1e-9")
    record = tl.history.stages[0].final
    assert record is not None
    one, other = (replace(record, accuracy=score, metric_name=metric) for score in (after, before))
    assert ending._worse(one, other, 90, ending.WORSE) is worse


def test_where_no_score_is_defined_the_loss_alone_decides() -> None:
    tl = session()
    tl.run("freeze body epochs 1 lr 1e-9")
    record = tl.history.stages[0].final
    assert record is not None
    before = replace(record, accuracy=float("nan"), metric_name="auroc", valid_loss=1.0)
    assert ending._better(replace(before, valid_loss=0.5), before, 90)
    assert not ending._better(replace(before, valid_loss=1.5), before, 90)


def test_a_strict_guard_takes_the_blend_that_is_better_where_the_end_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tl = session(450)
    put, at = ending._Ends.put, [1.0]
    monkeypatch.setattr(
        ending._Ends, "put", lambda self, share: (at.__setitem__(0, share), put(self, share))[1]
    )
    scores = {0.0: (1.0, 0.80), 0.25: (0.9, 0.83), 0.5: (0.7, 0.87), 0.75: (0.9, 0.85), 1.0: (0.9, 0.82)}
    monkeypatch.setattr(
        "tlnb.engine.training.trainer.StageTrainer.evaluate", lambda trainer, stop=None: scores[at[0]]
    )
    at[0] = 0.0
    tl.run("fit head")
    at[0] = 1.0
    (stage,) = tl.run("unfreeze all epochs 1 lr 0.01 blend auto guard strict").stages
    assert (stage.share, stage.accuracy) == (0.5, 0.87)


def test_with_nothing_said_the_head_is_fitted_and_the_rest_trained_from_a_soft_one() -> None:
    tl = session()
    run = tl.train()
    assert [stage.stage.text for stage in run.stages] == [
        "fit head", "train all epochs 16 lr 0.001 init soft blend auto"
    ]  # fmt: skip
    again = tl.train()
    assert [stage.stage.text for stage in again.stages] == ["train all epochs 16 lr 0.001 blend auto"]


def test_with_a_setting_it_stays_one_stage_of_what_is_unfrozen() -> None:
    tl = session()
    tl.freeze("body")
    (stage,) = tl.train(lr=1e-3).stages
    assert (stage.stage.kind, stage.stage.epochs, stage.stage.frozen) == ("train", 1, (0, 1, 2))


def test_a_frozen_body_or_head_stays_and_a_step_of_ones_own_is_what_trains() -> None:
    tl = session()
    tl.freeze("body")
    assert [stage.stage.text for stage in tl.train().stages] == ["fit head"]
    tl = session()
    tl.freeze("head")
    assert not tl.model.head.weight.any()
    assert [stage.stage.kind for stage in tl.train().stages] == ["train"]
    assert not tl.model.head.weight.any()
    tl = session()
    tl.step = lambda model, x, y: nn.functional.cross_entropy(model(x), y)
    assert [stage.stage.kind for stage in tl.train().stages] == ["train"]
