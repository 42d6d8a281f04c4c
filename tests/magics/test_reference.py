"""The reference page is complete, and is what the table of commands makes now."""

from __future__ import annotations

import re
from pathlib import Path

from tlnb.magics.arguments import parse
from tlnb.magics.commands import COMMANDS
from tlnb.magics.reference import page

FILE = Path(__file__).parents[2] / "REFERENCE.md"


def test_the_page_is_up_to_date() -> None:
    again = "run: python -m tlnb.magics.reference > REFERENCE.md"
    assert FILE.read_text(encoding="utf-8") == page(), again


def test_the_page_holds_every_command_option_and_example() -> None:
    text = page()
    for command in COMMANDS.values():
        section = text.split(f"## {command.name}\n")[1].split("\n## ")[0]
        assert command.usage in section
        assert all(f"`{'' if command.bare else '--'}{o.name}" in section for o in command.options)
        assert all(code in section for code, _ in command.examples)


def test_the_commands_for_newcomers_are_right_lines() -> None:
    text = (FILE.parent / "COMING_FROM.md").read_text(encoding="utf-8")
    lines = re.findall(r"`%(tl_\w+)([^`]*)`", text)
    assert len(lines) > 30
    for name, rest in lines:
        parse(COMMANDS[name], rest, {"net": object(), "loader": object()}, cell=False)
