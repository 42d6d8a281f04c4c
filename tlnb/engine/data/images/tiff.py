"""TIFFs that Pillow does not open, or reads with eight bits only: many bands, and colours of 16 or 32 bits.

Satellites, microscopes and scanners write them. Read here: strips and tiles, bands side by side or one after the other,
whole numbers of 8 to 32 bits and floating point; uncompressed, deflated, LZW or PackBits.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np

from tlnb.engine.data.images.headers import BadPicture, check_size

MOST_BYTES = 1 << 30  # of one picture, unpacked
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}
_CODES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q"}
PACKED = {1: "not", 5: "LZW", 8: "deflate", 32946: "deflate", 32773: "PackBits"}
_LISTED = 1 << 20  # strips or tiles of a picture


@dataclass(frozen=True)
class TiffHeader:
    """What a TIFF says of its first picture.

    Args:
        width, height: in pixels.
        bands: how many values a pixel has.
        dtype: of the values.
        opacity: number of the band that is opacity, from 0; None for none.
        packed, predictor: how they are packed.
        planar: whether bands stand one after the other.
        block: height and width of a strip or tile.
        places: offset and length of each strip or tile.
        inverted: whether zero is white.
        colours: whether the first three bands are red, green and blue.
    """

    width: int
    height: int
    bands: int
    dtype: np.dtype
    opacity: int | None
    packed: int
    predictor: int
    planar: bool
    block: tuple[int, int]
    places: tuple[tuple[int, int], ...]
    inverted: bool
    colours: bool

    @property
    def is_deep(self) -> bool:
        """Whether a value has more than eight bits."""
        return self.dtype.itemsize > 1


def tiff_header(content: bytes) -> TiffHeader | None:
    """The header of a TIFF's first picture; None where it is of a kind that is left to Pillow.

    Raises:
        BadPicture: no pixels, or too many.
    """
    try:
        tags = _tags(content)
        width, height = int(tags[256][0]), int(tags[257][0])
        check_size(width, height)
        bands = int(tags.get(277, (1,))[0])
        photometric = int(tags.get(262, (1,))[0])
        dtype = _dtype(tags, bands, "<" if content[:2] == b"II" else ">")
        if dtype is None or photometric not in (0, 1, 2) or not 1 <= bands <= 1 << 12:
            return None
        tiled = 322 in tags
        block = (int(tags[323][0]), int(tags[322][0])) if tiled else (
            min(int(tags.get(278, (height,))[0]), height), width
        )  # fmt: skip
        places = tuple(
            zip(map(int, tags[324 if tiled else 273]), map(int, tags[325 if tiled else 279]), strict=True)
        )
    except (KeyError, ValueError, IndexError, struct.error):
        return None
    colours = photometric == 2
    extra = [int(kind) for kind in tags.get(338, ())]
    first = bands - len(extra)
    opacity = next((first + i for i, kind in enumerate(extra) if kind in (1, 2) and first + i < bands), None)
    if min(block) < 1:
        return None
    return TiffHeader(
        width, height, bands, dtype, opacity, int(tags.get(259, (1,))[0]), int(tags.get(317, (1,))[0]),
        int(tags.get(284, (1,))[0]) == 2, block, places, photometric == 0, colours,
    )  # fmt: skip


def _tags(content: bytes) -> dict[int, tuple]:
    order = "<" if content[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", content, 2)[0] == 43
    at = struct.unpack_from(order + ("Q" if big else "I"), content, 8 if big else 4)[0]
    count = struct.unpack_from(order + ("Q" if big else "H"), content, at)[0]
    at += 8 if big else 2
    found: dict[int, tuple] = {}
    for _ in range(min(count, 4096)):
        tag, kind, length = struct.unpack_from(order + ("HHQ" if big else "HHI"), content, at)
        room, place = (8, at + 12) if big else (4, at + 8)
        size = _SIZES.get(kind, 0) * length
        if kind in _CODES and 0 < length <= _LISTED:
            if size > room:
                place = struct.unpack_from(order + ("Q" if big else "I"), content, place)[0]
            found.setdefault(tag, struct.unpack_from(f"{order}{length}{_CODES[kind]}", content, place))
        at += 20 if big else 12
    return found


def _dtype(tags: dict[int, tuple], bands: int, order: str) -> np.dtype | None:
    bits = set(tags.get(258, (1,)))
    kinds = set(tags.get(339, (1,)))
    if len(bits) != 1 or len(kinds) != 1 or len(tags.get(258, (1,))) not in (1, bands):
        return None
    letter = {1: "u", 2: "i", 3: "f"}.get(kinds.pop())
    width = bits.pop()
    if letter is None or width not in ((16, 32, 64) if letter == "f" else (8, 16, 32)):
        return None
    return np.dtype(f"{order}{letter}{width // 8}")


def tiff_values(content: bytes, header: TiffHeader) -> np.ndarray:
    """The pixels of the first picture: (H, W, bands), in the machine's own byte order.

    Raises:
        BadPicture: damaged, too large, or packed in another way.
    """
    if header.packed not in PACKED:
        raise BadPicture(
            f"a TIFF of {header.bands} bands packed in a rare way ({header.packed}); save it uncompressed or deflated"
        )
    size = header.width * header.height * header.bands * header.dtype.itemsize
    if size > MOST_BYTES:
        raise BadPicture(
            f"too large: {size / 1e9:.1f} GB of pixels, the limit is {MOST_BYTES / 1e9:.1f} GB; make it smaller"
        )
    rows, columns = header.block
    across, down = -(-header.width // columns), -(-header.height // rows)
    planes, each = (header.bands, 1) if header.planar else (1, header.bands)
    if len(header.places) != across * down * planes:
        raise BadPicture("damaged: its parts are not as many as its size asks for")
    if rows * columns * each * header.dtype.itemsize > MOST_BYTES:
        raise BadPicture("damaged: a part is larger than any picture")
    made = np.zeros((planes, header.height, header.width, each), header.dtype.newbyteorder("="))
    for number, (offset, length) in enumerate(header.places):
        plane, place = divmod(number, across * down)
        top, left = place // across * rows, place % across * columns
        high = rows if columns != header.width or top + rows <= header.height else header.height - top
        part = _part(content[offset : offset + length], header, (high, columns, each))
        target = made[plane, top : top + rows, left : left + columns]
        target[...] = part[: target.shape[0], : target.shape[1]]
    values = made[0] if planes == 1 else np.ascontiguousarray(made[..., 0].transpose(1, 2, 0))
    if header.inverted and values.dtype.kind == "u":
        values = np.iinfo(values.dtype).max - values
    return values


def _part(packed: bytes, header: TiffHeader, shape: tuple[int, int, int]) -> np.ndarray:
    """One strip or tile, without its last rows where they are missing."""
    size = shape[0] * shape[1] * shape[2] * header.dtype.itemsize
    try:
        content = _unpacked(packed, header.packed, size)
    except (zlib.error, IndexError, KeyError):
        raise BadPicture("damaged: its pixels cannot be unpacked") from None
    if len(content) < size:
        # Tiles are whole; the last strip may be written in full or as far as there are rows.
        raise BadPicture("cut off: pixels are missing")
    values = np.frombuffer(content[:size], header.dtype).reshape(shape)
    if header.predictor == 2 and header.dtype.kind != "f":
        return np.cumsum(values, axis=1, dtype=header.dtype.newbyteorder("="))
    if header.predictor == 3:
        return _floats(content[:size], header, shape)
    return values


def _floats(content: bytes, header: TiffHeader, shape: tuple[int, int, int]) -> np.ndarray:
    """Floating point whose bytes were sorted by weight, then subtracted from their neighbours."""
    width = header.dtype.itemsize
    rows = np.frombuffer(content, np.uint8).reshape(shape[0], -1, shape[2])
    summed = np.cumsum(rows, axis=1, dtype=np.uint8).reshape(shape[0], width, -1)
    return np.ascontiguousarray(summed.transpose(0, 2, 1)).view(f">f{width}").reshape(shape)


def _unpacked(packed: bytes, how: int, size: int) -> bytes:
    if how == 1:
        return packed
    if PACKED[how] == "deflate":
        return zlib.decompressobj().decompress(packed, size)
    return _lzw(packed, size) if how == 5 else _packbits(packed, size)


def _packbits(packed: bytes, size: int) -> bytes:
    made, at = bytearray(), 0
    while at < len(packed) and len(made) < size:
        sign = packed[at]
        if sign < 128:
            made += packed[at + 1 : at + 2 + sign]
            at += 2 + sign
        else:
            if sign > 128:
                made += packed[at + 1 : at + 2] * (257 - sign)
            at += 2
    return bytes(made)


def _lzw(packed: bytes, size: int) -> bytes:
    """TIFF's LZW: codes of 9 to 12 bits, the highest bit first; 256 clears the table, 257 ends."""
    made, table, before = bytearray(), _LZW_START, b""
    buffer = bits = 0
    width = 9
    for byte in packed:
        buffer, bits = buffer << 8 | byte, bits + 8
        if bits < width:
            continue
        bits -= width
        code, buffer = buffer >> bits, buffer & ((1 << bits) - 1)
        if code == 257 or len(made) >= size:
            break
        if code == 256:
            table, width, before = list(_LZW_START), 9, b""
            continue
        if not before:
            before = table[code]
            made += before
            continue
        entry = table[code] if code < len(table) else before + before[:1]
        made += entry
        table.append(before + entry[:1])
        width = 12 if len(table) >= 2047 else 11 if len(table) >= 1023 else 10 if len(table) >= 511 else 9
        before = entry
    return bytes(made)


_LZW_START = [bytes([value]) for value in range(256)] + [b"", b""]
