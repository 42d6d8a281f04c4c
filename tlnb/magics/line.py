"""The words of a magic line, as the user meant them.

IPython's own expansion evaluates ``{braces}``, and argparse takes ``-1:`` for an option; both are wrong for
layer addresses. The rules here are few: blanks separate words; a ``#`` that starts a word starts a comment; a
quote at the start of a word or of a value (``--data="my pictures"``) keeps blanks together and is removed;
``$name`` as a whole word is a variable, ``\\$name`` is not. Everything else is the user's text, backslashes
of Windows paths included.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tlnb.errors import BadArguments, did_you_mean

_QUOTES = "\"'"
_OPTION = re.compile(r"--?[A-Za-z]")


@dataclass(frozen=True)
class Word:
    """One word of a line.

    Args:
        text: the word without its quotes.
        plain: how many characters at its start were written without quotes or a backslash; only these can
            make it an option or a variable.
    """

    text: str
    plain: int

    @property
    def is_option(self) -> bool:
        """Whether it was written as ``--name``, ``--name=value`` or ``-n``."""
        return bool(_OPTION.match(self.text[: self.plain]))

    @property
    def variable(self) -> str | None:
        """The name after ``$`` where the whole word is a variable, else None."""
        whole = self.plain == len(self.text) and self.text.startswith("$")
        return self.text[1:] if whole and self.text[1:].isidentifier() else None

    def split(self) -> tuple[str, Word | None]:
        """Key and value of ``key=value``; the value is None where there is no ``=``."""
        place = self.text.find("=", 0, self.plain)
        if place < 0:
            return self.text, None
        return self.text[:place], Word(self.text[place + 1 :], max(self.plain - place - 1, 0))


def split_line(line: str) -> tuple[Word, ...]:
    """The words of ``line``; a comment is left out.

    Raises:
        BadArguments: a quote that is never closed.
    """
    words: list[Word] = []
    place = 0
    while place < len(line):
        if line[place].isspace():
            place += 1
        elif line[place] == "#":
            break
        else:
            word, place = _read_word(line, place)
            words.append(word)
    return tuple(words)


def _read_word(line: str, place: int) -> tuple[Word, int]:
    text = ""
    plain: int | None = None  # unknown until the first quote or backslash
    opens = True  # a quote may open at the start of a word or value, or right after another quote
    while place < len(line) and not line[place].isspace():
        char = line[place]
        if opens and char in _QUOTES:
            end = line.find(char, place + 1)
            if end < 0:
                raise BadArguments(f"the quote {char} before {line[place + 1 :]!r} is never closed")
            plain = len(text) if plain is None else plain
            text += line[place + 1 : end]
            place = end + 1
        elif opens and line.startswith("\\$", place):
            plain = len(text) if plain is None else plain
            text += "$"
            place += 2
            opens = False
        else:
            text += char
            place += 1
            opens = char == "=" and plain is None
    return Word(text, len(text) if plain is None else plain), place


def value_of(word: Word, namespace: Mapping[str, object]) -> object:
    """The variable that ``$name`` stands for, or the word's text.

    Raises:
        BadArguments: no such variable.
    """
    name = word.variable
    if name is None:
        return word.text
    if name not in namespace:
        known = [key for key in namespace if not key.startswith("_")]
        raise BadArguments(f"there is no variable {name!r}{did_you_mean(name, known)}")
    return namespace[name]
