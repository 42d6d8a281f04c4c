"""The reference page, made from the table of commands: ``python -m tlnb.magics.reference > REFERENCE.md``."""

from __future__ import annotations

import sys

from tlnb.magics.command import Command, Option
from tlnb.magics.commands import COMMANDS
from tlnb.magics.help import python_call

_TOP = """# Commands

Every command of tlnb, with its options. The text is that of `%tl_freeze?` and the like; it is written by
`python -m tlnb.magics.reference > REFERENCE.md` and is not edited by hand. Each magic is one call on the session
`tl`. On a magic line `$name` stands for a variable, quotes keep spaces together, and `#` starts a comment.
"""


def page() -> str:
    """The whole page as Markdown."""
    index = ", ".join(f"[`%{name}`](#{name})" for name in COMMANDS)
    return "\n".join([_TOP, index, "", *(_section(command) for command in COMMANDS.values())])


def _section(command: Command) -> str:
    parts = [f"## {command.name}", command.summary, f"```\n{command.usage}\n```"]
    if command.cell:
        parts.append(f"`%%{command.name}`: the cell body is {_safe(command.body)}.")
    if command.arguments:
        rows = [f"| `{a.name.upper()}` | {_safe(a.help)} |" for a in command.arguments]
        parts.append("\n".join(["| argument | is |", "|---|---|", *rows]))
    if command.options:
        rows = [_option(option, command.bare) for option in command.options]
        parts.append("\n".join(["| option | does | default |", "|---|---|---|", *rows]))
    if command.details:
        parts.append("\n\n".join(_safe(" ".join(p.split())) for p in command.details.split("\n\n")))
    parts.append("```\n" + "\n\n".join(f"# {says}\n{code}" for code, says in command.examples) + "\n```")
    parts.append(f"In Python: `{python_call(command)}`")
    return "\n\n".join(parts) + "\n"


def _option(option: Option, bare: bool) -> str:
    name = option.name if bare else f"--{option.name}"
    sign = f" {option.kind.sign}" if option.kind else ""
    written = f"{name}{sign}".replace("|", "\\|")
    return f"| `{written}` | {_safe(option.help)} | {_safe(option.default)} |"


def _safe(text: str) -> str:
    """Text in which Markdown sees no signs of its own."""
    for sign in "\\|*_<>$":
        text = text.replace(sign, "\\" + sign)
    return text


if __name__ == "__main__":
    sys.stdout.write(page())
