from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from tlnb.engine.data import glyphs
from tlnb.engine.data.glyphs import CLASSES, HELD_OUT_FONTS, TRAIN_FONTS, Face, draw, shapes, thin
from tlnb.errors import DataError


def test_images_are_uint8_and_labels_are_places_in_the_classes():
    images, labels = draw(3000, seed=0)
    assert (images.shape, images.dtype) == ((3000, 1, 32, 32), torch.uint8)
    assert (labels.shape, labels.dtype) == ((3000,), torch.int64)
    assert sorted(set(labels.tolist())) == list(range(len(CLASSES)))


def test_the_seed_decides_everything():
    (first, labels), (again, same), (other, _) = draw(300, seed=5), draw(300, seed=5), draw(300, seed=6)
    assert torch.equal(first, again)
    assert torch.equal(labels, same)
    assert not torch.equal(first, other)


def test_the_global_random_state_is_neither_read_nor_changed():
    torch.manual_seed(1)
    before, first = torch.get_rng_state(), draw(50, seed=0)[0]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(draw(50, seed=0)[0], first)


def test_no_two_images_are_alike():
    images, _ = draw(500, seed=0, fonts=["cmr10"], classes=["A"])
    assert len(images.unique(dim=0)) == 500


def test_every_letter_is_there_once_and_no_digit():
    letters = "".join(CLASSES)
    assert len(letters) == len(set(letters)) == 52
    assert letters.isalpha()
    assert len(set(CLASSES)) == 41


def test_held_out_fonts_are_families_of_their_own():
    def family(name):
        return name.split("-")[0]

    assert not {family(name) for name in TRAIN_FONTS} & {family(name) for name in HELD_OUT_FONTS}
    assert glyphs.fonts() == TRAIN_FONTS + HELD_OUT_FONTS


@pytest.mark.parametrize("font", glyphs.fonts())
def test_every_font_draws_52_different_letters(font):
    face = glyphs.face(font)
    assert Path(matplotlib.get_data_path(), "fonts", "ttf", face.file).is_file()
    edge = shapes(face).edge
    assert len(edge.unique(dim=0)) >= 50  # I and l may be one bar, in some fonts O is a scaled o
    assert (edge.amax((1, 2)) > 0).all()
    assert (edge[:, 0] < 0).all()


def test_the_classes_of_a_choice_are_numbered_by_it():
    images, labels = draw(400, seed=0, classes=["Il", "Ww"])
    assert set(labels.tolist()) == {0, 1}
    lit = (images > 90).float().mean((1, 2, 3))
    assert lit[labels == 0].mean() < lit[labels == 1].mean()


def test_glyphs_are_bright_on_dark_and_fill_the_image_as_digits_do():
    ink = draw(1000, seed=0)[0].float().squeeze(1) / 255
    digits = torch.tensor(load_digits().images / 16)
    assert ink.median() < 0.2
    assert ink.mean().item() == pytest.approx(digits.mean().item(), rel=0.3)
    tall = (ink > 0.4).any(2).float().mean()
    assert tall.item() == pytest.approx((digits > 0.4).any(2).float().mean().item(), abs=0.15)


@pytest.mark.parametrize("size", [16, 28, 48])
def test_other_sizes(size):
    images, labels = draw(20, seed=0, size=size)
    assert images.shape == (20, 1, size, size)
    assert torch.equal(labels, draw(20, seed=0)[1])


def test_none_at_all():
    images, labels = draw(0, seed=0)
    assert images.shape == (0, 1, 32, 32)
    assert labels.shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"fonts": ["cmr11"]}, "no font 'cmr11' among the glyphs; did you mean 'cmr10'?"),
        ({"classes": ["A", "C"]}, "no class 'C' among the glyphs; did you mean 'Cc'?"),
        ({"size": 8}, "a size of at least 16"),
        ({"fonts": []}, "at least one font"),
    ],
)
def test_wrong_words_are_named(arguments, words):
    with pytest.raises(DataError) as caught:
        draw(4, seed=0, **arguments)
    assert words in str(caught.value)


def test_thinning_leaves_a_line_and_keeps_holes():
    ink = np.zeros((2, 20, 30), dtype=bool)
    ink[0, 6:13, 4:26] = True
    ink[1, 3:17, 5:25] = True
    ink[1, 8:12, 12:18] = False
    line, ring = thin(ink)
    assert line.sum(0).max() == 1
    assert 14 <= line.sum() <= 22
    assert not (line & ~ink[0]).any()
    assert ring.sum() < ink[1].sum() / 4
    assert ring[:10, 15].any()
    assert ring[10:, 15].any()
    assert ring[10, :15].any()
    assert ring[10, 15:].any()


def test_the_middle_line_lies_inside_the_letter():
    field = shapes(Face("DejaVuSans.ttf"))
    on_line = field.bone == 0
    assert on_line.flatten(1).any(1).all()
    assert (field.edge[on_line] > 0).all()


def test_importing_is_light():
    heavy = ("matplotlib", "PIL", "scipy", "sklearn", "torchvision")
    modules = "sys, tlnb.engine.data.glyphs, tlnb.engine.models.convnet5"
    code = f"import {modules}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
