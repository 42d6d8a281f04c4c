"""The cells of the board: a photo set, an amount a class, a network and a seed, with files set apart for each use.

Every set is a folder with ``train`` and ``val``, a folder a class. ``val`` is the test part: no recipe sees it before
it is measured. From ``train`` each seed draws ``VALID`` photos a class to validate on, and then the amount to learn
from.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SETS = ("flowers", "hymenoptera", "trash", "mnist")
NETWORKS = ("mobilenet_v2", "squeezenet1_1")
AMOUNTS = ("5", "20", "all")
VALID = 15  # photos a class to validate on
SIDE = 96  # pixels
MOST = 60  # photos a class that "all" means at most, so that no cell takes hours


@dataclass(frozen=True)
class Cell:
    """One task of the board.

    Attributes:
        data: name of the set.
        amount: photos a class to learn from, or ``all``.
        network: a classifier of torchvision.
        seed: of the draw, and of the recipe.
    """

    data: str
    amount: str
    network: str
    seed: int


@dataclass(frozen=True)
class Files:
    """The photos of a cell.

    Attributes:
        folder: holds ``train`` and ``val``, as recipes are given it.
        test: photos and class numbers that are measured on at the end.
        classes: names, in order.
        train: how many photos to learn from.
    """

    folder: Path
    test: tuple[list[Path], list[int]]
    classes: tuple[str, ...]
    train: int


@contextmanager
def files_of(cell: Cell, root: Path) -> Iterator[Files]:
    """Copies of the cell's photos in a folder of their own, which goes afterwards.

    Args:
        cell: which.
        root: holds the sets.
    """
    drawn = random.Random(f"{cell.data} {cell.seed}")
    folder = Path(tempfile.mkdtemp(prefix="tlnb-board-"))
    classes = tuple(sorted(p.name for p in (root / cell.data / "train").iterdir() if p.is_dir()))
    test: tuple[list[Path], list[int]] = ([], [])
    count = 0
    try:
        for number, name in enumerate(classes):
            photos = sorted((root / cell.data / "train" / name).iterdir())
            drawn.shuffle(photos)
            most = MOST if cell.amount == "all" else int(cell.amount)
            learn = photos[VALID : VALID + most]
            count += len(learn)
            for part, chosen in (("val", photos[:VALID]), ("train", learn)):
                (folder / part / name).mkdir(parents=True)
                for photo in chosen:
                    shutil.copyfile(photo, folder / part / name / photo.name)
            held = sorted((root / cell.data / "val" / name).iterdir())
            test[0].extend(held)
            test[1].extend([number] * len(held))
        yield Files(folder, test, classes, count)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def weights_of(network: str, root: Path) -> str:
    """The file of a network's weights."""
    return os.fspath(root / "weights" / f"{network}.pth")
