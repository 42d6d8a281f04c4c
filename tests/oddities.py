"""Models with one odd thing each, for tests of layers and cuts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Text(nn.Module):
    """Token ids (B, 12) to logits (B, 4), three transformer layers; padding (token 0) may be masked."""

    def __init__(self, mask: bool = False, nested: bool = False):
        super().__init__()
        self.mask = mask
        self.embedding = nn.Embedding(50, 16)
        self.position = nn.Parameter(torch.randn(1, 12, 16))
        self.register_buffer("scale", torch.ones(1))
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=nested)
        self.drop = nn.Dropout(0.1)
        self.classifier = nn.Linear(16, 4)

    def forward(self, tokens):
        padding = tokens.eq(0) if self.mask else None
        hidden = self.embedding(tokens) * self.scale + self.position
        hidden = self.encoder(hidden, src_key_padding_mask=padding)
        return self.classifier(self.drop(hidden.mean(1)))

    @staticmethod
    def example():
        tokens = torch.arange(48).reshape(4, 12) % 49 + 1
        tokens[:, 9:] = 0
        tokens[1, 6:] = 0
        return tokens


class Recurrent(nn.Module):
    """Token ids (B, T) to logits; the first state is made from the batch size."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 8)
        self.rnn = nn.LSTM(8, 16, 2, batch_first=True)
        self.classifier = nn.Linear(16, 4)

    def forward(self, tokens):
        hidden = self.embedding(tokens)
        batch, _, _ = hidden.shape
        zero = torch.zeros(2, batch, 16).to(tokens.device)
        out, (state, _) = self.rnn(hidden, (zero, zero))
        return self.classifier(out[:, -1] + state[-1])


class Decides(nn.Module):
    """Takes a decision that depends on the data, so it cannot be traced."""

    def __init__(self, classes: int = 2):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(1))
        self.late = nn.Linear(8, classes)
        self.unused = nn.Linear(8, 3)
        self.early = nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8)
        self.middle = nn.Linear(8, 8)

    def forward(self, x):
        x = self.norm(self.early(x))
        if x.sum() > 1e9:
            return x
        return self.late(self.middle(x).relu()) + self.offset


class Outer(nn.Module):
    """A traceable model around a part that cannot be traced."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(8, 8)
        self.inner = Decides(20)
        self.head = nn.Sequential(nn.LayerNorm(20), nn.Dropout(0.5), nn.Linear(20, 3))

    def forward(self, x):
        return self.head(self.inner(self.stem(x)))


class Twice(nn.Module):
    """Calls ``second`` twice, with ``third`` between; one dropout serves everywhere."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.last = nn.Linear(8, 3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        batch = x.shape[0]
        x = self.drop(self.first(x))
        x = self.second(self.third(self.second(x)))
        return self.last(self.drop(x)).view(batch, 3)


class Tied(nn.Module):
    """The last weight is the first one."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.middle = nn.Linear(8, 8)
        self.out = nn.Linear(8, 20, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, tokens):
        return self.out(self.middle(self.embedding(tokens)).mean(1))


class Functional(nn.Module):
    """Dropout as a function, noise in training alone, and an activation that works in place."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.four = nn.Linear(8, 3)

    def forward(self, x):
        x = F.dropout(self.one(x), 0.5, self.training)
        x = F.dropout(self.two(x), 0.5, self.training)
        x = F.dropout(self.three(x), 0.5, self.training)
        return self.four(x)


class Noisy(nn.Module):
    """In training alone, noise is added behind ``two``."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.two(self.one(x))
        if self.training:
            x = x + torch.randn_like(x)
        return self.three(x)


class PreActivation(nn.Module):
    """A block that begins with an activation in place."""

    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        return self.linear(self.relu(x))


class Maskable(nn.Module):
    """Has arguments with defaults behind the input."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x, mask=None, double=False):
        if mask is not None:
            x = x * mask
        return self.two(self.one(2 * x if double else x))
