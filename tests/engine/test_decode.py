"""Decoded pictures agree with torchvision's reference, whatever kind of file they come from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pictures import drawing, encoded
from PIL import Image, ImageOps
from torchvision.transforms import v2

from tlnb.engine.data.images.decode import decode_file
from tlnb.engine.data.images.headers import BadPicture
from tlnb.engine.data.preprocess import Preprocess

PRESET = Preprocess(3, (56, 56), 64)


def decoded(tmp_path, image, kind="PNG", preprocess=PRESET, **options):
    path = tmp_path / f"picture.{kind.lower()}"
    path.write_bytes(encoded(image, kind, **options))
    return decode_file(path, preprocess)


def reference(image, preprocess=PRESET):
    """torchvision's own evaluation transform on the whole decoded picture."""
    steps = v2.Compose(
        [
            v2.PILToTensor(),
            v2.Resize(preprocess.resize, v2.InterpolationMode(preprocess.interpolation), antialias=True),
            v2.CenterCrop(preprocess.size),
        ]
    )
    return steps(image.convert("RGB"))


def difference(one, other):
    return (one.int() - other.int()).abs()


@pytest.mark.parametrize("size", [(80, 64), (65, 203), (300, 90), (64, 64), (31, 50), (641, 480)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resize_and_crop_are_those_of_torchvision(tmp_path, size, interpolation):
    preprocess = Preprocess(3, (56, 56), 64, interpolation=interpolation)
    image = drawing(1, size)
    ours, theirs = decoded(tmp_path, image, preprocess=preprocess), reference(image, preprocess)
    assert ours.shape == theirs.shape == (3, 56, 56)
    assert difference(ours, theirs).max() <= 2
    assert difference(ours, theirs).float().mean() < 0.3


def test_noise_agrees_too(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (150, 210, 3), np.uint8))
    assert difference(decoded(tmp_path, image), reference(image)).max() <= 2


def test_a_crop_wider_than_the_picture_is_filled_as_torchvision_does(tmp_path):
    preprocess = Preprocess(3, (40, 60), 40)
    image = drawing(2, (50, 48))
    ours, theirs = decoded(tmp_path, image, preprocess=preprocess), reference(image, preprocess)
    assert difference(ours, theirs).max() <= 2
    assert not ours[:, :, 0].any()


def test_the_draft_of_a_large_jpeg_is_near(tmp_path):
    image = drawing(3, (2400, 1800))
    ours = decoded(tmp_path, image, "JPEG", quality=95)
    with Image.open(tmp_path / "picture.jpeg") as whole:
        theirs = reference(whole)
    assert difference(ours, theirs).float().mean() < 0.6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("resize", [64, None])
def test_pictures_stand_upright(tmp_path, orientation, resize):
    preprocess = Preprocess(3, (48, 60), resize)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = drawing(4, (120, 90))
    ours = decoded(tmp_path, image, "JPEG", preprocess, quality=100, subsampling=0, exif=exif)
    with Image.open(tmp_path / "picture.jpeg") as stored:
        upright = ImageOps.exif_transpose(stored)
    (tmp_path / "upright").mkdir()
    assert difference(ours, decoded(tmp_path / "upright", upright, preprocess=preprocess)).max() <= 3


def test_sixteen_bits_keep_their_range(tmp_path):
    grey = np.asarray(drawing(5).convert("L"))
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    for kind in ("PNG", "TIFF"):
        ours = decoded(tmp_path, deep, kind)
        assert difference(ours, decoded(tmp_path, Image.fromarray(grey))).max() <= 1


def test_transparent_is_white_whatever_colour_lies_below(tmp_path):
    clear = Image.new("RGBA", (64, 64), (200, 0, 0, 0))
    assert (decoded(tmp_path, clear) == 255).all()
    palette = Image.new("P", (64, 64), 3)
    palette.putpalette([10, 20, 30] * 256)
    assert (decoded(tmp_path, palette, "PNG", transparency=3) == 255).all()
    for mode, colour in (("RGB", (1, 2, 3)), ("L", 7)):
        assert (decoded(tmp_path, Image.new(mode, (64, 64), colour), "PNG", transparency=colour) == 255).all()


def test_cmyk_and_grey_have_the_right_colours(tmp_path):
    red = Image.new("RGB", (64, 64), (220, 30, 40)).convert("CMYK")
    assert difference(decoded(tmp_path, red, "JPEG")[:, 28, 28], torch.tensor([220, 30, 40])).max() <= 6
    grey = decoded(tmp_path, Image.new("L", (64, 64), 90))
    assert (grey == 90).all()
    assert decoded(tmp_path, drawing(6), preprocess=Preprocess(1, (20, 20), None, (0.5,), (0.5,))).shape == (
        1,
        20,
        20,
    )


def test_floating_point_is_read_within_its_range_and_refused_beyond(tmp_path):
    for top in (1.0, 255.0):
        grey = drawing(7).convert("L")
        values = Image.fromarray(np.asarray(grey).astype(np.float32) / 255 * top)
        assert difference(decoded(tmp_path, values, "TIFF"), reference(grey)).max() <= 1
    with pytest.raises(BadPicture, match="floating-point values from"):
        decoded(tmp_path, Image.fromarray(np.full((9, 9), -4.0, np.float32)), "TIFF")


def test_the_first_frame_of_a_moving_picture_is_used(tmp_path):
    frames = [drawing(n) for n in (8, 9)]
    for kind in ("WEBP", "PNG"):
        ours = decoded(tmp_path, frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
        assert difference(ours, reference(frames[0])).max() <= 2
