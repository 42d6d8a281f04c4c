"""What a file is, told by its first bytes: somebody's weights come under many endings."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

SAFETENSORS, TORCH, PICKLE = "safetensors file", "torch file", "pickle"
_HEAD = 512
_STARTS = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes it"),
    (b"GGUF", "a GGUF file, as llama.cpp reads it"),
    (b"\x93NUMPY", "an array of NumPy"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself (git lfs pull fetches it)"),
    (b"<!DOCTYPE", "a web page, not the file that was to be downloaded"),
    (b"<html", "a web page, not the file that was to be downloaded"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"\x1f\x8b", "packed by gzip; unpack it first"),
    (b"BZh", "packed by bzip2; unpack it first"),
    (b"\xfd7zXZ", "packed by xz; unpack it first"),
    (b"Rar!", "an archive; unpack it first"),
    (b"7z\xbc\xaf", "an archive; unpack it first"),
    (b"%PDF", "a PDF"),
)
_CLASS = re.compile(r"(?:GLOBAL|class|global)\s+'?([A-Za-z_][\w]*(?:\.[A-Za-z_]\w*)+)'?")


def kind_of(path: Path) -> str:
    """``safetensors file``, ``torch file`` or ``pickle``, which hold weights, or another kind in words.

    Args:
        path: a file that is there.

    Returns:
        An empty string where nothing is known about it.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        return "an empty file"
    named = next((words for start, words in _STARTS if head.lower().startswith(start.lower())), "")
    if named:
        return named
    if head.startswith(b"PK"):
        return _archive(path)
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite file"
    length = int.from_bytes(head[:8], "little")
    if len(head) > 8 and head[8:9] == b"{" and 2 <= length <= size - 8:
        return SAFETENSORS
    if path.suffix.lower() == ".onnx" or (
        head[:1] == b"\x08" and re.search(rb"pytorch|onnx|tf2onnx|keras2onnx", head)
    ):
        return "an ONNX file"
    if head[257:262] == b"ustar":
        return TORCH if b"storages" in head or b"pickle" in head else "an archive; unpack it first"
    if len(head) > 1 and head[0] == 0x80 and head[1] in range(2, 6):
        return PICKLE
    if head.lstrip()[:1] in (b"{", b"[") and head.isascii():
        return "a text in JSON"
    return ""


def _archive(path: Path) -> str:
    if not zipfile.is_zipfile(path):
        return "cut off: a zip archive without its end, as after a download that broke off"
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    inner = {name.partition("/")[2] for name in names}
    if any(part.startswith("code/") for part in inner) or "constants.pkl" in inner:
        return "a TorchScript file"
    if any(name.endswith("archive_format") for name in names) or any(
        part.startswith("models/") for part in inner
    ):
        return "a program of torch.export"
    if "data.pkl" in inner:
        return TORCH
    if "config.json" in names and any(name.endswith(".h5") for name in names):
        return "a Keras file"
    if names and all(name.endswith(".npy") for name in names):
        return "arrays of NumPy"
    return "a zip archive; unpack it first"


def class_in(error: str) -> str:
    """The class that torch's safe loader refuses, told by its error; empty where it names none."""
    found = _CLASS.search(error)
    return found.group(1) if found else ""
