"""CREPE (Kim et al. 2018), a published network of raw sound, learns another task: frames of 1,024 samples at 16 kHz.

Its weights lie in ``TLNB_MODELS``, or in ``shared/models`` beside the clone.
"""

from __future__ import annotations

import copy
import itertools
import os
from pathlib import Path

import pytest
import torch
from sounds import tone, tone_folders
from torch import Tensor, nn
from torch.nn import functional as F

from tlnb.engine.data.sound.front_end import RawFrames
from tlnb.session import Session

pytest.importorskip("soundfile")
SHARED = Path(__file__).parents[3] / "shared"
WEIGHTS = Path(os.environ.get("TLNB_MODELS") or SHARED / "models") / "crepe" / "tiny.pth"
CLIPS = Path(os.environ.get("TLNB_DATA") or SHARED / "data") / "spoken_digits" / "clips.csv"
pytestmark = [
    pytest.mark.skipif(not WEIGHTS.is_file(), reason="CREPE is not here (TLNB_MODELS)"),
    pytest.mark.slow,
]


class Crepe(nn.Module):
    """The smallest of its sizes: (B, 1024) to the odds of 360 pitches, 20 cents apart."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 128, 16, 16, 16, 32, 64)
        for number, (before, after) in enumerate(itertools.pairwise(widths), start=1):
            size, stride = ((512, 1), (4, 1)) if number == 1 else ((64, 1), (1, 1))
            setattr(self, f"conv{number}", nn.Conv2d(before, after, size, stride))
            setattr(self, f"conv{number}_BN", nn.BatchNorm2d(after, eps=0.001))
        self.classifier = nn.Linear(256, 360)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (B, outputs)."""
        x = x[:, None, :, None]
        for number in range(1, 7):
            x = F.pad(x, (0, 0, 254, 254) if number == 1 else (0, 0, 31, 32))
            x = F.relu(getattr(self, f"conv{number}")(x))
            x = F.max_pool2d(getattr(self, f"conv{number}_BN")(x), (2, 1))
        return self.classifier(x.permute(0, 2, 1, 3).reshape(len(x), -1))


@pytest.fixture
def crepe() -> Crepe:
    net = Crepe()
    net.load_state_dict(torch.load(WEIGHTS, weights_only=True))
    return net.eval()


@pytest.mark.parametrize("hertz", [220.0, 440.0])
def test_frames_are_as_the_network_was_trained_on(crepe, hertz):
    frame = RawFrames(1024, 16000, (1024,)).frame(tone(hertz, 0.064, 16000)).reshape(1, 1024)
    with torch.no_grad():
        place = int(crepe(frame).argmax())
    assert 10 * 2 ** ((20 * place + 1997.3794) / 1200) == pytest.approx(hertz, rel=0.02)


def test_it_learns_another_task_from_its_frames(crepe, tmp_path, monkeypatch):
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))
    session = Session([])
    session.load(crepe, input="1024")
    session.data(tone_folders(tmp_path / "tones", each=4), rate=16000, valid=0.5)
    assert session.view.samples[1].batch(torch.arange(2)).shape == (2, 1024)
    session.run("fit head")
    assert session.results().accuracy == 1.0


@pytest.mark.skipif(not CLIPS.is_file(), reason="the spoken digits are not here (TLNB_DATA)")
def test_a_head_of_all_layers_tells_digits_apart_that_the_last_layer_does_not(crepe, tmp_path, monkeypatch):
    """Pitch is another task: what tells digits apart is in earlier layers (77 % against 53 % with all clips)."""
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))
    found = {}
    for spec in ("linear", "all-layers"):
        session = Session([])
        session.load(copy.deepcopy(crepe), input="1024")
        session.data(
            str(CLIPS), label="digit", path="path", rate=16000, window=0.064, per_class=10, valid=0.1
        )
        session.head(spec, init="fit")
        found[spec] = session.history.stages[-1].final.accuracy
    assert found["all-layers"] >= found["linear"] + 0.05
