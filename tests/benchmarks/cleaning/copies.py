"""Copies of photos, made here, and how many of them are found: a line a set.

    python -m tests.benchmarks.cleaning.copies flowers hymenoptera trash --data FOLDER

Of every fifth photo there are four more: encoded anew at quality 40, at 60 % of the size, cropped by a tenth of each
side at a random place, and mirrored. A copy is found where it is paired with its photo or with another copy of that; a
pair of different photos is false.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections import defaultdict
from pathlib import Path

os.environ["TLNB_HOME"] = tempfile.mkdtemp(prefix="tlnb-copies-")

import torch
from PIL import Image, ImageOps

from tests.benchmarks.cleaning.flips import features_of
from tlnb.engine.cleaning.copies import picture_copies
from tlnb.engine.cleaning.looks import looks_of
from tlnb.session import Session

EACH = 5


def written(source: Path, folder: Path, most: int) -> None:
    """Photos and copies of some of them, in two classes so that they can be read as data."""
    files = sorted(path for path in source.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    rng = random.Random(0)
    rng.shuffle(files)
    for name in ("a", "b"):
        (folder / name).mkdir()
    for number, path in enumerate(files[:most]):
        picture = Image.open(path).convert("RGB")
        picture.save(folder / "ab"[number % 2] / f"{number}-photo.png")
        if number % EACH:
            continue
        (width, height), place = picture.size, folder / "ba"[number % 2]
        x, y = rng.randint(0, width // 10), rng.randint(0, height // 10)
        picture.save(place / f"{number}-encoded.jpg", quality=40)
        picture.resize((int(0.6 * width), int(0.6 * height))).save(place / f"{number}-resized.png")
        cropped = picture.crop((x, y, x + int(0.9 * width), y + int(0.9 * height)))
        cropped.save(place / f"{number}-cropped.png")
        ImageOps.mirror(picture).save(place / f"{number}-mirrored.png")


def main() -> None:
    """Print a line a set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("TLNB_DATA", "")))
    parser.add_argument("--photos", type=int, default=300)
    given = parser.parse_args()
    for name in given.sets:
        with tempfile.TemporaryDirectory() as place:
            written(given.data / name, Path(place), given.photos)
            tl = Session([])
            tl.load("mobilenet_v2", weights=str(given.data / "weights" / "mobilenet_v2.pth"))
            data = tl.data(place)
            features = torch.cat(features_of(tl))
            samples = tl.view.need_samples()
            looks = looks_of(
                part.pixels(rows) for part in samples for rows in torch.arange(len(part)).split(64)
            )
            began = time.perf_counter()
            copies = picture_copies(looks.thumbs, features)
            seconds = time.perf_counter() - began
            names = [Path(part.name(i)).stem for part in (data.train, data.valid) for i in range(len(part))]
        photo, kind = zip(*(stem.split("-") for stem in names), strict=True)
        true = [photo[a] == photo[b] for a, b in copies.pairs.tolist()]
        linked = {at for pair, same in zip(copies.pairs.tolist(), true, strict=True) if same for at in pair}
        found = defaultdict(list)
        for at, what in enumerate(kind):
            found[what].append(at in linked)
        del found["photo"]
        shares = ", ".join(f"{what} {sum(there) / len(there):.1%}" for what, there in sorted(found.items()))
        every = [there for some in found.values() for there in some]
        false = true.count(False)
        print(
            f"{name}: {sum(every) / len(every):.1%} of {len(every)} copies ({shares}); {false} of {len(true)} pairs "
            f"are false ({false / len(true):.2%}); {seconds:.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
