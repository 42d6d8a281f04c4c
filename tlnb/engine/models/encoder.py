"""A text network without a task of its own, made into one with scores: its token vectors pooled, a linear head behind.

Pooling is what the network was trained with: the mean over the tokens (Reimers and Gurevych, Sentence-BERT, 2019), or
the vector of the first token, as its ``modules.json`` says.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

POOLINGS = ("mean", "cls", "max", "last", "root")


class Pooling(nn.Module):
    """Token vectors to one vector a text; padding plays no part.

    Args:
        how: ``mean``, ``cls`` (the first token), ``max``, ``last`` (the last token), or ``root`` (sum over the root of
            the length).
        normalise: to length 1.
    """

    def __init__(self, how: str = "mean", normalise: bool = False):
        super().__init__()
        self.how, self.normalise = how, normalise

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Vectors (B, D) of token vectors (B, T, D) and a mask (B, T)."""
        weights = mask.unsqueeze(-1).to(tokens.dtype)
        if self.how == "cls":
            pooled = tokens[:, 0]
        elif self.how == "max":
            pooled = tokens.masked_fill(weights == 0, torch.finfo(tokens.dtype).min).amax(1)
        elif self.how == "last":
            pooled = tokens[torch.arange(len(tokens), device=tokens.device), mask.sum(1) - 1]
        else:
            count = weights.sum(1).clamp(min=1)
            pooled = (tokens * weights).sum(1) / (count.sqrt() if self.how == "root" else count)
        return F.normalize(pooled, dim=1) if self.normalise else pooled

    def extra_repr(self) -> str:
        """What it does."""
        return f"{self.how}, normalise={self.normalise}"


class TextEncoder(nn.Module):
    """A text network with a head.

    Args:
        body: of transformers; answers with ``last_hidden_state``.
        width: numbers in a token's vector.
        outputs: scores.
        how: of the pooling.
        normalise: the pooled vectors to length 1.
    """

    def __init__(self, body: nn.Module, width: int, outputs: int, how: str = "mean", normalise: bool = False):
        super().__init__()
        self.body = body
        self.pooling = Pooling(how, normalise)
        self.head = nn.Linear(width, outputs)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Scores (B, outputs) of token numbers and their mask, (B, T) each."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        found = self.body(input_ids=input_ids, attention_mask=attention_mask, **types)
        return self.head(self.pooling(found.last_hidden_state, attention_mask))
