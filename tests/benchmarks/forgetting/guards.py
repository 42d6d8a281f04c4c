"""Guards and blends on the default job, over seeds: new and old accuracy after each.

    python tests/benchmarks/forgetting/guards.py [--seeds 5] [--per-class 30]

Every run trains a new head, then the whole network hard; what differs is ``keep``. A blend of a half is
measured on the run without a guard.
"""

from __future__ import annotations

import argparse
import statistics

import torch

from tlnb.session import Session

GUARDS = ("lwf:1", None, "ewc:1", "l2sp:0.05", "l2sp:0.1")


def measure(keep: str | None, seed: int, per_class: int) -> dict[str, tuple[float, float]]:
    """New and old accuracy, by name."""
    tl = Session([])
    tl.load("convnet5")
    tl.data("digits", per_class=per_class, seed=seed)
    tl.freeze("body")
    tl.train(8, 1e-2, batch=32)
    tl.unfreeze("all")
    run = tl.train(3, 3e-3, batch=32, **({"keep": keep} if keep else {}))
    now = tl.forgetting("glyphs").now
    found = {keep or "no guard": (run.accuracy, now)}
    if keep is None:
        half = tl.blend(0.5).point
        found["blend 0.5"] = (half.new, half.old)
    return found


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--per-class", type=int, default=30)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, list[tuple[float, float]]] = {}
    for seed in range(asked.seeds):
        for keep in GUARDS:
            for name, pair in measure(keep, seed, asked.per_class).items():
                rows.setdefault(name, []).append(pair)
                print(seed, name, *pair, flush=True)
    for name, pairs in rows.items():
        new, old = (statistics.fmean(values) for values in zip(*pairs, strict=True))
        print(f"{name:10} new {new:.3f}  old {old:.3f}")


if __name__ == "__main__":
    main()
