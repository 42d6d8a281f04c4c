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
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tlnb.engine.data.images.headers import BadPicture, check_size
from tlnb.engine.data.images.scale import PLAIN, PixelScale
from tlnb.engine.data.images.tiff import PACKED, TiffHeader, tiff_header, tiff_values
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
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXTRA = 338  # TIFF tag: what the bands after the colours are


def decode_file(
    path: Path, preprocess: Preprocess, *, whole: bool = False, scale: PixelScale = PLAIN
) -> Tensor:
    """Decode, turn upright, resize and crop a picture.

    Args:
        path: a file of any kind that Pillow reads, or a TIFF of several bands.
        preprocess: channels, size and interpolation.
        whole: leave the crop out, so that augmentation can choose its own.
        scale: what is black and white, and which bands are shown.

    Returns:
        uint8 of shape (C, H, W).

    Raises:
        BadPicture: the reason in a few words.
    """
    try:
        # Read at once: Pillow's own reading goes to and fro in small steps, each under Python's lock.
        content = path.read_bytes()
    except FileNotFoundError:
        raise BadPicture("the file is gone") from None
    except OSError as error:
        raise BadPicture(reason_of(error)) from None
    return decode_bytes(content, preprocess, whole=whole, scale=scale)


def decode_bytes(
    content: bytes, preprocess: Preprocess, *, whole: bool = False, scale: PixelScale = PLAIN
) -> Tensor:
    """The same for what such a file holds."""
    try:
        header = own_header(content)
        if header is not None:
            return _fitted(
                _picture_of(_shown(tiff_values(content, header), header, scale), scale), preprocess, whole
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content)) as image:
                check_size(*image.size)
                return decode_image(image, preprocess, whole=whole, scale=scale)
    except BadPicture:
        raise
    except Exception as error:  # decoders meet damaged files with almost any exception
        raise BadPicture(reason_of(error)) from None


def own_header(content: bytes) -> TiffHeader | None:
    """The header of a TIFF that is read here, as Pillow would not read it or cut it to eight bits."""
    if content[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return None
    header = tiff_header(content)
    if header is None or (header.bands == 1 and header.dtype.str[1:] not in ("u4", "f8", "i1")):
        return None
    if header.packed not in PACKED and header.bands <= 4 and not header.is_deep:
        return None
    usual = header.bands == (3 if header.colours else 1) + (header.opacity is not None)
    return header if header.is_deep or not usual else None


def deep_values(content: bytes) -> np.ndarray | None:
    """The values of a picture with more than eight bits, (H, W, bands) without opacity; None for others.

    Raises:
        Exception: of any kind, where the file is damaged.
    """
    header = own_header(content)
    if header is not None:
        values = tiff_values(content, header) if header.is_deep else None
        return None if values is None else _colours(values, header)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(content)) as image:
            check_size(*image.size)
            return _deep(image)


def reason_of(error: Exception) -> str:
    """Why a picture could not be decoded, in a few words."""
    if isinstance(error, PermissionError):
        return "not allowed to read it"
    text = str(error).splitlines()[0] if str(error) else ""
    if "cannot identify" in text:
        return "damaged: its header makes no sense"
    return f"cannot be decoded: {text[:100] or type(error).__name__}"


def decode_image(
    image: Image.Image, preprocess: Preprocess, *, whole: bool = False, scale: PixelScale = PLAIN
) -> Tensor:
    """The same for an open picture: (C, H, W) uint8.

    Raises:
        BadPicture: values that have no place on the scale. Pillow's own errors pass through.
    """
    deep = _deep(image)  # first, as reading the orientation of a PNG decodes it
    sideways = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    height, width = _target(preprocess, *(image.size if sideways else image.size[::-1]))
    needed = (height, width) if sideways else (width, height)
    if scale.is_plain:
        image.draft("L" if preprocess.channels == 1 else "RGB", (DRAFT * needed[0], DRAFT * needed[1]))
    turn = image.getexif().get(_ORIENTATION, 1)
    if deep is None:
        picture = in_colour(image, preprocess.channels, scale)
    else:
        picture = _picture_of(scale.to_bytes(scale.chosen(deep)), scale)
    return _fitted(picture, preprocess, whole, turn)


def _fitted(
    picture: Image.Image | list[Image.Image], preprocess: Preprocess, whole: bool, turn: int = 1
) -> Tensor:
    """Upright and at the size of the network: (C, H, W); of a list, each picture is a channel."""
    if isinstance(picture, list):
        if len(picture) != preprocess.channels:
            raise BadPicture(
                f"{len(picture)} bands; the network takes {preprocess.channels}: --bands 1,2,3 chooses as many"
            )
        return torch.cat([_fitted(band, replace(preprocess, channels=1), whole, turn) for band in picture])
    wanted = "L" if preprocess.channels == 1 else "RGB"
    picture = picture if picture.mode == wanted else picture.convert(wanted)
    if turn in _TURNS:
        picture = picture.transpose(_TURNS[turn])
    pixels = np.array(_resized(picture, preprocess, _target(preprocess, *picture.size[::-1]), whole))
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


def in_colour(
    image: Image.Image, channels: int, scale: PixelScale = PLAIN
) -> Image.Image | list[Image.Image]:
    """Grey (1 channel) or RGB (3), eight bits each; what is transparent shows white behind it.

    Returns:
        A picture; a list with one of each band where ``scale`` chooses another number of bands than 1 or 3.

    Raises:
        BadPicture: values that have no place on the scale, or too few bands.
    """
    wanted = "L" if channels == 1 else "RGB"
    deep = _deep(image)
    if deep is not None:
        return _picture_of(scale.to_bytes(scale.chosen(deep)), scale)
    if scale.bands:
        values = np.asarray(image.convert("RGBA" if "transparency" in image.info else "RGB")
                            if image.mode in ("P", "1", "CMYK", "YCbCr", "LAB", "HSV") else image)  # fmt: skip
        values = scale.chosen(values if values.ndim == 3 else values[..., None])
        return _picture_of(scale.to_bytes(values) if scale.given else values, scale)
    if image.mode == wanted and not scale.given and "transparency" not in image.info:
        return image
    if not_opaque(image):
        image = Image.fromarray(np.ascontiguousarray(np.asarray(image)[..., :3]))
    elif "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image = image.convert(wanted)
    return Image.fromarray(scale.to_bytes(np.asarray(image))) if scale.given else image


def not_opaque(image: Image.Image) -> bool:
    """Whether a fourth band is no opacity: a TIFF says so, or does not say that it is."""
    tags = getattr(image, "tag_v2", None)
    if image.format != "TIFF" or tags is None or image.mode not in ("RGBA", "RGBX"):
        return False
    extra = tags.get(_EXTRA, ())
    return not {1, 2} & set(extra if isinstance(extra, tuple) else (extra,))


def _picture_of(values: np.ndarray, scale: PixelScale) -> Image.Image | list[Image.Image]:
    """Bytes (H, W, bands) as a picture in grey or colours, or one of each band."""
    count = values.shape[-1]
    if count == 1:
        return Image.fromarray(np.ascontiguousarray(values[..., 0]))
    if count == 3:
        return Image.fromarray(np.ascontiguousarray(values))
    if not scale.bands:
        raise BadPicture(f"{count} bands; which of them are red, green and blue: --bands 1,2,3")
    return [Image.fromarray(np.ascontiguousarray(values[..., band])) for band in range(count)]


def _shown(values: np.ndarray, header: TiffHeader, scale: PixelScale) -> np.ndarray:
    """Bytes of the bands that are used, before white where a band is opacity."""
    if scale.bands:
        values = scale.chosen(values)
        return scale.to_bytes(values) if header.is_deep or scale.given else values.astype(np.uint8)
    colours = _colours(values, header)
    made = scale.to_bytes(colours) if header.is_deep or scale.given else colours
    if header.opacity is None or header.dtype.kind == "f":
        return made
    seen = values[..., header.opacity, None] / np.iinfo(values.dtype).max
    return np.round(made * seen + 255 * (1 - seen)).astype(np.uint8)


def _colours(values: np.ndarray, header: TiffHeader) -> np.ndarray:
    """The bands that are grey or colours: those that the file says, and no others."""
    others = header.bands - (3 if header.colours else 1)
    if header.colours and others >= 0:
        return values[..., :3] if others <= 1 else values
    return np.delete(values, header.opacity, -1) if header.opacity is not None and others == 1 else values


def _deep(image: Image.Image) -> np.ndarray | None:
    """The values of a picture with more than eight bits, (H, W, bands); None for all others."""
    if image.mode.startswith(("I", "F")):
        return np.asarray(image)[..., None]
    rows = [str(tile[3]) for tile in getattr(image, "tile", ())]
    if image.format != "PNG" or not rows or not rows[0].endswith(";16B"):
        return None
    content = _whole(cast(Any, image).fp)
    if rows[0].startswith("LA"):
        pairs = _as_bytes(content).view(">u2").astype(np.uint16)
        values, opacity = pairs[..., :1], pairs[..., 1:]
    else:  # Pillow keeps the high bytes only; told that the low byte comes first, it gives the low ones
        with Image.open(io.BytesIO(content)) as high, Image.open(io.BytesIO(content)) as low:
            low.tile = [tile._replace(args=rows[0].removesuffix("B") + "L") for tile in low.tile]
            both = np.asarray(high).astype(np.uint16) << 8 | np.asarray(low)
        values, opacity = both[..., :3], both[..., 3:]
    if opacity.size == 0 or (opacity == 65535).all():
        return values
    seen = opacity / 65535
    return np.round(values * seen + 65535 * (1 - seen))


def _as_bytes(png: bytes) -> np.ndarray:
    """The bytes of a PNG of 16 bits in grey and opacity, (H, W, 4): under a header of four times eight bits."""
    header = bytearray(png[12:29])
    header[12], header[13] = 8, 6
    other = png[:12] + header + zlib.crc32(header).to_bytes(4, "big") + png[33:]
    with Image.open(io.BytesIO(other)) as image:
        return np.array(image)


def _whole(file: Any) -> bytes:
    place = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(place)
    return bytes(content)
