"""The table of commands against the session, the parser and the help that are made from it."""

from __future__ import annotations

import inspect

import pytest

from tlnb.engine.training.lr_curve import rule_for
from tlnb.engine.training.plan import VERBS
from tlnb.engine.training.stage import KEYS
from tlnb.magics.arguments import parse
from tlnb.magics.command import Command
from tlnb.magics.commands import COMMANDS
from tlnb.magics.help import help_text
from tlnb.magics.training_commands import LR, TRAIN
from tlnb.session import Session

ALL = pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
EXAMPLES = pytest.mark.parametrize(
    ("command", "code"),
    [(command, code) for command in COMMANDS.values() for code, _ in command.examples],
)


@ALL
def test_the_session_takes_what_the_table_says(command: Command) -> None:
    target = inspect.getattr_static(Session, command.target)
    if isinstance(target, property):
        assert command.read_only or target.fset is not None
        return
    words = ["word"] * len(command.arguments)
    keywords = dict.fromkeys((option.keyword for option in command.options), "value")
    bound = inspect.signature(target).bind("self", *words, **keywords)
    assert len(bound.args) >= 1 + len(words)
    required = [p for p in inspect.signature(target).parameters.values() if p.default is p.empty]
    positional = [p for p in required if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert len(positional) == 1 + sum(a.required and not a.repeats for a in command.arguments)


@ALL
def test_the_defaults_in_the_help_are_those_of_the_session(command: Command) -> None:
    target = inspect.getattr_static(Session, command.target)
    if isinstance(target, property):
        return
    defaults = {p.name: p.default for p in inspect.signature(target).parameters.values()}
    for option in command.options:
        said = option.default
        if said.replace(".", "").replace("e-", "").isdigit():
            assert float(said) == defaults[option.keyword]


def test_the_default_rule_in_the_help_is_that_of_the_engine() -> None:
    rule = LR.option("rule")
    assert rule is not None
    assert rule.default == f"{rule_for('one-cycle')}; {rule_for('constant')} with schedule constant"


def test_the_cell_form_takes_the_keys_too() -> None:
    keywords = dict.fromkeys((option.keyword for option in TRAIN.options), "value")
    inspect.signature(Session.run).bind("self", "text", **keywords)


def test_every_setting_of_a_stage_is_a_key() -> None:
    assert set(KEYS) == {option.name for option in TRAIN.options} - {
        "no-cache",
        "keep-best",
        "continue",
        "advised",
        "budget",
    }


@EXAMPLES
def test_an_example_is_a_right_line(command: Command, code: str) -> None:
    line, _, body = code.partition("\n")
    name, _, rest = line.rpartition("%")[2].partition(" ")
    assert name == command.name
    parse(command, rest, dict.fromkeys(("share", "net", "first", "second"), 0.5), cell=bool(body))
    if command is TRAIN and body:
        assert {part.split()[0] for part in body.splitlines()} <= set(VERBS)


@ALL
def test_the_help_holds_usage_options_and_examples(command: Command) -> None:
    text = help_text(command)
    assert " ".join(text.split()).startswith(command.summary)
    assert command.usage in text
    assert all(option.name in text for option in command.options)
    assert all(code.splitlines()[0] in text for code, _ in command.examples)
    assert f"tl.{command.target}" in text
    assert max(map(len, text.splitlines())) <= 120


def test_freeze_help_as_a_user_sees_it(shell: object, tl: object, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run("%tl_freeze?")  # type: ignore[attr-defined]
    shown = capsys.readouterr().out
    assert "%tl_freeze LAYERS" in shown
    assert "%tl_freeze 0:5                            layers 0 to 4" in shown
    assert "In Python: tl.freeze(layers)" in shown


@ALL
def test_the_help_fits_a_narrow_page(command: Command) -> None:
    """But for code, and for the names of options, which are not broken."""
    code = {line for example, _ in command.examples for line in example.splitlines()}
    long = [line.strip() for line in help_text(command).splitlines() if len(line) > 72]
    assert [line for line in long if line not in code and not line.startswith("--")] == []
