"""What a picture file says about itself in its first and last bytes, read without decoding.

JPEG and PNG are read here; they are nearly all the pictures that people have, and a folder of 100,000 must be
looked at in seconds. Other kinds are left to Pillow (``check``).
"""

from __future__ import annotations

import struct
import zlib

from PIL import Image

# Twice Pillow's warning level: where Pillow itself refuses to decode (a decompression bomb).
MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 89_478_485)

KINDS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "WebP": (".webp",),
    "AVIF": (".avif",),
    "PNM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
SUFFIXES = {suffix: kind for kind, suffixes in KINDS.items() for suffix in suffixes}
_OTHERS = {
    b"<!DOCTYPE": "a web page", b"<!doctype": "a web page", b"<html": "a web page", b"<svg": "an SVG drawing",
    b"<?xml": "an XML file", b"%PDF": "a PDF", b"PK\x03\x04": "a ZIP archive", b"\x1f\x8b": "a gzip archive",
    b"\x00\x00\x01\x00": "an icon", b"8BPS": "a Photoshop file",
    b"version https://git-lfs": "a Git LFS pointer",
}  # fmt: skip


class BadPicture(Exception):
    """A file that cannot be used; the message is the reason, in a few words."""


def kind_of(head: bytes) -> str:
    """The kind of picture that a file's first bytes belong to.

    Raises:
        BadPicture: none that can be read.
    """
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    if head.startswith((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")):
        return "TIFF"
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"):
        return "AVIF"
    if head.startswith(b"BM"):
        return "BMP"
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        return "PNM"
    raise BadPicture(_other(head))


def _other(head: bytes) -> str:
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"mif1", b"msf1"):
        return "a HEIC picture, which Pillow does not read; convert it to JPEG"
    if not any(head):
        return "only zero bytes"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for sign, what in _OTHERS.items():
        if start.startswith(sign) or start.lower().startswith(sign.lower()):
            return f"{what}, not a picture"
    return "text, not a picture" if _is_text(start[:256]) else "not a kind of picture that can be read"


def _is_text(start: bytes) -> bool:
    try:
        text = start.decode()
    except UnicodeDecodeError as error:  # a letter may be cut in two at the end
        text = start[: error.start].decode() if error.start > len(start) - 4 else "\0"
    return all(letter.isprintable() or letter.isspace() for letter in text)


def check_size(width: int, height: int) -> None:
    """Refuse pictures without pixels and decompression bombs.

    Raises:
        BadPicture: no pixels, or more than ``MOST_PIXELS``.
    """
    if width < 1 or height < 1:
        raise BadPicture(f"no pixels ({width}×{height})")
    if width * height > MOST_PIXELS:
        limit = MOST_PIXELS // 10**6
        raise BadPicture(
            f"too large: {width:,}×{height:,} pixels, the limit is {limit} million; make it smaller"
        )


def check_jpeg(head: bytes, tail: bytes) -> None:
    """Walk a JPEG's markers to its frame header, and look for its end.

    Args:
        head: the first bytes, at best 64 KiB or more.
        tail: the last bytes; the whole file where it is small.

    Raises:
        BadPicture: damaged, cut off, of a coding that nothing decodes, or too large. A frame header beyond
            ``head`` (behind a large preview) is not looked for.
    """
    at = 2
    while at + 4 <= len(head):
        if head[at] != 0xFF:
            raise BadPicture("damaged: no marker where one must be")
        marker = head[at + 1]
        if marker == 0xFF or 0xD0 <= marker <= 0xD8:  # filling, or a marker without content
            at += 1 if marker == 0xFF else 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            _check_frame(marker, head[at + 4 : at + 10])
            break
        elif marker == 0xD9:
            raise BadPicture("damaged: ends before its pixels")
        else:
            at += 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    else:
        if len(head) <= len(tail):
            raise BadPicture("cut off in its header")
    if b"\xff\xd9" not in tail:
        raise BadPicture("cut off: its end is missing")


def _check_frame(marker: int, content: bytes) -> None:
    if len(content) < 6:
        raise BadPicture("cut off in its header")
    bits, height, width, _ = struct.unpack(">BHHB", content)
    if marker > 0xC2 or bits != 8:
        raise BadPicture(
            "a JPEG of a rare kind (lossless, arithmetic or 12 bits), which Pillow does not read"
        )
    check_size(width, height)


def check_png(data: bytes) -> str:
    """Walk a whole PNG's chunks and compare their checksums.

    Returns:
        A remark, or nothing.

    Raises:
        BadPicture: damaged, cut off or too large.
    """
    at, seen, animated = 8, b"", False
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind, end = data[at + 4 : at + 8], at + 12 + length
        if end > len(data):
            break
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise BadPicture(f"damaged: the checksum of a part ({kind.decode('latin-1')!r}) is wrong")
        if kind == b"IHDR":
            check_size(*struct.unpack(">II", data[at + 8 : at + 16]))
        animated |= kind == b"acTL"
        seen, at = seen + kind, end
        if kind == b"IEND":
            if b"IDAT" not in seen or not seen.startswith(b"IHDR"):
                raise BadPicture("damaged: it holds no pixels")
            return "animated: its first frame is used" if animated else ""
    raise BadPicture("cut off: its end is missing")


def check_png_ends(head: bytes, tail: bytes) -> str:
    """Look at a large PNG's header and end only; there is no remark.

    Raises:
        BadPicture: damaged, cut off or too large.
    """
    if len(head) < 33 or head[12:16] != b"IHDR":
        raise BadPicture("damaged: no header")
    check_size(*struct.unpack(">II", head[16:24]))
    if b"IEND" not in tail[-4096:]:
        raise BadPicture("cut off: its end is missing")
    return ""
