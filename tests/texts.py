"""A small text network in a folder as transformers writes it, and texts that it can learn."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

GOOD, BAD = ("good", "fine", "lovely"), ("bad", "awful", "poor")
_WORDS = [*(f"w{i}" for i in range(60)), *GOOD, *BAD]
_VOCABULARY = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *_WORDS])}


def tokenizer() -> Any:
    """Words in lower case, with the special tokens of BERT."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    made = Tokenizer(models.WordLevel(_VOCABULARY, "[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return made


def network_folder(
    place: Path, *, seed: int = 0, kind: str = "BertModel", pooling: str | None = None
) -> Path:
    """A BERT of three layers with random weights, and its tokenizer.

    Args:
        place: the folder.
        seed: of the weights.
        kind: class of transformers.
        pooling: key of ``1_Pooling/config.json``; None for a folder without a ``modules.json``.
    """
    import transformers

    place.mkdir(parents=True, exist_ok=True)
    tokenizer().save(str(place / "tokenizer.json"))
    config = transformers.BertConfig(
        vocab_size=len(_VOCABULARY), hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=40,
    )  # fmt: skip
    torch.manual_seed(seed)
    made = getattr(transformers, kind)(config)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    made.save_pretrained(place)
    if pooling is not None:
        modules = [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ]
        (place / "modules.json").write_text(json.dumps(modules))
        (place / "1_Pooling").mkdir()
        (place / "1_Pooling" / "config.json").write_text(json.dumps({pooling: True}))
    return place


def rows(count: int = 60, seed: int = 0) -> list[tuple[str, str]]:
    """Texts of three to fifteen words, and what they are: each holds a word that says it."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        words = [f"w{draw.randrange(60)}" for _ in range(draw.randrange(2, 15))]
        words.insert(draw.randrange(len(words)), draw.choice((GOOD, BAD)[number % 2]))
        made.append((" ".join(words), ("praise", "blame")[number % 2]))
    return made


def table(path: Path, lines: Sequence[Sequence[Any]], header: Sequence[str] = ("text", "label")) -> Path:
    """A CSV."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *lines])
    return path
