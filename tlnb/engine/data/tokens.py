"""What has to happen to a text before a given network understands it: its tokenizer, and how long a text may be.

The tokenizer belongs to the weights as size, mean and deviation belong to those of a picture network. It is kept as the
text of its ``tokenizer.json``, so that it goes with the session, into exports and scripts.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Annotated, Any

import torch
from torch import Tensor

from tlnb.engine.core.structure import Exact, plain, whole
from tlnb.engine.core.tree import IDS, MASK, TYPES, Tree
from tlnb.engine.data.preprocess import Preprocess
from tlnb.errors import DataError, first_line

Text = str | tuple[str, str]
"""A text, or a pair of sentences."""
INPUTS = (IDS, MASK, TYPES)
NEEDS_TOKENIZERS = 'texts need the package tokenizers: pip install "tlnb[hf]"'
LONGEST = 1 << 17  # tokens
_PERCENT = 99  # of the training texts that are not cut
_COUNTED = 20_000  # texts whose lengths are looked at
_AT_ONCE = 4096  # texts that are cut into tokens together


@dataclass(frozen=True)
class TextPreprocess:
    """Cut into tokens, number them, pad.

    Args:
        tokenizer: content of a ``tokenizer.json``.
        names: inputs that the network takes: ``input_ids``, ``attention_mask``, ``token_type_ids``.
        length: tokens of the longest text, special ones counted; what is longer is cut at its end.
        most: tokens that the network has places for.
        pad: number of the token that fills up.
        fixed: pad every text to ``length``: for a network without a mask, whose answer depends on the padding.
    """

    tokenizer: Exact = field(repr=False)
    names: tuple[str, ...] = (IDS, MASK)
    length: Annotated[int, whole(1, LONGEST)] = 128
    most: Annotated[int, whole(1, LONGEST)] = 512
    pad: Annotated[int, whole(0, (1 << 31) - 1)] = 0
    fixed: bool = False

    def encode(self, texts: Sequence[Text]) -> Encoded:
        """Texts as tokens, cut to ``length``."""
        tokenizer = _tokenizer(self.tokenizer)
        tokenizer.enable_truncation(max_length=self.length)
        ids, types, lengths = array("i"), array("b"), array("q")
        for at in range(0, len(texts), _AT_ONCE):
            found = tokenizer.encode_batch([_plain(text) for text in texts[at : at + _AT_ONCE]])
            for one in found:
                ids.extend(one.ids)
                types.extend(one.type_ids)
                lengths.append(len(one.ids))
        made = (torch.frombuffer(part, dtype=kind) if part else torch.zeros(0, dtype=kind)
                for part, kind in ((ids, torch.int32), (types, torch.int8), (lengths, torch.int64)))  # fmt: skip
        return Encoded(*made)

    def batch(self, ids: Sequence[Tensor], types: Sequence[Tensor]) -> Tree:
        """Padded network input of tokens: int64 (B, tokens of the longest of them) a part."""
        count = len(ids)
        width = self.length if self.fixed else max(map(len, ids))
        numbers = torch.full((count, width), self.pad, dtype=torch.int64)
        kinds, mask = torch.zeros_like(numbers), torch.zeros_like(numbers)
        for row, (some, kind) in enumerate(zip(ids, types, strict=True)):
            numbers[row, : len(some)] = some
            kinds[row, : len(some)] = kind
            mask[row, : len(some)] = 1
        parts = {IDS: numbers, MASK: mask, TYPES: kinds}
        return Tree({name: parts[name] for name in self.names})

    def inputs(self, texts: Sequence[Text]) -> Tree:
        """Network input of texts."""
        encoded = self.encode(texts)
        return self.batch(encoded.ids_of(range(len(texts))), encoded.types_of(range(len(texts))))

    def tokens(self, text: Text) -> tuple[list[str], list[str]]:
        """The tokens of a text that the network sees, and those that are cut off, as they are written."""
        tokenizer = _tokenizer(self.tokenizer)
        tokenizer.no_truncation()
        whole = tokenizer.encode(*_pair(text))
        tokenizer.enable_truncation(max_length=self.length)
        seen = tokenizer.encode(*_pair(text))
        return list(seen.tokens), list(whole.tokens[len(seen.tokens) :])

    def words(self, text: Text) -> list[tuple[int, int, int]]:
        """For each token that the network sees: which text of a pair it is of (-1: a special one), and where in it."""
        tokenizer = _tokenizer(self.tokenizer)
        tokenizer.enable_truncation(max_length=self.length)
        found = tokenizer.encode(*_pair(text))
        sides = [-1 if side is None else int(side) for side in found.sequence_ids]
        return [(side, int(start), int(end)) for side, (start, end) in zip(sides, found.offsets, strict=True)]

    def lengths(self, texts: Sequence[Text]) -> Tensor:
        """Tokens of each text, uncut."""
        tokenizer = _tokenizer(self.tokenizer)
        tokenizer.no_truncation()
        return torch.tensor(
            [len(one.ids) for one in tokenizer.encode_batch([_plain(text) for text in texts])]
        )

    def usual_length(self, texts: Sequence[Text]) -> int:
        """The 99th percentile of these texts' lengths in tokens, as far as the network has places."""
        step = max(len(texts) // _COUNTED, 1)
        lengths = self.lengths(texts[::step]).double()
        return max(min(int(lengths.quantile(_PERCENT / 100).ceil()), self.most), 1)

    def at_length(self, length: int) -> TextPreprocess:
        """The same for texts of another length.

        Raises:
            DataError: the network has no places for so many tokens, or no word of a text would be left.
        """
        special = int(self.lengths([""])[0])
        if length <= special:
            raise DataError(
                f"--length {length}: {special} of the tokens of each text are special ones, so {special + 1} "
                "is the least"
            )
        if length > self.most:
            raise DataError(f"--length {length}: the network has places for {self.most} tokens")
        return replace(self, length=length)

    def describe(self) -> str:
        """One line for people."""
        padding = "each padded to it" if self.fixed else "padded to the longest of a batch"
        return f"texts of up to {self.length} tokens ({padding}), as {', '.join(self.names)}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"kind": "text", **plain(self)}

    def check(self) -> None:
        """See that a network could take such texts.

        Raises:
            ValueError: it could not.
        """
        if not set(self.names) <= set(INPUTS) or IDS not in self.names:
            raise ValueError(f"{self.names!r} are no inputs of a text network")
        if self.length > self.most:
            raise ValueError("no texts are that long")
        if not isinstance(json.loads(self.tokenizer), dict):
            raise ValueError("the tokenizer is none")


AnyPreprocess = Preprocess | TextPreprocess


@dataclass(frozen=True)
class Encoded:
    """Texts as tokens, one behind another.

    Attributes:
        ids: numbers of all tokens, int32.
        types: to which of two sentences each belongs, int8.
        lengths: tokens of each text, int64 (N,).
    """

    ids: Tensor
    types: Tensor
    lengths: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ends", self.lengths.cumsum(0))

    def ids_of(self, numbers: Sequence[int]) -> list[Tensor]:
        """The tokens of these texts."""
        return self._of(self.ids, numbers)

    def types_of(self, numbers: Sequence[int]) -> list[Tensor]:
        """The types of their tokens."""
        return self._of(self.types, numbers)

    def some(self, rows: Tensor) -> Encoded:
        """Some of the texts, in this order; int64 of shape (n,)."""
        counts, ends = self.lengths[rows], self._stops(rows)
        # Of each token: its place in its own text, and where that text begins.
        own = torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts).repeat_interleave(counts)
        places = own + (ends - counts).repeat_interleave(counts)
        return Encoded(self.ids[places], self.types[places], counts)

    def _stops(self, rows: Tensor) -> Tensor:
        ends: Tensor = self._ends  # type: ignore[attr-defined]
        return ends[rows]

    def _of(self, flat: Tensor, numbers: Sequence[int]) -> list[Tensor]:
        rows = torch.tensor(numbers, dtype=torch.int64)
        stops, counts = self._stops(rows).tolist(), self.lengths[rows].tolist()
        return [flat[stop - count : stop] for stop, count in zip(stops, counts, strict=True)]


def _plain(text: Text) -> Text:
    return text if isinstance(text, str) else (text[0], text[1])


def _pair(text: Text) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else text


@lru_cache(maxsize=4)
def _tokenizer(content: str) -> Any:
    """The tokenizer of a ``tokenizer.json``, without padding of its own.

    Raises:
        DataError: the package is not here, or the content is no tokenizer.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise DataError(NEEDS_TOKENIZERS) from None
    try:
        found = Tokenizer.from_str(content)
    except Exception as error:  # the package raises plain exceptions
        raise DataError(f"the tokenizer cannot be read: {first_line(error)}") from None
    found.no_padding()
    return found
