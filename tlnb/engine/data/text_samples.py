"""Texts as a network takes them: tokens in memory, padded batch by batch."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import Tensor

from tlnb.engine.core.fingerprint import tensors_digest
from tlnb.engine.core.tree import Tree
from tlnb.engine.data.column import chosen
from tlnb.engine.data.samples import Samples
from tlnb.engine.data.tokens import Text, TextPreprocess


class TextSamples(Samples):
    """Texts as tokens in memory; a batch is padded to the longest text in it.

    Args:
        texts: each a text, or a pair of sentences.
        targets: of shape (N,) or (N, outputs).
        preprocess: the tokenizer, and the longest text.
    """

    at_hand = True

    def __init__(self, texts: Sequence[Text], targets: Tensor, preprocess: TextPreprocess):
        self.texts, self.targets, self.preprocess = texts, targets, preprocess
        self.encoded = preprocess.encode(texts)
        self.lengths = None if preprocess.fixed else self.encoded.lengths

    def some(self, rows: Tensor) -> TextSamples:
        """Some of the texts, cut into tokens already; int64 of shape (n,)."""
        made = copy.copy(self)
        made.texts, made.targets = chosen(self.texts, rows.numpy()), self.targets[rows]
        made.encoded = self.encoded.some(rows)
        made.lengths = None if self.lengths is None else made.encoded.lengths
        return made

    def batch(self, indices: Tensor) -> Tree:
        """Token numbers and what else the network takes: int64 (B, tokens of the longest) a part."""
        rows = indices.tolist()
        return self.preprocess.batch(self.encoded.ids_of(rows), self.encoded.types_of(rows))

    def inputs_digest(self) -> str:
        """Of all tokens."""
        return self.fingerprint()

    def fingerprint(self) -> str:
        """SHA-256 over tokens, targets and what else makes a batch."""
        one = self.preprocess
        named = [("ids", self.encoded.ids), ("types", self.encoded.types), ("lengths", self.encoded.lengths)]
        return tensors_digest([*named, ("targets", self.targets)], note=f"{one.names} {one.pad} {one.fixed}")
