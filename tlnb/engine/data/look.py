"""One sample as a person would look at it: its picture, its words, its sound, or its numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tlnb.display.pictures import image_uri, uint8_of
from tlnb.display.tables import printable
from tlnb.engine.core.tree import Tree
from tlnb.engine.data.samples import PictureSamples, Samples
from tlnb.engine.data.sound.clips import FrameSamples
from tlnb.engine.data.sound.players import drawn, players_of
from tlnb.engine.data.text_samples import TextSamples
from tlnb.engine.data.texts import shown

LETTERS = 600  # of a text
NUMBERS = 8  # of a row


@dataclass(frozen=True)
class Look:
    """A sample to be looked at; what it has not is empty.

    Attributes:
        picture: as a data address; of a sound, its picture.
        text: its words, or its first numbers.
        sound: as a data address.
    """

    picture: str = ""
    text: str = ""
    sound: str = ""


def look_at(samples: Samples, row: int) -> Look:
    """What can be seen and heard of a sample.

    Args:
        samples: fitted to the network, without random changes.
        row: its place among them.
    """
    one = torch.tensor([row])
    players = players_of(samples, one, [""])
    sound = players.uri(0) if players is not None else ""
    if isinstance(samples, PictureSamples):
        return Look(image_uri(uint8_of(samples.pixels(one)[0])), sound=sound)
    if isinstance(samples, FrameSamples):
        return Look(image_uri(uint8_of(drawn(samples, one)[0])), sound=sound)
    if isinstance(samples, TextSamples):
        return Look(text=_cut(printable(shown(samples.texts[row]))), sound=sound)
    inputs = samples.batch(one)
    if isinstance(inputs, Tree):
        return Look(text=", ".join(f"{name} {tuple(inputs[name].shape[1:])}" for name in inputs))
    if inputs.dim() in (3, 4) and inputs.shape[-1] > 1 and (inputs.dim() == 3 or inputs.shape[1] in (1, 3)):
        return Look(_picture_of(inputs.float()))
    numbers = inputs.flatten().tolist()
    more = " …" if len(numbers) > NUMBERS else ""
    return Look(text=", ".join(f"{number:.4g}" for number in numbers[:NUMBERS]) + more)


def _picture_of(inputs: torch.Tensor) -> str:
    """Numbers that stand in a plane, brightest the largest: what they were before cannot be known."""
    plane = inputs[0] if inputs.dim() == 4 else inputs
    low, high = plane.min(), plane.max()
    return image_uri(uint8_of((plane - low) / (high - low).clamp(min=1e-12)))


def _cut(text: str) -> str:
    return text if len(text) <= LETTERS else text[: LETTERS - 1] + "…"
