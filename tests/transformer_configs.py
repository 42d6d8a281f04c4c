"""Twelve architectures of transformers, each from a small random configuration: eight for texts, four for pictures."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tlnb.engine.core.tree import Tree

WORDS = 80
_SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
_TEXT = {**_SMALL, "vocab_size": WORDS, "max_position_embeddings": 40, "pad_token_id": 0}
TEXTS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", _TEXT),
    "roberta": ("Roberta", _TEXT),
    "electra": ("Electra", {**_TEXT, "embedding_size": 16}),
    "albert": ("Albert", {**_TEXT, "embedding_size": 16}),
    "mpnet": ("MPNet", _TEXT),
    "distilbert": ("DistilBert", {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48, "vocab_size": WORDS,
                                  "max_position_embeddings": 40}),
    "deberta": ("DebertaV2", {**_TEXT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"],
                              "position_buckets": 8, "pooler_hidden_size": 32}),
    "modernbert": ("ModernBert", {**_TEXT, "global_attn_every_n_layers": 2, "local_attention": 8,
                                  "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}),
}  # fmt: skip
PICTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViT", {**_SMALL, "image_size": 32, "patch_size": 8}),
    "dinov2": ("Dinov2", {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "mlp_ratio": 2,
                          "image_size": 32, "patch_size": 8}),
    "convnext": ("ConvNext", {"num_stages": 3, "hidden_sizes": [8, 16, 32], "depths": [1, 2, 1], "image_size": 32}),
    "swin": ("Swin", {"embed_dim": 8, "depths": [1, 2, 1], "num_heads": [1, 2, 4], "window_size": 4,
                      "image_size": 32, "patch_size": 2}),
}  # fmt: skip
ALL = {**TEXTS, **PICTURES}


def network(name: str, classes: int = 3, seed: int = 0) -> nn.Module:
    """A classifier of this architecture with random weights, large enough that answers differ."""
    import transformers

    kind, values = ALL[name]
    task = "ForSequenceClassification" if name in TEXTS else "ForImageClassification"
    config = getattr(transformers, f"{kind}Config")(**values, num_labels=classes)
    torch.manual_seed(seed)
    made: nn.Module = getattr(transformers, f"{kind}{task}")(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    return made


def tokens(lengths: list[int], width: int | None = None, seed: int = 1) -> Tree:
    """Texts of these lengths, padded to the longest or to ``width``."""
    width = width or max(lengths)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.zeros(len(lengths), width, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(5, WORDS, (length,), generator=generator)
        mask[row, :length] = 1
    return Tree({"input_ids": ids, "attention_mask": mask})


def samples(name: str, count: int = 6) -> Tree | torch.Tensor:
    """A batch that the architecture takes."""
    if name in TEXTS:
        return tokens([9, 5, 7, 3, 9, 6][:count])
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))
