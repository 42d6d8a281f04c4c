"""What the panel offers to choose from: networks with what they cost, folders, and pictures of each class."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from tlnb.display.pictures import image_uri, uint8_of
from tlnb.display.tables import printable
from tlnb.engine.core.objectives import Classification
from tlnb.engine.data.images.headers import SUFFIXES
from tlnb.engine.data.samples import PictureSamples
from tlnb.engine.data.sources.folder import is_hidden
from tlnb.session.view import SessionView

CLASSES, EACH = 12, 4  # so many classes are shown, with so many pictures of each
ENTRIES = 200  # of a folder
TABLES = (".csv", ".tsv")


def networks() -> list[list[str]]:
    """Name of each network that can be loaded, and in words its size, its accuracy and whether it is here already."""
    from torchvision.models import get_model_weights

    from tlnb.engine.models.catalogue import names

    stored = Path(torch.hub.get_dir()) / "checkpoints"
    found = []
    for name in names():
        try:
            entry = get_model_weights(name).DEFAULT
        except ValueError:
            found.append([name, "1.0 M parameters, ships with tlnb"])
            continue
        metrics = entry.meta.get("_metrics", {}).get("ImageNet-1K", {})
        size = f"{entry.meta['num_params'] / 1e6:.1f} M parameters"
        share = f", {metrics['acc@1']:.0f} % of ImageNet right" if "acc@1" in metrics else ""
        here = (stored / entry.url.rpartition("/")[2]).is_file()
        place = "on this machine" if here else f"{entry.meta.get('_file_size', 0):.0f} MB to download"
        found.append([name, f"{size}{share}, {place}"])
    return found


def folder(path: str) -> dict[str, Any]:
    """What can be chosen in a folder: the folders below, with how much they hold, and tables.

    Args:
        path: of the folder; empty for the kernel's own.

    Raises:
        OSError: it cannot be read.
    """
    place = Path(path or ".").expanduser().resolve()
    folders, tables = [], []
    with os.scandir(place) as entries:
        for entry in sorted(entries, key=lambda one: one.name.casefold())[:ENTRIES]:
            if is_hidden(entry.name):
                continue
            if entry.is_dir():
                folders.append(
                    {"name": printable(entry.name), "path": entry.path, "says": _holds(Path(entry.path))}
                )
            elif entry.name.lower().endswith(TABLES):
                tables.append({"name": printable(entry.name), "path": entry.path, "says": "a table"})
    return {
        "path": str(place), "parent": str(place.parent), "says": _holds(place), "folders": folders, "tables": tables,
    }  # fmt: skip


def _holds(place: Path) -> str:
    """How many folders and pictures stand right in a folder, in words."""
    below = pictures = 0
    try:
        with os.scandir(place) as entries:
            for number, entry in enumerate(entries):
                if number > 2000:
                    return "many files"
                if not is_hidden(entry.name):
                    below += entry.is_dir()
                    pictures += os.path.splitext(entry.name)[1].lower() in SUFFIXES
    except OSError:
        return "cannot be read"
    words = [f"{n} {what}{'s' * (n != 1)}" for n, what in ((below, "folder"), (pictures, "picture")) if n]
    return ", ".join(words) or "empty"


def gallery(view: SessionView) -> list[dict[str, Any]]:
    """Each class with its number of training samples, its share of the largest class, and a few of its pictures."""
    data, samples = view.data, view.samples
    if data is None or samples is None or not isinstance(data.task, Classification):
        return []
    targets = samples[0].targets
    counts = torch.bincount(targets, minlength=len(data.classes))
    most, found = max(int(counts.max()), 1), []
    for number, name in enumerate(data.classes[:CLASSES]):
        rows = (targets == number).nonzero().flatten()[:EACH]
        seen, pictures = samples[0].view(1, 0), []
        if isinstance(seen, PictureSamples) and len(rows):
            pictures = [image_uri(uint8_of(pixels)) for pixels in seen.pixels(rows)]
        count = int(counts[number])
        found.append({"name": printable(name), "count": count, "share": count / most, "pictures": pictures})
    return found
