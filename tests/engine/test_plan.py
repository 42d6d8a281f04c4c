import pytest
import torch
from networks import small

from tlnb.engine.network.layers import find_layers
from tlnb.engine.training.plan import one_stage, parse_plan
from tlnb.errors import PlanError

LAYERS = find_layers(small(), torch.zeros(1, 1, 8, 8))


def test_each_line_changes_what_the_line_before_left():
    stages = parse_plan(
        """
        freeze body      epochs 3       # only the head
        unfreeze -2:     epochs 2   lr auto
        train 0,3        lr 1e-4  decay 2.6
        unfreeze all     optimizer=sgd momentum=0.8 schedule cosine patience 2 precision bf16
        """,
        LAYERS,
        (),
    )
    assert [s.frozen for s in stages] == [(0, 1, 2), (0, 1), (1, 2), ()]
    assert [s.epochs for s in stages] == [3, 2, 1, 1]
    assert (stages[1].lr, stages[2].lr, stages[2].decay) == (None, 1e-4, 2.6)
    last = stages[3]
    assert (last.optimizer, last.momentum, last.schedule, last.patience) == ("sgd", 0.8, "cosine", 2)


def test_fit_trains_the_head_alone_and_what_comes_after_starts_from_there():
    fit, after = parse_plan(
        "fit head guard off\nunfreeze 2 init zero blend 0.5 bn frozen", LAYERS, (0,), {"epochs": 4}
    )
    assert (fit.kind, fit.frozen, fit.epochs, fit.lr, fit.guard) == ("fit", (0, 1, 2), 1, None, False)
    assert (after.kind, after.frozen, after.epochs) == ("train", (0, 1), 4)
    assert (after.init, after.blend, after.bn, after.guard) == ("zero", 0.5, "frozen", True)


def test_it_starts_from_what_is_frozen_and_takes_defaults():
    (stage,) = parse_plan("unfreeze 1  batch 8", LAYERS, (0, 1), {"epochs": "4", "batch": 2})
    assert (stage.frozen, stage.epochs, stage.batch) == ((0,), 4, 8)


def test_addresses_may_hold_spaces_after_commas():
    assert parse_plan("freeze 0, 1, 2 epochs 1", LAYERS, ())[0].frozen == (0, 1, 2)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("freez body", "line 1 ('freez body'): a stage starts with freeze, unfreeze, train, fit or adapt, not 'freez'"),
        ("freeze", "line 1 ('freeze'): freeze needs layers, such as: freeze body"),
        ("freeze epochs 3", "line 1 ('freeze epochs 3'): freeze needs layers, such as: freeze body"),
        ("freeze body epochs two", "epochs takes a whole number from 1 up, not 'two'"),
        ("freeze body epochs 0", "epochs takes a whole number from 1 up, not '0'"),
        ("freeze body epochs 2.5", "epochs takes a whole number from 1 up, not '2.5'"),
        ("freeze body epochs", "epochs needs a value: a whole number from 1 up"),
        ("freeze body epoch 3", "unknown key 'epoch'; did you mean 'epochs'?"),
        ("freeze body lr fast", "lr takes auto or a number above 0, not 'fast'"),
        ("freeze body lr -1", "lr takes auto or a number above 0, not '-1'"),
        ("freeze body lr nan", "lr takes auto or a number above 0, not 'nan'"),
        ("freeze body decay 0.5", "decay takes a number from 1 up, not '0.5'"),
        ("freeze body optimizer adam", "optimizer takes one of adamw, sgd, not 'adam'; did you mean 'adamw'?"),
        ("freeze body smoothing 1", "smoothing takes a number from 0 to below 1, not '1'"),
        ("freeze body epochs 1 epochs 2", "epochs is given twice"),
        ("freeze all", "nothing would train: every layer is frozen"),
        ("train none", "nothing would train"),
        ("unfreeze haed", "nearest: 'head'"),
        ("fit", "fit needs layers, such as: fit head"),
        ("fit body", "what can be fitted is the head alone: fit head"),
        ("fit all", "what can be fitted is the head alone: fit head"),
        ("fit head epochs 2", "fit has no epochs; it takes augment, views, guard"),
        ("fit head lr 1e-3", "fit has no lr; it takes augment, views, guard"),
        ("freeze body bn on", "bn takes one of auto, train, frozen, not 'on'"),
        ("freeze body init he", "init takes one of keep, soft, zero, not 'he'"),
        ("freeze head init zero", "init zero changes the head, which is frozen here; unfreeze it, or leave"),
        ("freeze body blend 2", "blend takes none, auto or a number from 0 to 1, not '2'"),
        ("freeze body blend nan", "blend takes none, auto or a number from 0 to 1, not 'nan'"),
        ("freeze body guard yes", "guard takes on, off or strict, not 'yes'"),
        ("", "the plan has no stage"),
        ("# nothing", "the plan has no stage"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_one_clear_line(line, message):
    with pytest.raises(PlanError) as caught:
        parse_plan(line, LAYERS, ())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_third_line_is_named_by_its_number():
    with pytest.raises(PlanError, match=r"^line 3 \('unfreeze 9:12'\)"):
        parse_plan("freeze body\nunfreeze 2\nunfreeze 9:12", LAYERS, ())


def test_python_values_are_read_like_text():
    stage = one_stage("now", LAYERS, (0,), {"epochs": 2, "lr": 0.1, "optimizer": "sgd"})
    assert (stage.epochs, stage.lr, stage.optimizer) == (2, 0.1, "sgd")
    with pytest.raises(PlanError, match="epochs takes a whole number"):
        one_stage("now", LAYERS, (0,), {"epochs": True})
