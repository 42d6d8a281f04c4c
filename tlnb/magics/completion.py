"""What the Tab key offers on a tlnb line: models, data, layers, options, keys and their values."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from IPython.core.completer import SimpleCompletion, context_matcher

from tlnb.engine.training.stage import FIT, FIT_KEYS
from tlnb.errors import BadArguments
from tlnb.magics.advice_commands import CV
from tlnb.magics.command import Command, Option
from tlnb.magics.commands import COMMANDS
from tlnb.magics.line import Word, split_line
from tlnb.magics.magics import TlMagics
from tlnb.magics.training_commands import TRAIN
from tlnb.magics.values import Kind

_VERBS = ("freeze", "unfreeze", "train", FIT, "adapt")
_LAYERS = ("body", "head", "all", "none")
_FILES = "IPCompleter.file_matcher"
# "curve = %tl_lr --ru": an assignment and the percent signs may stand before the name.
_LINE = re.compile(r"\s*(?:[\w., ]+=\s*)?%{0,2}(?P<name>tl_\w+)\s(?P<rest>.*)", re.DOTALL)


@dataclass(frozen=True)
class Offer:
    """What could stand at the cursor.

    Args:
        fragment: the text before the cursor that is replaced.
        words: whole words, of which those that start with the fragment are shown.
        kind: what they are, shown beside them in JupyterLab.
        files: whether a file could stand there too.
    """

    fragment: str
    words: tuple[str, ...]
    kind: str
    files: bool = False

    @property
    def matches(self) -> list[str]:
        """The words that go on from the fragment."""
        return [word for word in self.words if word.startswith(self.fragment)]


class TlCompleter:
    """Offers words on the lines of a shell's magics.

    Args:
        magics: whose session is asked for its layers; a session is not made for that.
    """

    def __init__(self, magics: TlMagics) -> None:
        self._magics = magics

    @context_matcher()
    def match(self, context: Any) -> Any:
        """A matcher of IPython's completer (version 2 of its interface)."""
        offer = self.offer(context.full_text, context.cursor_line, context.text_until_cursor)
        if offer is None or not offer.matches:
            return {"completions": []}
        return {
            "completions": [SimpleCompletion(text=word, type=offer.kind) for word in offer.matches],
            "matched_fragment": offer.fragment,
            "suppress": True,
            "do_not_suppress": {_FILES} if offer.files else set(),
            "ordered": True,
        }

    def offer(self, cell: str, line_number: int, line: str) -> Offer | None:
        """What could stand at the end of ``line``, the text before the cursor in that line of the cell."""
        try:
            if line_number and cell.lstrip().startswith((f"%%{TRAIN.name}", f"%%{CV.name}")):
                return self._plan(*_words_and_fragment(line))
            found = _LINE.fullmatch(line)
            command = COMMANDS.get(found["name"]) if found else None
            if found is None or command is None:
                return None
            return self._command(command, *_words_and_fragment(found["rest"]))
        except BadArguments:  # a quote that is still open
            return None

    def _plan(self, words: Sequence[Word], fragment: str) -> Offer | None:
        if not words:
            return Offer(fragment, _VERBS, "verb")
        if len(words) == 1 or words[-1].text.endswith(","):
            return Offer(fragment, ("head",), "layer") if words[0].text == FIT else self._layers(fragment)
        keys = FIT_KEYS if words[0].text == FIT else None
        return self._bare(TRAIN, words[2:], fragment, keys)

    def _command(self, command: Command, words: Sequence[Word], fragment: str) -> Offer | None:
        if fragment.startswith("$"):
            names = self._magics.user_names()
            return Offer(fragment, tuple(f"${name}" for name in names), "variable")
        option = _waiting(command, words)
        if option is not None and option.kind is not None:
            return self._value(option.kind, fragment, _by_place(command, words))
        if fragment.startswith("-"):
            return self._option(command, words, fragment)
        if command.bare:
            return self._bare(command, [word for word in words if not word.is_option], fragment)
        place = len(_by_place(command, words))
        if command.arguments and command.arguments[-1].repeats:
            place = min(place, len(command.arguments) - 1)
        if place < len(command.arguments):
            return self._value(command.arguments[place].kind, fragment)
        return None

    def _option(self, command: Command, words: Sequence[Word], fragment: str) -> Offer | None:
        name, equals, start = fragment.partition("=")
        option = command.option(name.lstrip("-"))
        if equals:
            placed = _by_place(command, words)
            return self._value(option.kind, start, placed) if option and option.kind else None
        used = {word.split()[0] for word in words}
        free = tuple(f"--{o.name}" for o in command.options if f"--{o.name}" not in used)
        return Offer(fragment, free, "option")

    def _bare(
        self, command: Command, words: Sequence[Word], fragment: str, keys: Collection[str] | None = None
    ) -> Offer | None:
        name, equals, start = fragment.partition("=")
        flat = [part for word in words for part in _parts(word)]
        if equals or len(flat) % 2:
            option = command.option(name if equals else flat[-1])
            return self._value(option.kind, start if equals else fragment) if option and option.kind else None
        names = [option.name for option in command.options if keys is None or option.name in keys]
        return Offer(fragment, tuple(name for name in names if name not in flat[::2]), "key")

    def _value(self, kind: Kind, fragment: str, placed: Sequence[Word] = ()) -> Offer:
        if kind.source == "layers":
            return self._layers(fragment)
        if kind.source == "models" and fragment.startswith("timm/"):
            return Offer(fragment, _timm_models(), "model")
        if kind.source == "tasks":
            return Offer(fragment, tuple(self._magics.task_names()), "task")
        if kind.source == "weights":
            return Offer(fragment, _weights(placed), "weights", kind.files)
        words = kind.choices or SOURCES.get(kind.source, tuple)()
        return Offer(fragment, tuple(words), kind.source or "value", kind.files)

    def _layers(self, fragment: str) -> Offer:
        names = tuple(self._magics.layer_names())
        return Offer(fragment.rpartition(",")[2], (*_LAYERS, *names), "layer")


def _words_and_fragment(text: str) -> tuple[tuple[Word, ...], str]:
    """The whole words before the cursor, and the piece of a word that it stands at."""
    fragment = re.split(r"\s", text)[-1]
    return split_line(text[: len(text) - len(fragment)]), fragment


def _parts(word: Word) -> tuple[str, ...]:
    key, value = word.split()
    return (key,) if value is None else (key, value.text)


def _waiting(command: Command, words: Sequence[Word]) -> Option | None:
    """The option whose value comes next, if the last word is one."""
    if not words or not words[-1].is_option or words[-1].split()[1] is not None:
        return None
    return command.option(words[-1].text.lstrip("-"))


def _by_place(command: Command, words: Iterable[Word]) -> list[Word]:
    """The words that stand by their place, options and their values left out."""
    placed, skip = [], False
    for word in words:
        if word.is_option:
            option = command.option(word.split()[0].lstrip("-"))
            skip = word.split()[1] is None and option is not None and option.kind is not None
        else:
            placed += [] if skip else [word]
            skip = False
    return placed


def _models() -> Iterable[str]:
    from tlnb.engine.models.listed import listed_names

    return listed_names()


def _timm_models() -> tuple[str, ...]:
    from tlnb.engine.models.timm_models import names  # imports timm, so only once its prefix is typed

    return names()


def _weights(placed: Sequence[Word]) -> tuple[str, ...]:
    from tlnb.engine.models.catalogue import weight_names

    return weight_names(placed[0].text if placed else "")


def _data() -> Iterable[str]:
    from tlnb.engine.data.sources.published import NAMES

    return ("digits", "glyphs", *(f"torchvision/{name}" for name in NAMES))


def _rules() -> Iterable[str]:
    from tlnb.engine.training.lr_curve import RULES

    return RULES


SOURCES: dict[str, Callable[[], Iterable[str]]] = {
    "models": _models,
    "data": _data,
    "heads": lambda: ("linear", "mlp:", "nearest", "knn:5", "all-layers"),
    "rules": _rules,
}
