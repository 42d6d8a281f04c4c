"""From the words of a line to the arguments of a call."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from tlnb.errors import BadArguments, did_you_mean
from tlnb.magics.command import Argument, Command, Option
from tlnb.magics.line import Word, split_line, value_of
from tlnb.magics.values import read_value

Call = tuple[list[Any], dict[str, Any]]

# What the same settings are called elsewhere.
_USUAL_WORDS = {
    "learning_rate": "lr", "rate": "lr", "epoch": "epochs", "n_epochs": "epochs", "num_epochs": "epochs",
    "max_epochs": "epochs", "batch_size": "batch", "bs": "batch", "wd": "weight_decay", "validation_split": "valid",
    "val": "valid", "valid_pct": "valid", "image_size": "size", "img_size": "size", "random_state": "seed",
}  # fmt: skip


def parse(command: Command, line: str, namespace: Mapping[str, object], *, cell: bool = False) -> Call:
    """The positional and keyword arguments that ``line`` means for ``command``.

    Args:
        command: whose line it is.
        line: the text after the magic's name.
        namespace: where ``$name`` is looked up.
        cell: whether it is the line of a cell magic; its arguments by place, or one of them, come from the body.

    Raises:
        BadArguments: one line that starts with the magic and names the wrong word.
    """
    try:
        return _parse(command, line, namespace, command.by_place(cell=cell))
    except BadArguments as error:
        raise BadArguments(f"{'%' * (1 + cell)}{command.name}: {error}") from None


def _parse(
    command: Command, line: str, namespace: Mapping[str, object], arguments: Sequence[Argument]
) -> Call:
    plain: list[Word] = []
    keywords: dict[str, Any] = {}
    words = deque(split_line(line))
    while words:
        word = words.popleft()
        if not (word.is_option or command.bare):
            plain.append(word)
            continue
        option, label, value = _option(command, word, words)
        if option.keyword in keywords:
            raise BadArguments(f"{label} is given twice")
        keywords[option.keyword] = _option_value(option, label, value, namespace)
    return _positional(command, arguments, plain, namespace), keywords


def _option(command: Command, word: Word, rest: deque[Word]) -> tuple[Option, str, Word | None]:
    label, value = word.split()
    option = command.option(label.lstrip("-"))
    if option is None or (word.is_option and not label.startswith("--")):
        raise BadArguments(_unknown(command, label))
    if value is None and option.kind is not None:
        missing = not rest or rest[0].is_option
        if missing and option.alone:
            return option, label, Word(option.alone, 0)
        value = None if missing else rest.popleft()
        if value is None:
            raise BadArguments(f"{label} needs a value: {option.kind.takes}")
    return option, label, value


def _option_value(option: Option, label: str, value: Word | None, namespace: Mapping[str, object]) -> object:
    if option.kind is None:
        if value is not None:
            raise BadArguments(f"{label} takes no value, not {value.text!r}")
        return option.flag
    assert value is not None  # _option has seen to it
    return read_value(option.kind, label, value_of(value, namespace))


def _positional(
    command: Command, arguments: Sequence[Argument], words: list[Word], namespace: Mapping[str, object]
) -> list[Any]:
    values: list[Any] = []
    given, words = words, list(words)
    for argument in arguments:
        if words:
            values.append(read_value(argument.kind, argument.name, _take(argument, words, namespace)))
        elif argument.required:
            raise BadArguments(f"{argument.name} missing: {argument.kind.takes}; usage: {command.usage}")
        while argument.repeats and words:
            values.append(read_value(argument.kind, argument.name, _take(argument, words, namespace)))
    if words:
        raise BadArguments(_too_many(command, arguments, given, words[0].text))
    return values


def _take(argument: Argument, words: list[Word], namespace: Mapping[str, object]) -> object:
    first = words.pop(0)
    if not argument.several:
        return value_of(first, namespace)
    text = first.text
    while words and (text.endswith(",") or words[0].text.startswith(",")):
        text += words.pop(0).text
    return value_of(first, namespace) if text == first.text else text


def _unknown(command: Command, label: str) -> str:
    if not command.options:
        return f"there is no option {label!r}; usage: {command.usage}"
    dashes = label.startswith("-") or not command.bare
    if command.bare and label.isdigit() and command.option("epochs") is not None:
        return f"there is no key {label!r}; did you mean 'epochs {label}'?"
    if command.bare and label in ("freeze", "unfreeze", "adapt"):
        return f"there is no key {label!r}; did you mean %tl_{label}, on a line of its own?"
    meant = command.option(_USUAL_WORDS.get(label.lstrip("-").replace("-", "_").lower(), ""))
    if meant is not None:
        return f"there is no {'option' if label.startswith('-') else 'key'} {label!r}; did you mean {meant.name!r}?"
    names = [f"--{option.name}" if dashes else option.name for option in command.options]
    hint = did_you_mean(f"--{label.lstrip('-')}" if dashes else label, names)
    what = "option" if dashes else "key"
    return f"there is no {what} {label!r}" + (hint or f"; {what}s: {', '.join(names)}")


def _too_many(command: Command, arguments: Sequence[Argument], given: Sequence[Word], word: str) -> str:
    name, _, _ = word.partition("=")
    whole = " ".join(one.text for one in given)
    if arguments and arguments[0].kind.files and os.path.exists(os.path.expanduser(whole)):
        return f'blanks part words; put the name in quotes: "{whole}"'
    if command.option(name) is not None:
        return f"{word!r} is one word too many; did you mean '--{word}'?"
    if arguments and arguments[-1].several:
        return f"{word!r} is one word too many; commas join several: 0,1"
    return f"{word!r} is one word too many; usage: {command.usage}"
