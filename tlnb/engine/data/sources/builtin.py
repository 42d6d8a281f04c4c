"""The data sets that ship with tlnb or with what it depends on."""

from __future__ import annotations

import torch

from tlnb.engine.data.collections import Pictures
from tlnb.engine.data.sources.found import Ask, Found

GLYPHS_PER_CLASS = 100


def digits(ask: Ask) -> Found:
    """scikit-learn's 1,797 handwritten digits, 8×8 pixels of 0..16 (Alpaydin and Kaynak 1998)."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.from_numpy(found.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
    pictures = Pictures(images, torch.from_numpy(found.target).long())
    return Found(pictures, None, tuple(map(str, found.target_names)))


def glyphs(ask: Ask) -> Found:
    """Letters drawn now from matplotlib's fonts: the task that ``convnet5`` was trained on."""
    from tlnb.engine.data import glyphs as drawing

    images, targets = drawing.draw(GLYPHS_PER_CLASS * len(drawing.CLASSES), seed=ask.seed)
    return Found(Pictures(images, targets), None, drawing.CLASSES)


BUILTIN = {"digits": digits, "glyphs": glyphs}
