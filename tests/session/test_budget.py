"""A budget of time: what is said before anything runs, the best plan that fits, and what is too small."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from faults.calls import facts
from networks import blobs, small

from tlnb.engine.advice.pace import measure_pace, plan_within, seconds_of, show_seconds
from tlnb.engine.training.plan import Traits, parse_plan
from tlnb.errors import BadArguments
from tlnb.session import Session


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))


class Heard:
    """Keeps what is said and when the first epoch ended."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def on_message(self, text: str) -> None:
        self.events.append(text)

    def on_walk(self, what: str, done: int, total: int) -> None:
        self.events.append(f"walk: {what}")

    def on_epoch(self, *what: Any) -> None:
        self.events.append("an epoch")


def session(heard: Heard | None = None) -> Session:
    found = blobs(90, 3)
    tl = Session([] if heard is None else [heard])
    tl.load(small(3), input="1,8,8")
    tl.data((found.inputs, found.targets))
    return tl


def test_what_a_plan_takes_is_said_before_it_runs() -> None:
    heard = Heard()
    tl = session(heard)
    run = tl.train_advised(budget="1h")
    said = next(line for line in heard.events if line.startswith("it takes about"))
    assert re.fullmatch(r"it takes about [\d.]+ s of 60 min: fit head; train .*", said)
    assert heard.events.index(said) < heard.events.index("an epoch")
    assert "\n".join(stage.stage.text for stage in run.stages) == session().advise().plan
    advice = next(line for line in heard.events if line.startswith("advice takes about"))
    assert heard.events.index(advice) < heard.events.index("walk: looking at the features of every layer")


def test_advice_says_what_its_plan_takes() -> None:
    advice = session().advise()
    assert advice.plan_seconds > 0
    assert f"about {show_seconds(advice.plan_seconds)} here" in repr(advice)
    assert f"about {show_seconds(advice.plan_seconds)} here" in advice._repr_html_()


@pytest.mark.parametrize("budget", ["0.0001s", 0.0001, "0.000001min"])
def test_a_budget_that_is_too_small_says_what_is_enough(budget: object) -> None:
    tl = session()
    before = facts(tl, identity=True)
    with pytest.raises(BadArguments, match=r"fit head, takes about .* --budget \d+s is enough") as error:
        tl.train_advised(budget=budget)
    assert "\n" not in str(error.value)
    assert facts(tl, identity=True) == before
    assert not tl.history.stages


@pytest.mark.parametrize("budget", ["soon", "", -5, 0, True, "5 parsecs", [3], "1e5", "nan"])
def test_what_is_no_time_is_refused(budget: object) -> None:
    with pytest.raises(BadArguments, match="budget takes a time such as 90s, 5min"):
        session().train_advised(budget=budget)


def test_the_best_plan_that_fits() -> None:
    """What plans cost is given here; of the seven layers of convnet5 the last two and the head are the last part."""
    tl = Session([])
    tl.load("convnet5")
    layers, traits = tl.view.state.need_layers(), Traits(5, True)
    advised = "fit head\ntrain all epochs 6 lr 0.001"

    def cost(text: str) -> float:
        epochs = int((re.search(r"epochs (\d+)", text) or [0, 0])[1])
        return 1.0 + epochs * (10.0 if "train all" in text else 0.5)

    def within(budget: float) -> str | None:
        found = plan_within(advised, layers, 500, traits, budget, cost)
        assert found is None or found[1] == cost(found[0]) <= budget / 1.2
        return None if found is None else found[0]

    assert within(74) == advised
    assert within(73) == advised.replace("epochs 6", "epochs 5")
    assert within(26) == advised.replace("epochs 6", "epochs 2")
    assert within(25).startswith("fit head\ntrain 5: epochs 5 ")
    assert within(3.1).startswith("fit head\ntrain 5: epochs 3 ")
    assert within(2.0) == "fit head"
    assert within(1.1) is None


def test_a_plan_costs_more_with_more_epochs_and_less_behind_a_cut() -> None:
    tl = Session([])
    tl.load("convnet5")
    tl.data("digits", per_class=10)
    layers, samples = tl.view.state.need_layers(), tl.view.need_samples()[0]
    weights = {name: tensor.clone() for name, tensor in tl.model.state_dict().items()}
    pace = measure_pace(tl.model, "classifier.7", layers, samples, tl.device)
    assert all(tensor.equal(tl.model.state_dict()[name]) for name, tensor in weights.items())
    assert min(pace.read, pace.forward, pace.step, pace.solver) > 0
    assert pace.width == 256

    def cost(text: str) -> float:
        return seconds_of(parse_plan(text, layers, ()), pace, layers, (1000, 200), 10, 32)

    adapting = cost("fit head\nadapt all bias epochs 6 lr 1e-3") - cost("fit head")
    assert cost("train all epochs 6 lr 1e-3") / 2 < adapting < cost("train all epochs 6 lr 1e-3")
    three, six = cost("train all epochs 3 lr 1e-3"), cost("train all epochs 6 lr 1e-3")
    assert six == pytest.approx(2 * three)
    assert three >= 3 * 1000 * pace.step
    assert cost("train 5: epochs 30 lr 1e-3") < cost("train all epochs 30 lr 1e-3")
    assert cost("fit head") < cost("fit head\ntrain all epochs 1 lr 1e-3 init soft")
    assert cost("train all epochs 3") > three  # the range test


def test_the_magic_takes_a_time(shell: Any) -> None:
    shell.run_line_magic("load_ext", "tlnb")
    tl = shell.user_ns["tl"]
    tl.listeners = []
    found = blobs(60, 3)
    tl.load(small(3), input="1,8,8")
    tl.data((found.inputs, found.targets))
    for line in ("--budget 0.0001s", "budget 0.0001s", "--advised --budget 0.0001s"):
        with pytest.raises(BadArguments, match="is enough"):
            shell.run_line_magic("tl_train", line)
    run = shell.run_line_magic("tl_train", "--budget 1h --no-cache")
    assert run.stages[0].stage.text == "fit head"
