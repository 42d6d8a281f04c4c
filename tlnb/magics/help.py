"""The help of a command, made from the table: what ``%tl_freeze?`` shows."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from functools import partial

from tlnb.magics.command import Command, Option

_wrapped = partial(textwrap.fill, break_on_hyphens=False)  # so that --per-class stays whole
_WIDTH = 72  # a page of 700 pixels holds so many letters beside the prompt


def help_text(command: Command) -> str:
    """Summary, usage, arguments, options, details and examples, as plain text."""
    parts = [_wrapped(command.summary, _WIDTH), _usage(command)]
    if command.arguments:
        parts.append(_entries((a.name.upper(), a.help) for a in command.arguments))
    if command.options:
        head = "Keys (--key value and key=value mean the same):\n" if command.bare else "Options:\n"
        parts.append(head + _entries((_written(o, command.bare), _meaning(o)) for o in command.options))
    if command.details:
        parts.extend(_wrapped(" ".join(p.split()), _WIDTH) for p in command.details.split("\n\n"))
    parts.append("Examples:\n" + "\n".join(_example(code, says) for code, says in command.examples))
    parts.append(f"In Python: {python_call(command)}")
    return "\n\n".join(parts)


def python_call(command: Command) -> str:
    """The same call on the session, as one would write it in Python."""
    if command.cell and command.cell == command.target and not command.body_as:
        return f"tl.{command.target} = function"
    if command.read_only:
        return f"tl.{command.target}"
    words = [f"*{a.name}" if a.repeats else a.name for a in command.arguments]
    words += [f"{option.keyword}=" for option in command.options]
    shown = [*words[:3], "..."] if len(words) > 3 else words
    call = f"tl.{command.target}({', '.join(shown)})"
    return f"{call}, tl.{command.cell}(text)" if command.cell and not command.body_as else call


def _usage(command: Command) -> str:
    lines = [f"    {command.usage}"]
    if command.cell:
        text = f"%%{command.name}: the cell body is {command.body}"
        lines.append(_wrapped(text, _WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 8))
    return "\n".join(lines)


def _written(option: Option, bare: bool) -> str:
    name = option.name if bare else f"--{option.name}"
    return f"{name} {option.kind.sign}" if option.kind else name


def _meaning(option: Option) -> str:
    return f"{option.help} (default: {option.default})" if option.default else option.help


def _entries(pairs: Iterable[tuple[str, str]]) -> str:
    rows = list(pairs)
    width = min(max(len(name) for name, _ in rows), 24)
    lines = []
    for name, meaning in rows:
        if len(name) > width:
            lines.append(f"    {name}\n{_fill(meaning, width + 6)}")
        else:
            lead = f"    {name:<{width}}  "
            lines.append(_wrapped(meaning, _WIDTH, initial_indent=lead, subsequent_indent=" " * (width + 6)))
    return "\n".join(lines)


def _fill(text: str, indent: int) -> str:
    return _wrapped(text, _WIDTH, initial_indent=" " * indent, subsequent_indent=" " * indent)


def _example(code: str, says: str) -> str:
    if "\n" in code:
        return textwrap.indent(f"{code}\n", "    ") + _fill(says, 8)
    beside = f"    {code:<40}  {says}"
    return beside if len(beside) <= _WIDTH else f"    {code}\n{_fill(says, 8)}"
