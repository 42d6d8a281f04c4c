"""Two further networks for the table of rates: a residual network and a transformer, trained on drawn letters.

    python -m tests.benchmarks.rates.networks FOLDER

writes ``res8.pt`` and ``vit.pt``, in about ten minutes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

LETTERS = 41


class Block(nn.Module):
    """Two convolutions with batch norm, and a way past them (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs)
        self.c2, self.b2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.short = nn.Sequential(nn.Conv2d(inputs, outputs, 1, 2, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.b2(self.c2(functional.relu(self.b1(self.c1(x)))))
        return functional.relu(inner + self.short(x))


class Res8(nn.Module):
    """A residual network of eight layers for grey pictures of 32 pixels."""

    def __init__(self, classes: int = LETTERS):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 24, 3, 1, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.layer1, self.layer2, self.layer3 = Block(24, 24), Block(24, 48), Block(48, 96)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(96, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.layer3(self.layer2(self.layer1(self.stem(x))))).flatten(1))


class Encoder(nn.Module):
    """Attention and a small network, each with layer norm before it."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.n1, self.qkv, self.proj = (
            nn.LayerNorm(width),
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
        )
        self.n2, self.f1, self.f2 = (
            nn.LayerNorm(width),
            nn.Linear(width, 3 * width),
            nn.Linear(3 * width, width),
        )
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = (
            self.qkv(self.n1(x))
            .reshape(b, t, 3, self.heads, d // self.heads)
            .permute(2, 0, 3, 1, 4)
            .unbind(0)
        )
        attended = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, d)
        x = x + self.proj(attended)
        return x + self.f2(functional.gelu(self.f1(self.n2(x))))


class TinyViT(nn.Module):
    """A vision transformer of three blocks for grey pictures of 32 pixels (Dosovitskiy et al. 2021)."""

    def __init__(self, classes: int = LETTERS, width: int = 80, depth: int = 3):
        super().__init__()
        self.patch, self.pos = nn.Conv2d(1, width, 8, 8), nn.Parameter(torch.randn(1, 16, width) * 0.02)
        self.blocks = nn.Sequential(*(Encoder(width, 4) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2) + self.pos
        return self.head(self.norm(self.blocks(tokens)).mean(1))


NETWORKS = {"res8": (Res8, 2e-3), "vit": (TinyViT, 1.5e-3)}


def train(name: str, epochs: int = 10, per_epoch: int = 12_800) -> nn.Module:
    """A network trained on letters that are drawn anew for each epoch."""
    from tlnb.assets.train import normalise, pixel_statistics
    from tlnb.engine.data.glyphs import draw

    torch.manual_seed(0)
    make, rate = NETWORKS[name]
    net, statistics = make(), pixel_statistics()
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.02)
    steps = epochs * per_epoch // 128
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.2)
    for epoch in range(epochs):
        images, labels = draw(per_epoch, seed=7000 + epoch)
        net.train()
        for x, y in zip(normalise(images, *statistics).split(128), labels.split(128), strict=True):
            loss = functional.cross_entropy(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        print(f"{name}, epoch {epoch + 1} of {epochs}: loss {loss.item():.3f}", flush=True)
    return net


def main() -> None:
    """Train both and write their weights."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in NETWORKS:
        torch.save(train(name).state_dict(), folder / f"{name}.pt")


if __name__ == "__main__":
    main()
