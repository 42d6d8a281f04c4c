"""The loop of PyTorch's transfer-learning tutorial: frozen by ``requires_grad``, two loader workers, fp32."""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from tests.benchmarks.jobs import Settings

PARTS = (
    "conv1",
    "layer1.0",
    "layer1.1",
    "layer2.0",
    "layer2.1",
    "layer3.0",
    "layer3.1",
    "layer4.0",
    "layer4.1",
)


def network() -> nn.Module:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None)
    model.fc = nn.Linear(512, 2)
    return model


def loaders(settings: Settings) -> dict[str, DataLoader]:
    usual = transforms.Compose([
        transforms.Resize(round(settings.size * 256 / 224)), transforms.CenterCrop(settings.size),
        transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ])  # fmt: skip
    sets = {name: datasets.ImageFolder(f"{settings.data}/{name}", usual) for name in ("train", "val")}
    return {
        name: DataLoader(
            chosen, batch_size=settings.batch, shuffle=name == "train", num_workers=settings.workers
        )
        for name, chosen in sets.items()
    }


def freeze(model: nn.Module, count: int) -> Iterable[nn.Parameter]:
    """Freeze the first ``count`` of ten layers; the parameters that train."""
    model.requires_grad_(True)
    for part in PARTS[:count]:
        model.get_submodule(part).requires_grad_(False)
    if count:
        model.bn1.requires_grad_(False)
    return [p for p in model.parameters() if p.requires_grad]


def fit(model: nn.Module, data: dict[str, DataLoader], frozen: int, epochs: int) -> None:
    optimizer = torch.optim.AdamW(freeze(model, frozen), lr=1e-3)
    criterion = nn.CrossEntropyLoss()
    for _ in range(epochs):
        for phase in ("train", "val"):
            model.train(phase == "train")
            total, right = 0.0, 0
            for inputs, labels in data[phase]:
                optimizer.zero_grad()
                with torch.set_grad_enabled(phase == "train"):
                    outputs = model(inputs)
                    loss = criterion(outputs, labels)
                    if phase == "train":
                        loss.backward()
                        optimizer.step()
                total += loss.item() * inputs.size(0)
                right += int((outputs.argmax(1) == labels).sum())


def _timed(settings: Settings, *stages: tuple[int, int]) -> float:
    model = network()
    began = time.perf_counter()
    data = loaders(settings)
    for frozen, epochs in stages:
        fit(model, data, frozen, epochs)
    return time.perf_counter() - began


def head(settings: Settings) -> float:
    return _timed(settings, (settings.frozen, settings.epochs))


def gradual(settings: Settings) -> float:
    return _timed(settings, (9, 3), (7, 3), (0, 2))


def full(settings: Settings) -> float:
    return _timed(settings, (0, 1))


full_bf16 = full  # what a plain loop does without being asked: fp32
