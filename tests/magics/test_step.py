from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from tlnb.errors import BadArguments, TrainingError
from tlnb.magics.step import CellStep

X, Y = torch.ones(4, 3), torch.zeros(4)


def double(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


def test_the_body_sees_model_x_and_y_and_gives_loss() -> None:
    step = CellStep("scores = model(x)\nloss = (scores.sum(1) - y).sum()", {})
    assert step(double, X, Y).item() == 24


def test_the_body_sees_the_users_variables_as_they_are_when_it_runs() -> None:
    user: dict[str, Any] = {"weight": 1.0}
    step = CellStep("parts = [weight * x[:, i] for i in range(3)]\nloss = sum(parts).sum()", user)
    assert step(double, X, Y).item() == 12
    user["weight"] = 2.0
    assert step(double, X, Y).item() == 24
    assert set(user) - {"__builtins__"} == {"weight"}


def test_functions_and_long_strings_in_the_body() -> None:
    body = 'def part(a):\n    """Two\nlines."""\n    return (model(a) - y[:, None]).mean()\nloss = part(x)\n'
    assert CellStep(body, {})(double, X, Y).item() == 2


def test_globals_can_be_written() -> None:
    user: dict[str, Any] = {"count": 0}
    step = CellStep("global count\ncount += 1\nloss = x.sum()", user)
    step(double, X, Y)
    step(double, X, Y)
    assert user["count"] == 2


WRONG = [
    ("loss = = 2", "%%tl_step: line 1: invalid syntax: 'loss = = 2'"),
    ("a = 1\n  loss = x.sum()", "%%tl_step: line 2: unexpected indent: 'loss = x.sum()'"),
    ("a = model(x)", "%%tl_step: the body never sets loss; set it: loss = F.cross_entropy(model(x), y)"),
    ("print(loss)", "%%tl_step: the body never sets loss; set it: loss = F.cross_entropy(model(x), y)"),
    ("", "%%tl_step: the body never sets loss; set it: loss = F.cross_entropy(model(x), y)"),
    (
        "def f():\n    loss = 1",
        "%%tl_step: the body never sets loss; set it: loss = F.cross_entropy(model(x), y)",
    ),
]


@pytest.mark.parametrize(("body", "message"), WRONG)
def test_a_wrong_body_is_one_line(body: str, message: str) -> None:
    with pytest.raises(BadArguments) as caught:
        CellStep(body, {"loss": torch.zeros(())})
    assert str(caught.value) == message


def test_a_wrong_body_changes_nothing(shell: Any, tl: Any) -> None:
    good = shell.run("%%tl_step\nloss = x.sum()")
    assert repr(good) == "training step set: 1 line; %tl_step off goes back to the usual one"
    with pytest.raises(BadArguments):
        shell.run("%%tl_step\nloss = (")
    assert tl.step is good
    assert repr(shell.run("%tl_step off")) == "training step: the usual one"
    assert tl.step is None


NO_LOSS = [
    ("if x.sum() < 0:\n    loss = x.sum()", "the step of %%tl_step did not set loss for this batch"),
    ("loss = 2.0", "the step of %%tl_step set loss to a float; it must be a tensor of one number"),
    ("loss = None", "the step of %%tl_step set loss to a NoneType; it must be a tensor of one number"),
    (
        "loss = x",
        "the step of %%tl_step set loss to a Tensor of shape (4, 3); it must be a tensor of one number",
    ),
]


@pytest.mark.parametrize(("body", "message"), NO_LOSS)
def test_a_loss_that_cannot_be_used_is_one_line(body: str, message: str) -> None:
    step = CellStep(body, {"loss": torch.zeros(())})
    with pytest.raises(TrainingError) as caught:
        step(double, X, Y)
    assert str(caught.value) == message


def test_a_mistake_in_the_body_shows_the_users_line(
    shell: Any, tl: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run("%%tl_step\na = 1\nloss = undefined(x)")
    shell.user_ns["x"] = X
    shell.run_cell("tl.step(None, x, x)")
    shown = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    assert "loss = undefined(x)" in shown
    assert "NameError: name 'undefined' is not defined" in shown
