"""The data sets that ship with tlnb or with what it depends on."""

from __future__ import annotations

import torch

from tlnb.engine.data.collections import Pictures
from tlnb.engine.data.request import COLUMNS, SourceRequest
from tlnb.engine.data.sources.found import Found

GLYPHS_PER_CLASS = 100
_NONE = (*COLUMNS, "links", "range", "bands")


def digits(request: SourceRequest) -> Found:
    """scikit-learn's 1,797 handwritten digits, 8×8 pixels of 0..16 (Alpaydin and Kaynak 1998)."""
    from sklearn.datasets import load_digits

    request.refuse(_NONE, "digits are pictures with one class each")
    found = load_digits()
    images = torch.from_numpy(found.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
    pictures = Pictures(images, torch.from_numpy(found.target).long())
    return Found(pictures, None, tuple(map(str, found.target_names)))


def glyphs(request: SourceRequest) -> Found:
    """Letters drawn now from matplotlib's fonts: the task that ``convnet5`` was trained on."""
    from tlnb.engine.data import glyphs as drawing

    request.refuse(_NONE, "glyphs are pictures with one class each")
    images, targets = drawing.draw(GLYPHS_PER_CLASS * len(drawing.CLASSES), seed=request.seed)
    return Found(Pictures(images, targets), None, drawing.CLASSES)


BUILTIN = {"digits": digits, "glyphs": glyphs}
