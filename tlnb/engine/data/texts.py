"""Texts as they were found, and as a network takes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from tlnb.display.tables import Table
from tlnb.engine.data.column import chosen
from tlnb.engine.data.raw import RawDataset
from tlnb.engine.data.samples import Samples
from tlnb.engine.data.text_samples import TextSamples
from tlnb.engine.data.tokens import AnyPreprocess, Text, TextPreprocess
from tlnb.errors import DataError

_SHOWN = 60  # letters of a text in place of a name
NO_TEXTS = (
    "the network takes no texts; load one that does: %tl_load hf/OWNER/NAME, or give its tokenizer: "
    "%tl_load $net --tokenizer FOLDER"
)


def plain(text: Text) -> str:
    """A text as it is compared: without regard to case and space."""
    parts = (text,) if isinstance(text, str) else text
    return "\0".join(" ".join(part.casefold().split()) for part in parts)


def shown(text: Text) -> str:
    """A text, or a pair of sentences, in one line."""
    return " ".join((text if isinstance(text, str) else " | ".join(text)).split())


class Texts(RawDataset):
    """Texts, in memory or in a file that is mapped into it.

    Args:
        texts: each a text, or a pair of sentences.
        targets: of shape (N,) or (N, outputs).
        rows: number of each sample; None for the order of the texts.
        names: of the texts, such as their files; None where they have none.
    """

    equal = "equal (but for case and space)"

    kind = "texts"

    def __init__(
        self,
        texts: Sequence[Text],
        targets: Tensor,
        rows: Tensor | None = None,
        names: Sequence[Path | str] | None = None,
    ):
        self.texts, self.targets, self.names = texts, targets, names
        self.rows = torch.arange(len(texts)) if rows is None else rows

    def subset(self, indices: Tensor) -> Texts:
        """These texts only."""
        return Texts(self.texts, self.targets[indices], self.rows[indices], self.names)

    def all(self) -> list[Text]:
        """The texts in order, in memory."""
        return list(self.in_place())

    def in_place(self) -> Sequence[Text]:
        """The same where they lie, in memory or in a file."""
        return chosen(self.texts, self.rows.numpy())

    def prepare(
        self, preprocess: AnyPreprocess, on_broken: Callable[[str, str], None] = lambda name, reason: None
    ) -> Samples:
        """Cut into tokens at once.

        Raises:
            DataError: the network takes something else.
        """
        if not isinstance(preprocess, TextPreprocess):
            raise DataError(NO_TEXTS)
        return TextSamples(self.in_place(), self.targets, preprocess)

    def digests(self) -> list[bytes | None]:
        """Of each text without regard to case and space."""
        return [hashlib.blake2b(plain(text).encode(), digest_size=16).digest() for text in self.in_place()]

    def content(self, index: int) -> bytes | None:
        """Of the text without regard to case and space."""
        return self.subset(torch.tensor([index])).digests()[0]

    def name(self, index: int) -> str:
        """The file of a text, or its beginning."""
        row = int(self.rows[index])
        if self.names is not None:
            return str(self.names[row])
        text = shown(self.texts[row])
        return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"

    def path(self, index: int) -> Path | None:
        """The file of a sample, where it is one."""
        name = None if self.names is None else self.names[int(self.rows[index])]
        return name if isinstance(name, Path) else None


class TextTable:
    """Training texts as the network sees them.

    Attributes:
        rows: for each text what it is, its tokens, and those that are cut off.
        text: what is said above them.
    """

    def __init__(self, rows: Sequence[tuple[str, list[str], list[str]]], text: str):
        self.rows, self.text = tuple(rows), text

    @property
    def titles(self) -> tuple[str, ...]:
        """What each text is."""
        return tuple(row[0] for row in self.rows)

    @property
    def table(self) -> Table:
        """A line a text; what stands behind ✂ is cut off."""
        lines = [(title, len(seen), _line(seen, cut)) for title, seen, cut in self.rows]
        return Table(("is", "tokens", "as the network sees it"), lines, align="<><")

    def __repr__(self) -> str:
        return f"{self.text}\n{self.table!r}"

    def _repr_html_(self) -> str:
        from html import escape

        text = "<br>".join(escape(line) for line in self.text.splitlines())
        return f"<div>{text}</div>{self.table._repr_html_()}"


def _line(seen: list[str], cut: list[str]) -> str:
    return " ".join(seen) + (f" ✂ {' '.join(cut)}" if cut else "")
