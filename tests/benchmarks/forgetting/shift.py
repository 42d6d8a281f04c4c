"""What fine-tuning costs elsewhere: on the task of before, and on damaged pictures of the new one.

    python -m tests.benchmarks.forgetting.shift results.jsonl --data FOLDER [--seeds 2] [--networks mobilenet_v2]

A network learns one photo set with all its layers, then another by each recipe. Measured are the new set's test photos,
the same damaged in fifteen kinds and three strengths (``corrupted.py``), and the first set's validation photos with the
head that it was learned with. Lines that are there already are not computed again.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import defaultdict
from pathlib import Path

os.environ["TLNB_HOME"] = tempfile.mkdtemp(prefix="tlnb-shift-")

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import functional

from tests.benchmarks.accuracy.cells import SIDE, Cell, Files, files_of, weights_of
from tests.benchmarks.accuracy.recipes import epochs_for
from tests.benchmarks.forgetting.corrupted import KINDS, STRENGTHS, corrupted
from tlnb.session import Session

OLD, NEW, AMOUNT = "trash", "flowers", "20"
MOST = 50  # test photos that are damaged, each in 45 ways
LAST = "epochs E lr 3e-4 init soft guard off"
RECIPES = {
    "head alone": "fit head",
    "all at once, 1e-3": "train all epochs E lr 1e-3 guard off",
    "LP-FT": f"fit head\ntrain all {LAST}",
    "LP-FT, blend 0.5": f"fit head\ntrain all {LAST} blend 0.5",
    "LP-FT, keep l2sp:0.05": f"fit head\ntrain all {LAST} keep l2sp:0.05",
    "LP-FT, keep lwf:1": f"fit head\ntrain all {LAST} keep lwf:1",
    "first block": f"fit head\ntrain 0:2,-1 {LAST}",
    "last block": f"fit head\ntrain -3: {LAST}",
    "biases": "fit head\nadapt all bias epochs E lr 1e-3 init soft guard off",
    "LoRA, rank 8": "fit head\nadapt all rank 8 epochs E lr 1e-3 init soft guard off",
}


def first_task(network: str, seed: int, root: Path, place: str) -> None:
    """Learn the old set, all layers of it, and save the session."""
    with files_of(Cell(OLD, AMOUNT, network, seed), root) as files:
        tl = Session([])
        tl.load(network, weights=weights_of(network, root))
        tl.data(os.fspath(files.folder), size=SIDE, seed=seed)
        tl.run(f"fit head\ntrain all {LAST}".replace("epochs E", f"epochs {epochs_for(files.train)}"))
        tl.save(place)


def damaged(files: Files, seed: int) -> tuple[list[Image.Image], list[int]]:
    """Some test photos, each in every kind and strength, at the size that the network is given before its crop."""
    pictures, answers = [], []
    every = max(1, len(files.test[0]) // MOST)
    for path, answer in list(zip(*files.test, strict=True))[::every][:MOST]:
        with Image.open(path) as picture:
            small = functional.resize(picture.convert("RGB"), round(SIDE * 256 / 224))
        for kind in KINDS:
            for strength in STRENGTHS:
                pictures.append(corrupted(small, kind, strength, seed))
                answers.append(answer)
    return pictures, answers


def measure(recipe: str, network: str, seed: int, root: Path, place: str) -> dict:
    """A recipe on the new set."""
    with files_of(Cell(OLD, AMOUNT, network, seed), root) as old, files_of(
        Cell(NEW, AMOUNT, network, seed), root
    ) as files:  # fmt: skip
        tl = Session([])
        tl.resume(place)
        tl.data(os.fspath(old.folder), size=SIDE, seed=seed)
        before = _of_old(tl, len(old.classes))
        tl.data(os.fspath(files.folder), size=SIDE, seed=seed)
        began = time.process_time()
        tl.run(RECIPES[recipe].replace("epochs E", f"epochs {epochs_for(files.train)}"))
        seconds = time.process_time() - began
        paths, answers = files.test
        found = tl.predict("\n".join(map(str, paths))).answers.argmax(1).tolist()
        new = float(np.mean([a == b for a, b in zip(found, answers, strict=True)]))
        pictures, wanted = damaged(files, seed)
        found = tl.predict(pictures).answers.argmax(1).tolist()
        right = np.array([a == b for a, b in zip(found, wanted, strict=True)]).reshape(
            -1, len(KINDS), len(STRENGTHS)
        )
        return {
            "recipe": recipe, "network": network, "seed": seed, "new": new, "seconds": seconds, "before": before,
            "old": _of_old(tl, len(old.classes)), "strengths": right.mean((0, 1)).tolist(),
            "kinds": dict(zip(KINDS, right.mean((0, 2)).tolist(), strict=True)),
        }  # fmt: skip


def _of_old(tl: Session, classes: int) -> float:
    """Accuracy of the old set's head, which alone has so many classes."""
    table = tl.tasks()
    row = next(row for row in table.rows if row[table.headers.index("classes")] == str(classes))
    return float(row[table.headers.index("figure")].removeprefix("accuracy "))


def main() -> None:
    """Run what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--networks", nargs="+", default=["mobilenet_v2"])
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = (
        [json.loads(line) for line in given.results.read_text().splitlines()]
        if given.results.exists()
        else []
    )
    for network in given.networks:
        for seed in range(given.seeds):
            left = [
                recipe
                for recipe in given.recipes
                if not any((x["recipe"], x["network"], x["seed"]) == (recipe, network, seed) for x in lines)
            ]
            with tempfile.TemporaryDirectory() as folder:
                place = os.fspath(Path(folder) / "first")
                if left:
                    first_task(network, seed, given.data, place)
                for recipe in left:
                    lines.append(measure(recipe, network, seed, given.data, place))
                    with given.results.open("a") as file:
                        file.write(json.dumps(lines[-1]) + "\n")
                    print(lines[-1], flush=True)
    print("| recipe | new | damaged | the same by strength | old | seconds |\n|---|---|---|---|---|---|")
    by_recipe = defaultdict(list)
    for line in lines:
        by_recipe[line["recipe"]].append(line)
    for recipe, runs in by_recipe.items():
        strengths = np.mean([run["strengths"] for run in runs], 0) * 100
        new, old, seconds = (np.mean([run[key] for run in runs]) for key in ("new", "old", "seconds"))
        each = ", ".join(f"{x:.1f}" for x in strengths)
        print(
            f"| {recipe} | {100 * new:.1f} | {strengths.mean():.1f} | {each} | {100 * old:.1f} | {seconds:.0f} |"
        )
    print(f"The old task before: {100 * np.mean([line['before'] for line in lines]):.1f} %")


if __name__ == "__main__":
    main()
