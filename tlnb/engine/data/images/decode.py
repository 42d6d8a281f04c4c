"""From a picture file to pixels at the size that a network takes.

Pillow does it, not torchvision.io. Measured (torch 2.15, torchvision 0.29, Pillow 13; one thread, resize to
256 and crop of 224 included): photos of 320 px take 2.2 ms with Pillow and 2.1 ms with torchvision.io, photos
of 12 megapixels 18 ms and 66 ms, because Pillow can ask the JPEG decoder for a half, a quarter or an eighth
of the size (draft mode). Pillow also reads every other kind, knows palettes, CMYK and orientation, and lets
go of Python's lock while it decodes and resizes.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from tlnb.engine.data.images.headers import BadPicture, check_size
from tlnb.engine.data.preprocess import Preprocess

# The decoder never goes below this many times the training size. At 1 the mean difference from decoding the
# whole picture was 0.39 of 255 levels, at 2 it is 0.17, and hardly slower.
DRAFT = 2
_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
    "nearest-exact": Image.Resampling.NEAREST,
}
_ORIENTATION = 0x0112  # EXIF tag


def decode_file(path: Path, preprocess: Preprocess, *, whole: bool = False) -> Tensor:
    """Decode, turn upright, resize and crop a picture.

    Args:
        path: a file of any kind that Pillow reads.
        preprocess: channels, size and interpolation.
        whole: leave the crop out, so that augmentation can choose its own.

    Returns:
        uint8 of shape (C, H, W).

    Raises:
        BadPicture: the reason in a few words.
    """
    try:
        # Read at once: Pillow's own reading goes to and fro in small steps, each under Python's lock.
        content = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content)) as image:
                check_size(*image.size)
                return decode_image(image, preprocess, whole=whole)
    except BadPicture:
        raise
    except FileNotFoundError:
        raise BadPicture("the file is gone") from None
    except Exception as error:  # decoders meet damaged files with almost any exception
        raise BadPicture(reason_of(error)) from None


def reason_of(error: Exception) -> str:
    """Why a picture could not be decoded, in a few words."""
    if isinstance(error, PermissionError):
        return "not allowed to read it"
    text = str(error).splitlines()[0] if str(error) else ""
    if "cannot identify" in text:
        return "damaged: its header makes no sense"
    return f"cannot be decoded: {text[:100] or type(error).__name__}"


def decode_image(image: Image.Image, preprocess: Preprocess, *, whole: bool = False) -> Tensor:
    """The same for an open picture: (C, H, W) uint8.

    Raises:
        BadPicture: values that have no place in 0..255. Pillow's own errors pass through.
    """
    sideways = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    height, width = _target(preprocess, *(image.size if sideways else image.size[::-1]))
    needed = (height, width) if sideways else (width, height)
    image.draft("L" if preprocess.channels == 1 else "RGB", (DRAFT * needed[0], DRAFT * needed[1]))
    image = in_colour(image, preprocess.channels)
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    pixels = np.array(_resized(image, preprocess, (height, width), whole))
    return torch.from_numpy(pixels[..., None] if pixels.ndim == 2 else pixels).permute(2, 0, 1).contiguous()


def _target(preprocess: Preprocess, height: int, width: int) -> tuple[int, int]:
    """Height and width after the resize, before the crop; the same as torchvision's Resize gives."""
    if preprocess.resize is None:
        return preprocess.size
    shorter = min(height, width)
    return int(preprocess.resize * height / shorter), int(preprocess.resize * width / shorter)


def _resized(image: Image.Image, preprocess: Preprocess, target: tuple[int, int], whole: bool) -> Image.Image:
    method = _FILTERS[preprocess.interpolation]
    height, width = target
    if whole:
        return image.resize((width, height), method)
    rows, columns = preprocess.size
    if height < rows or width < columns:  # a crop wider than the picture: torchvision fills with black
        resized = image.resize((width, height), method)
        left, top = _margin(width, columns), _margin(height, rows)
        return resized.crop((left, top, left + columns, top + rows))
    # Resize and crop in one: only the pixels that stay are computed. Pillow looks beyond the box for its
    # filter, so the result is that of a crop after the resize.
    top, left = _margin(height, rows), _margin(width, columns)
    x, y = image.width / width, image.height / height
    box = (left * x, top * y, (left + columns) * x, (top + rows) * y)
    return image.resize((columns, rows), method, box=box)


def _margin(have: int, want: int) -> int:
    """Where a centre crop begins; torchvision rounds to even where it cuts, and down where it fills."""
    return round((have - want) / 2) if have >= want else -((want - have) // 2)


def in_colour(image: Image.Image, channels: int) -> Image.Image:
    """Grey (1 channel) or RGB (3), eight bits each; what is transparent shows white behind it.

    Raises:
        BadPicture: floating-point values beyond 0..255.
    """
    wanted = "L" if channels == 1 else "RGB"
    if image.mode == wanted:
        return image
    if image.mode.startswith(("I", "F")):
        return _from_deep(image).convert(wanted)
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        exif = image.getexif()
        front = image.convert("RGBA")
        back = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(back, front)
        image.getexif().update(exif)
    return image.convert(wanted)


def _from_deep(image: Image.Image) -> Image.Image:
    """Eight bits from sixteen or more; Pillow's own conversion would cut all above 255 off to white."""
    exif, values = image.getexif(), np.asarray(image)
    if image.mode == "F":
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 255):
            raise BadPicture(f"floating-point values from {low:g} to {high:g}; 0 to 1 or 0 to 255 is read")
        scale = 255.0 if high <= 1 else 1.0
    else:
        if values.min() < 0 or values.max() > 65535:
            raise BadPicture(f"values from {values.min()} to {values.max()}; at most 16 bits are read")
        scale = 255.0 / 65535.0 if image.mode.startswith("I;16") or values.max() > 255 else 1.0
    grey = Image.fromarray(np.round(values.astype(np.float64) * scale).astype(np.uint8))
    grey.getexif().update(exif)
    return grey
