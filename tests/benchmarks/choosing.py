"""Whether the order of ``%tl_choose`` is that of the networks once they have been trained.

python -m tests.benchmarks.choosing FOLDER [--sets flowers trash] [--seeds 2]

FOLDER holds the photo sets, and the networks' weights in ``weights``. Six networks stand for what people choose from:
two of ImageNet, the same two after they learned another set (what they know of ImageNet is partly gone), and both with
random weights. Each is then trained by the default plan and measured on photos that nothing has seen; the order of its
accuracies is compared with the order of each score by weighted Kendall's tau (Vigna 2015: errors among the best weigh
most). Seconds are those of the processor, one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ["TLNB_HOME"] = tempfile.mkdtemp(prefix="tlnb-choosing-")  # no features of another run

import numpy as np
import torch
import torchvision
from scipy.stats import weightedtau

from tests.benchmarks.accuracy.cells import SIDE, Cell, files_of, weights_of
from tlnb.session import Session

AMOUNT = "20"
PUBLISHED = ("mobilenet_v2", "squeezenet1_1")
ELSEWHERE = "mnist"  # what two of the networks learn first
SCORES = {"logistic head": "value", "five neighbours": "neighbours", "LogME": "logme"}


def candidates(root: Path, folder: Path) -> dict[str, str]:
    """What to load for each network: a file of weights, or a name. The files that are not there are written."""
    found: dict[str, str] = {}
    for name in PUBLISHED:
        found[name] = weights_of(name, root)
        tl = loaded(found[name])
        with files_of(Cell(ELSEWHERE, "all", name, 9), root) as files:
            tl.data(os.fspath(files.folder), size=SIDE, seed=9)
            tl.run("freeze body epochs 1 lr 1e-2\nunfreeze all epochs 5 lr 2e-3 bn train guard off")
        found[f"{name}, {ELSEWHERE}"] = os.fspath(folder / f"{name}-{ELSEWHERE}.pth")
        torch.save(tl.model.state_dict(), found[f"{name}, {ELSEWHERE}"])
        torch.manual_seed(0)
        found[f"{name}, random"] = os.fspath(folder / f"{name}-random.pth")
        torch.save(torchvision.models.get_model(name).state_dict(), found[f"{name}, random"])
    return found


def loaded(word: str) -> Session:
    """A session with a network."""
    torch.manual_seed(0)
    tl = Session([])
    tl.load(word)
    return tl


def trained(cell: Cell, root: Path, word: str) -> tuple[float, float]:
    """Accuracy by the default plan on photos that were not seen, and the seconds of five epochs of all layers."""
    with files_of(cell, root) as files:

        def ready() -> Session:
            tl = loaded(word)
            tl.data(os.fspath(files.folder), size=SIDE, seed=cell.seed)
            return tl

        tl = ready()
        tl.train()
        answers = tl.predict("\n".join(map(str, files.test[0]))).answers
        accuracy = float((np.asarray(answers).argmax(1) == np.array(files.test[1])).mean())
        tl = ready()
        began = time.process_time()
        tl.run("train all epochs 5 lr 1e-3 guard off")
        return accuracy, time.process_time() - began


def main() -> None:
    """Print a line for each set and seed, and the means."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--sets", nargs="+", default=["flowers", "hymenoptera", "trash"])
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    taus: dict[str, list[float]] = {name: [] for name in SCORES}
    with tempfile.TemporaryDirectory() as place:
        networks = candidates(given.root, Path(place))
        for seed in range(given.seeds):
            for name in given.sets:
                cell = Cell(name, AMOUNT, "six", seed)
                with files_of(cell, given.root) as files:
                    tl = loaded(networks[PUBLISHED[0]])
                    tl.data(os.fspath(files.folder), size=SIDE, seed=seed)
                    began = time.process_time()
                    choice = tl.choose(*networks.values())
                    chose = time.process_time() - began
                rows = {key: choice[word] for key, word in networks.items()}
                ends = {key: trained(cell, given.root, word) for key, word in networks.items()}
                accuracies = [ends[key][0] for key in networks]
                line: dict[str, object] = {
                    "set": name,
                    "seed": seed,
                    "accuracies": dict(zip(networks, accuracies, strict=True)),
                }
                for score, field in SCORES.items():
                    tau = weightedtau([getattr(rows[key], field) for key in networks], accuracies).statistic
                    taus[score].append(float(tau))
                    line[score] = {key: round(float(getattr(rows[key], field)), 3) for key in networks}
                    line[f"tau, {score}"] = round(float(tau), 3)
                line["seconds"] = {"choose": chose, "five epochs": {key: ends[key][1] for key in networks}}
                print(json.dumps(line), flush=True)
    for score, found in taus.items():
        print(
            f"{score}: weighted tau {np.mean(found):.2f} ({min(found):.2f} to {max(found):.2f}, {len(found)} runs)"
        )


if __name__ == "__main__":
    main()
