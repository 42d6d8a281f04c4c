"""Sounds made for tests: tones of two heights by four speakers, in folders of two classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

HERTZ = {"high": 1500.0, "low": 400.0}
SPEAKERS = ("ann", "bob", "cid", "dee")


def tone(hertz: float, seconds: float = 0.4, rate: int = 8000, seed: int = 0) -> np.ndarray:
    """A tone with a little noise: float32 (samples,)."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    wave = rng.uniform(0.2, 0.8) * np.sin(2 * np.pi * hertz * time + rng.uniform(0, 6))
    return (wave + 0.02 * rng.standard_normal(len(time))).astype(np.float32)


def write(path: Path, wave: np.ndarray, rate: int = 8000, subtype: str = "PCM_16") -> Path:
    """Write a sound file; its folder is made."""
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate, subtype=subtype)
    return path


def tone_folders(root: Path, each: int = 8, *, long: tuple[int, ...] = (), suffix: str = ".wav") -> Path:
    """Class folders of clips of 0.4 s, named after their speaker; those of the numbers ``long`` have 1.1 s."""
    for number, (name, hertz) in enumerate(HERTZ.items()):
        for index in range(each):
            speaker = SPEAKERS[index % len(SPEAKERS)]
            wave = tone(hertz * (1 + 0.02 * index), 1.1 if index in long else 0.4, seed=100 * number + index)
            write(root / name / f"{index}_{speaker}_{suffix}", wave)
    return root


class SmallNet(nn.Module):
    """Takes raw sound, (B, 256)."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Conv1d(1, 8, 32, stride=8)
        self.norm = nn.BatchNorm1d(8)
        self.second = nn.Conv1d(8, 16, 8, stride=4)
        self.head = nn.Linear(16, 5)
        for parameter in self.parameters():
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (B, 5)."""
        x = torch.relu(self.norm(self.first(x.unsqueeze(1))))
        return self.head(torch.relu(self.second(x)).mean(2))
