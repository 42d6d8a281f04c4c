"""Where pictures come from, one at a time: files, a data set's items, a tensor."""

from __future__ import annotations

import hashlib
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tlnb.engine.core.fingerprint import item_digest, tensors_digest
from tlnb.engine.data.fingerprint import HASHED, of_files, of_rows
from tlnb.engine.data.images.decode import decode_file, decode_image, reason_of
from tlnb.engine.data.images.headers import BadPicture
from tlnb.engine.data.images.scale import PLAIN, PixelScale
from tlnb.engine.data.preprocess import Preprocess


class Reader(ABC):
    """Pictures by number.

    Attributes:
        threads: whether several threads may read at once.
        dtype: of the pictures: uint8, or a floating-point type for values in 0..1.
    """

    threads = True
    dtype = torch.uint8

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, number: int, preprocess: Preprocess, *, whole: bool = False) -> Tensor:
        """A picture at training size, or before the crop: uint8 (C, H, W).

        Raises:
            BadPicture: the reason in a few words.
        """

    @abstractmethod
    def stamps(self, numbers: Sequence[int]) -> list[object]:
        """For each picture something that changes when the picture does; cheap."""

    @abstractmethod
    def digest(self, numbers: Sequence[int]) -> str:
        """A digest of the content of these pictures."""

    def quick_digest(self, numbers: Sequence[int]) -> str | None:
        """The same at a bounded cost; None where only the samples can tell."""
        return None

    def digest_of(self, number: int) -> bytes | None:
        """A digest of one picture as it comes; None where it cannot be read, or is known otherwise."""
        return None

    def path(self, number: int) -> Path | None:
        """The file of a picture; None where it is none."""
        return None

    def name(self, number: int) -> str:
        """What a picture is called."""
        return f"sample {number}"


class FileReader(Reader):
    """Picture files.

    Args:
        root: folder.
        names: paths below it.
        scale: of their pixels.
    """

    def __init__(self, root: Path, names: Sequence[str], scale: PixelScale = PLAIN):
        self.root, self.names, self.scale = root, list(names), scale
        self._digests: dict[int, tuple[object, bytes]] = {}

    def __len__(self) -> int:
        return len(self.names)

    def name(self, number: int) -> str:
        """The path below the folder."""
        return self.names[number]

    def path(self, number: int) -> Path:
        """The path with its folder."""
        return self.root / self.names[number]

    def read(self, number: int, preprocess: Preprocess, *, whole: bool = False) -> Tensor:
        """The decoded file."""
        return decode_file(self.path(number), preprocess, whole=whole, scale=self.scale)

    def stamps(self, numbers: Sequence[int]) -> list[object]:
        """Size and times; the time of change is the system's own and cannot be set back."""
        return [_stamp(self.path(number)) for number in numbers]

    def digest(self, numbers: Sequence[int]) -> str:
        """Over names and contents, or names, sizes and times where there are more than ``HASHED`` bytes."""
        different = dict.fromkeys(numbers)  # a file may stand there many times
        stamps = dict(zip(different, self.stamps(list(different)), strict=True))
        sizes = {n: stamp[0] if isinstance(stamp, tuple) else 0 for n, stamp in stamps.items()}
        small = sum(map(sizes.__getitem__, numbers)) <= HASHED
        sha = hashlib.sha256(b"" if self.scale.is_plain else repr(self.scale).encode())
        told = {
            number: os.fsencode(self.names[number])
            + b"\0"
            + (self._content(number, stamp) if small else repr(stamp).encode())
            for number, stamp in stamps.items()
        }
        for number in numbers:
            sha.update(told[number])
        return sha.hexdigest()

    def quick_digest(self, numbers: Sequence[int]) -> str:
        """Over the contents of few, over sizes and times of many; see ``data.fingerprint``."""
        names, paths = [self.names[n] for n in numbers], [self.path(n) for n in numbers]
        return of_files(names, paths, lambda: self.digest(numbers))

    def _content(self, number: int, stamp: object) -> bytes:
        known = self._digests.get(number)
        if known is None or known[0] != stamp:
            try:
                content = self.path(number).read_bytes()
            except OSError:
                content = b""
            known = (stamp, hashlib.sha256(content).digest())
            self._digests[number] = known
        return known[1]


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_size, about.st_mtime_ns, about.st_ctime_ns


class TensorReader(Reader):
    """Pictures in memory that are fitted to the network when they are asked for.

    Args:
        images: uint8, or floating point in 0..1, of shape (N, C, H, W).
    """

    def __init__(self, images: Tensor):
        self.images, self.dtype = images, images.dtype

    def __len__(self) -> int:
        return len(self.images)

    def read(self, number: int, preprocess: Preprocess, *, whole: bool = False) -> Tensor:
        """The picture, resized and cropped."""
        return fit_tensor(self.images[number], preprocess, whole=whole)

    def stamps(self, numbers: Sequence[int]) -> list[object]:
        """How often the tensor was written to."""
        return [self.images._version] * len(numbers)

    def digest(self, numbers: Sequence[int]) -> str:
        """Over the pixels."""
        return tensors_digest([("images", self.images[torch.as_tensor(numbers)])])

    def quick_digest(self, numbers: Sequence[int]) -> str:
        """Over the whole tensor, and which of its pictures."""
        return of_rows(self.images) + tensors_digest([("rows", torch.as_tensor(numbers, dtype=torch.int64))])


class ItemReader(Reader):
    """Pictures out of a data set that gives one item at a time.

    Args:
        count: how many there are.
        item: gives the picture of a number: a Pillow image, an array or a tensor.
        scale: of their pixels.

    The data set is another's code, so it is called in one thread at a time.
    """

    threads = False

    def __init__(self, count: int, item: Callable[[int], Any], scale: PixelScale = PLAIN):
        self.count, self.item, self.scale = count, item, scale

    def __len__(self) -> int:
        return self.count

    def read(self, number: int, preprocess: Preprocess, *, whole: bool = False) -> Tensor:
        """The item's picture, turned upright, resized and cropped."""
        try:
            item = self.item(number)
            if isinstance(item, dict) and ("bytes" in item or "path" in item):  # Hugging Face, not decoded
                source = io.BytesIO(item["bytes"]) if item.get("bytes") else item["path"]
                item = Image.open(source)
            if isinstance(item, Image.Image):
                return decode_image(item, preprocess, whole=whole, scale=self.scale)
            return fit_tensor(as_image_tensor(item, self.scale), preprocess, whole=whole)
        except BadPicture:
            raise
        except Exception as error:  # another's code may raise anything
            raise BadPicture(reason_of(error)) from None

    def stamps(self, numbers: Sequence[int]) -> list[object]:
        """Nothing: items are taken not to change."""
        return [None] * len(numbers)

    def digest_of(self, number: int) -> bytes | None:
        """Over the pixels, or the bytes of a file that is not decoded yet."""
        return item_digest(lambda: self.item(number))

    def digest(self, numbers: Sequence[int]) -> str:
        """Over the items themselves, at a small size."""
        small = Preprocess(3, (16, 16), None)
        return tensors_digest((str(n), self.read(n, small)) for n in numbers)


def as_image_tensor(item: Any, scale: PixelScale = PLAIN) -> Tensor:
    """A uint8 tensor (C, H, W) from an array or tensor in (H, W), (H, W, C) or (C, H, W).

    Args:
        item: uint8 in 0..255, other whole numbers, or floating point in 0..1.
        scale: what is black and white in it, and which bands are used.

    Raises:
        BadPicture: another shape, or other values.
    """
    values = item.detach().cpu().numpy() if isinstance(item, Tensor) else np.asarray(item)
    if values.dtype.kind not in "uif":
        raise BadPicture(f"an array of {values.dtype} is not a picture")
    if values.ndim == 2:
        values = values[..., None]
    elif values.ndim == 3 and is_channels_first(values.shape):
        values = np.moveaxis(values, 0, -1)
    if values.ndim != 3:
        raise BadPicture(f"an array of shape {values.shape} is not a picture")
    if scale.bands:
        values = scale.chosen(values)
    elif values.shape[-1] == 4 and values.dtype == np.uint8 and are_opacity(values[..., 3]):
        opacity = values[..., 3:].astype(np.float32) / 255
        values = np.round(values[..., :3] * opacity + 255 * (1 - opacity)).astype(np.uint8)
    elif values.shape[-1] not in (1, 3):
        raise BadPicture(
            f"an array of shape {tuple(np.shape(item))} is not a picture; --bands 1,2,3 chooses its bands"
        )
    if values.dtype.kind == "f" and scale.white is None:
        if values.size and not (values.min() >= 0 and values.max() <= 1):
            raise BadPicture(f"values from {values.min():g} to {values.max():g}; 0 to 1 is read")
        values = np.round(values * 255).astype(np.uint8)
    elif values.dtype != np.uint8 or scale.given:
        values = scale.to_bytes(values)
    return torch.from_numpy(np.require(np.moveaxis(values, -1, 0), requirements=["C", "W"]))


def is_channels_first(shape: Sequence[int]) -> bool:
    """Whether (A, B, C) is (bands, height, width), not (height, width, bands)."""
    if shape[0] in (1, 3) or shape[2] in (1, 3):
        return shape[0] in (1, 3)
    return shape[0] < min(shape[1], shape[2])


def are_opacity(values: Any) -> bool:
    """Whether a fourth band looks like opacity: at least half of it is wholly clear or wholly opaque."""
    return bool(((values == 0) | (values == 255)).mean(dtype=np.float64) >= 0.5)


def fit_tensor(image: Tensor, preprocess: Preprocess, *, whole: bool = False) -> Tensor:
    """Resize and crop one picture of shape (C, H, W)."""
    batch = image.unsqueeze(0)
    return preprocess.colour(preprocess.scale(batch) if whole else preprocess.crop(batch))[0].contiguous()
