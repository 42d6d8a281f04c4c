"""Pictures drawn for tests, sound ones and forty kinds that are not."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def drawing(seed: int = 0, size: tuple[int, int] = (40, 32), mode: str = "RGB") -> Image.Image:
    """A smooth picture of the given width and height, different for each seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """The bytes of a picture file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def class_folders(root: Path, names: tuple[str, ...] = ("cats", "dogs"), each: int = 6) -> Path:
    """A folder with a few sound JPEGs a class; the classes differ in brightness."""
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for index in range(each):
            picture = drawing(100 * number + index).point(lambda v, n=number: v // 3 + 160 * (n % 2))
            (root / name / f"{index}.jpg").write_bytes(encoded(picture))
    return root


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of these chunks with right checksums."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, content in chunks:
        parts.append(struct.pack(">I", len(content)) + kind + content)
        parts.append(struct.pack(">I", zlib.crc32(kind + content)))
    return b"".join(parts)


def _header(width: int, height: int) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)


def _frame(jpeg: bytes, marker: int | None = None, bits: int = 8, side: int | None = None) -> bytes:
    """The JPEG with another frame header."""
    at = jpeg.index(b"\xff\xc0")
    frame = bytes([0xFF, marker or 0xC0]) + jpeg[at + 2 : at + 4] + bytes([bits])
    frame += struct.pack(">HH", side, side) if side is not None else jpeg[at + 5 : at + 9]
    return jpeg[:at] + frame + jpeg[at + 9 :]


JPEG = encoded(drawing(1, (160, 120)))
PNG = encoded(drawing(2, (160, 120)), "PNG")
GIF = encoded(drawing(3), "GIF")
BMP = encoded(drawing(4), "BMP")
WEBP = encoded(drawing(5), "WEBP")
TIFF = encoded(drawing(6), "TIFF")

# Name -> bytes, and what must stand in the reason.
BROKEN: dict[str, tuple[bytes, str]] = {
    "empty.jpg": (b"", "empty"),
    "empty.png": (b"", "empty"),
    "zeros.jpg": (bytes(500), "only zero bytes"),
    "noise.jpg": (
        np.random.default_rng(0).integers(128, 256, 900, np.uint8).tobytes(),
        "not a kind of picture",
    ),
    "text.jpg": (b"this is not a picture\n", "text, not a picture"),
    "page.jpg": (b"<!DOCTYPE html><html>404 Not Found</html>", "a web page"),
    "page.png": (b"\n  <html><body>login</body></html>", "a web page"),
    "drawing.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
    "feed.jpg": (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "an XML file"),
    "paper.jpg": (b"%PDF-1.7 ...", "a PDF"),
    "archive.jpg": (b"PK\x03\x04" + bytes(60), "a ZIP archive"),
    "packed.png": (b"\x1f\x8b\x08" + bytes(60), "a gzip archive"),
    "lfs.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
    "phone.jpg": (b"\x00\x00\x00\x18ftypheic" + bytes(60), "HEIC"),
    "layers.png": (b"8BPS\x00\x01" + bytes(60), "a Photoshop file"),
    "icon.png": (b"\x00\x00\x01\x00\x01\x00" + bytes(60), "an icon"),
    "head_only.jpg": (JPEG[:20], "cut off"),
    "cut_in_header.jpg": (JPEG[:100], "cut off"),
    "half.jpg": (JPEG[: len(JPEG) // 2], "cut off: its end is missing"),
    "no_end.jpg": (JPEG[:-2], "cut off: its end is missing"),
    "torn.jpg": (JPEG[:2] + b"\x00\x00" + JPEG[4:], "not a kind of picture"),
    "torn_later.jpg": (JPEG[:20] + b"\x00\x00\x00\x00" + JPEG[24:], "damaged"),
    "only_ends.jpg": (b"\xff\xd8\xff\xe0\x00\x02\xff\xd9\x00\x00", "ends before its pixels"),
    "flat.jpg": (_frame(JPEG, side=0), "no pixels"),
    "bomb.jpg": (_frame(JPEG, side=60_000), "too large"),
    "arithmetic.jpg": (_frame(JPEG, marker=0xC9), "rare kind"),
    "twelve_bits.jpg": (_frame(JPEG, marker=0xC1, bits=12), "rare kind"),
    "half.png": (PNG[: len(PNG) // 2], "cut off"),
    "no_end.png": (PNG[:-12], "cut off"),
    "flipped.png": (PNG[:60] + bytes([PNG[60] ^ 1]) + PNG[61:], "checksum"),
    "no_pixels.png": (png(_header(8, 8), (b"IEND", b"")), "holds no pixels"),
    "flat.png": (png(_header(0, 8), (b"IDAT", b""), (b"IEND", b"")), "no pixels"),
    "bomb.png": (png(_header(50_000, 50_000), (b"IDAT", b"x"), (b"IEND", b"")), "too large"),
    "half.gif": (GIF[: len(GIF) // 2], "cannot be decoded"),
    "head.gif": (GIF[:8], "damaged"),
    "half.bmp": (BMP[: len(BMP) // 2], "cannot be decoded"),
    "half.webp": (WEBP[: len(WEBP) // 2], "decoded"),
    "half.tif": (TIFF[: len(TIFF) // 2], "cannot be decoded"),
    "png_called.jpg": (PNG, "a PNG picture named .jpg; rename it to .png"),
    "jpeg_called.png": (JPEG, "a JPEG picture named .png; rename it to .jpg"),
    "webp_called.jpeg": (WEBP, "a WebP picture named .jpeg"),
    "no_ending": (JPEG, "without an ending"),
    "notes.txt": (b"my notes", "not a picture by its name"),
    "table.csv": (b"a,b", "not a picture by its name"),
}


def odd_but_right() -> dict[str, bytes]:
    """Pictures of unusual kinds that must come out right: name -> bytes."""
    base = drawing(7, (60, 48))
    deep = Image.fromarray(np.asarray(base.convert("L")).astype(np.uint16) * 257)
    frames = [drawing(n, (60, 48)) for n in (8, 9, 10)]
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "grey.jpg": encoded(base.convert("L")),
        "cmyk.jpg": encoded(base.convert("CMYK")),
        "progressive.jpg": encoded(base, progressive=True),
        "turned.jpg": encoded(base, exif=exif),
        "palette.png": encoded(base.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
        "alpha.png": encoded(base.convert("RGBA"), "PNG"),
        "grey_alpha.png": encoded(base.convert("LA"), "PNG"),
        "bit.png": encoded(base.convert("1"), "PNG"),
        "deep.png": encoded(deep, "PNG"),
        "deep.tif": encoded(deep, "TIFF"),
        "moving.gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "moving.png": encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        "moving.webp": encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "plain.bmp": encoded(base, "BMP"),
        "lossless.webp": encoded(base, "WEBP", lossless=True),
        "pages.tiff": encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:]),
        "CAPITALS.JPG": encoded(base),
        "tiny.png": encoded(drawing(11, (1, 1)), "PNG"),
        "long.png": encoded(drawing(12, (900, 3)), "PNG"),
        "trailing.jpg": JPEG + b"\0" * 300,
    }


def broken_folder(root: Path) -> Path:
    """Two classes of sound pictures, and every broken and odd one among them."""
    class_folders(root, ("ants", "bees"), each=8)
    for name, (content, _) in BROKEN.items():
        (root / "ants" / name).write_bytes(content)
    for name, content in odd_but_right().items():
        (root / "bees" / name).write_bytes(content)
    for hidden in (".DS_Store", "Thumbs.db", "._0.jpg"):
        (root / "ants" / hidden).write_bytes(b"clutter")
    (root / "ants" / "gone.jpg").symlink_to(root / "nowhere.jpg")
    (root / "ants" / "circle").symlink_to(root / "ants", target_is_directory=True)
    os.mkfifo(root / "ants" / "pipe.jpg")
    outside = root.parent / "outside.jpg"
    outside.write_bytes(JPEG)
    (root / "ants" / "outside.jpg").symlink_to(outside)
    return root
