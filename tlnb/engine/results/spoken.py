"""What spoke for an answer, to be seen: a picture beside itself under a heat map, and words by their weight."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

import numpy as np
import torch
from torch import Tensor, nn

from tlnb.display.tables import printable
from tlnb.engine.data.texts import Text
from tlnb.engine.data.tokens import TextPreprocess
from tlnb.engine.results.saliency import token_weights

SPOKE, TRACE = 0.5, 0.05  # of the word that spoke most, from which on another is marked, or coloured

Words = tuple[tuple[str, float], ...]
"""The words of a text with how much each spoke for an answer: 1 for the one that did most, below zero against it."""


def under_heat(pixels: Tensor, heat: Tensor) -> np.ndarray:
    """The picture (C, H, W), a grey strip, and the picture in grey under the map (H, W): RGB in 0..1."""
    from matplotlib import colormaps

    image = pixels.float().numpy() / (1 if pixels.is_floating_point() else 255)
    colours = np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0)
    grey = np.repeat(image.mean(0)[..., None], 3, axis=2)
    # Where nothing speaks, the picture is seen; where much does, the colour.
    alpha = 0.7 * np.sqrt(heat.float().numpy())[..., None]
    hot = colormaps["inferno"](heat.float().numpy())[..., :3]
    strip = np.full((image.shape[1], max(1, image.shape[2] // 24), 3), 0.5)
    return np.clip(np.concatenate([colours, strip, (1 - alpha) * grey + alpha * hot], axis=1), 0, 1)


def as_uint8(picture: np.ndarray) -> np.ndarray:
    """Colours in 0..1 as whole numbers in 0..255."""
    return np.round(255 * picture).astype(np.uint8)


def words_for(
    model: nn.Module, preprocess: TextPreprocess, texts: Sequence[Text], classes: Tensor, device: torch.device
) -> list[Words]:
    """The words of each text with how much they spoke for a class of it.

    Args:
        model: takes the texts' tokens.
        preprocess: makes them.
        texts: the texts, one or more.
        classes: of each the class, int64 (N,).
        device: where the model is.
    """
    encoded, rows = preprocess.encode(texts), list(range(len(texts)))
    batch = preprocess.batch(encoded.ids_of(rows), encoded.types_of(rows)).to(device)
    found = token_weights(model, batch, classes.to(device))
    return [
        _words(preprocess.words(text), weights, text)
        for text, weights in zip(texts, found.tolist(), strict=True)
    ]


def _words(places: Sequence[tuple[int, int, int]], weights: Sequence[float], text: Text) -> Words:
    """The words of a text, or of a pair, each with the sum of its tokens' weights; 1 for the largest."""
    sides = (text,) if isinstance(text, str) else text
    words = []
    for side, whole in enumerate(sides):
        for match in re.finditer(r"\S+", whole):
            inside = [
                weight
                for (of, start, end), weight in zip(places, weights, strict=False)
                if of == side and start < match.end() and end > match.start()
            ]
            words.append((printable(match.group()), sum(inside)))
    largest = max((weight for _, weight in words), default=0.0)
    return tuple((word, weight / largest if largest > 0 else 0.0) for word, weight in words)


def marked_html(words: Words) -> str:
    """A text with its words coloured by how much they spoke."""
    return " ".join(
        f'<mark style="background:rgba(213,94,0,{min(max(weight, 0.0), 1.0) * 0.6:.2f});color:inherit">'
        f"{escape(word)}</mark>"
        if weight > TRACE
        else escape(word)
        for word, weight in words
    )


def marked_text(words: Words) -> str:
    """A text with those words in brackets that spoke most."""
    return " ".join(f"‹{word}›" if weight >= SPOKE else word for word, weight in words)
