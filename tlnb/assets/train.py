"""Train ``convnet5`` on drawn letters and write its weights and model card.

    python -m tlnb.assets.train [--epochs N] [--seed S] [--out FOLDER]

Everything random comes from the seed, so the same machine, torch and number of threads give the same weights;
elsewhere they differ by rounding and the figures hardly at all.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor, nn
from torch.nn import functional

from tlnb.assets.card import Figures, write_card
from tlnb.engine.data.glyphs import CLASSES, HELD_OUT_FONTS, TRAIN_FONTS, draw
from tlnb.engine.models.convnet5 import ConvNet5, convnet5

VERSION = "1"
_BATCH = 128
_RATE = 2e-3
_DECAY = 0.02
_VALID = 10_000
# Seeds far from the training ones, which count up from a thousand times --seed.
_STATISTICS_SEED, _SEEN_SEED, _UNSEEN_SEED = 2**40, 2**40 + 1, 2**40 + 2


@lru_cache(maxsize=1)
def pixel_statistics() -> tuple[float, float]:
    """Mean and standard deviation of the pixels, between 0 and 1, of 10,000 glyphs; three digits."""
    images = draw(_VALID, seed=_STATISTICS_SEED)[0].float() / 255
    return round(images.mean().item(), 3), round(images.std().item(), 3)


def normalise(images: Tensor, mean: float, std: float) -> Tensor:
    """uint8 images (N, 1, H, W) as the float input of the model."""
    return ((images.float() / 255) - mean) / std


@torch.inference_mode()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Percent of normalised images (N, 1, 32, 32) that get their label (N,)."""
    model.eval()
    right = [model(x).argmax(1) == y for x, y in zip(images.split(500), labels.split(500), strict=True)]
    return 100 * torch.cat(right).float().mean().item()


def train(
    epochs: int, per_epoch: int, seed: int, *, valid: int = _VALID, report: bool = True
) -> tuple[ConvNet5, Figures]:
    """Train on ``epochs`` lots of ``per_epoch`` new glyphs, then measure on ``valid`` seen and unseen ones.

    AdamW with a one-cycle rate (Smith 2018). Prints a line an epoch where ``report`` is true.
    """
    torch.manual_seed(seed)
    mean, std = pixel_statistics()
    model = convnet5(len(CLASSES)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=_DECAY)
    steps = epochs * -(-per_epoch // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps, pct_start=0.2)
    start = time.perf_counter()
    for epoch in range(epochs):
        images, labels = draw(per_epoch, seed=1000 * seed + epoch)
        loss = _one_epoch(model, normalise(images, mean, std), labels, optimizer, schedule)
        if report:
            elapsed = time.perf_counter() - start
            print(f"epoch {epoch + 1}/{epochs}  loss {loss:.3f}  {elapsed:.0f} s", flush=True)
    seconds = time.perf_counter() - start

    def measure(fonts: tuple[str, ...], fonts_seed: int) -> float:
        images, labels = draw(valid, seed=fonts_seed, fonts=fonts)
        return accuracy(model, normalise(images, mean, std), labels)

    return model, Figures(
        images=epochs * per_epoch,
        epochs=epochs,
        seconds=seconds,
        threads=torch.get_num_threads(),
        seed=seed,
        seen=measure(TRAIN_FONTS, _SEEN_SEED),
        unseen=measure(HELD_OUT_FONTS, _UNSEEN_SEED),
        valid=valid,
        mean=mean,
        std=std,
        parameters=sum(p.numel() for p in model.parameters()),
    )


def _one_epoch(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> float:
    """One pass in the order drawn; the mean training loss. Glyphs are independent, so nothing is shuffled."""
    model.train()
    total = 0.0
    for x, y in zip(images.split(_BATCH), labels.split(_BATCH), strict=True):
        loss = functional.cross_entropy(model(x.contiguous(memory_format=torch.channels_last)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        total += loss.item() * len(y)
    return total / len(labels)


def metadata(figures: Figures) -> dict[str, str]:
    """What the weights file says of itself; lists and objects as JSON, as safetensors keeps only text."""
    preprocess = {
        "channels": 1,
        "size": [32, 32],
        "resize": None,
        "mean": [figures.mean],
        "std": [figures.std],
        "interpolation": "bilinear",
    }
    return {
        "format": "pt",
        "model": "convnet5",
        "version": VERSION,
        "classes": json.dumps(CLASSES),
        "preprocess": json.dumps(preprocess),
        "licence": "Apache-2.0",
    }


def save(model: nn.Module, figures: Figures, folder: Path) -> None:
    """Write ``convnet5.safetensors`` and ``MODEL_CARD.md``, each under a temporary name first."""
    folder.mkdir(parents=True, exist_ok=True)
    weights, card = folder / "convnet5.safetensors", folder / "MODEL_CARD.md"
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    partial = weights.with_suffix(".partial")
    # save_file makes a file that only its owner may read; an installed package is read by everyone.
    partial.write_bytes(to_bytes(state, metadata=metadata(figures)))
    os.replace(partial, weights)
    partial = card.with_suffix(".partial")
    partial.write_text(write_card(figures, VERSION), encoding="utf-8")
    os.replace(partial, card)


def main(argv: list[str] | None = None) -> None:
    """The command: train, report, write."""
    parser = argparse.ArgumentParser(prog="python -m tlnb.assets.train", description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=16, help="lots of glyphs to draw and train on")
    parser.add_argument("--per-epoch", type=int, default=20_480, help="glyphs in a lot")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder for weights and card")
    args = parser.parse_args(argv)
    model, figures = train(args.epochs, args.per_epoch, args.seed)
    save(model, figures, args.out)
    print(f"accuracy: seen fonts {figures.seen:.2f} %, unseen fonts {figures.unseen:.2f} %; wrote {args.out}")


if __name__ == "__main__":
    main()
