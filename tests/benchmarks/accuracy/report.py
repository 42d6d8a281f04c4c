"""Tables of the accuracy board: each cell, and over all cells the mean rank, the regret with its interval, seconds.

python -m tests.benchmarks.accuracy.report results.jsonl [--against "logistic regression"]
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np

Cells = dict[tuple[str, str, str], dict[str, dict[int, dict]]]
BOOTSTRAPS = 2000


def read(path: Path) -> Cells:
    """For each set, amount and network, and each recipe: its runs by seed."""
    cells: Cells = defaultdict(lambda: defaultdict(dict))
    for line in map(json.loads, path.read_text().splitlines()):
        cells[line["data"], line["amount"], line["network"]][line["recipe"]][line["seed"]] = line
    return cells


def means(cells: Cells, recipes: list[str]) -> np.ndarray:
    """Accuracy in points, cells by recipes, over the seeds that every recipe has."""
    rows = []
    for runs in cells.values():
        seeds = set.intersection(*(set(runs[recipe]) for recipe in recipes))
        rows.append(
            [100 * np.mean([runs[r][s]["accuracy"] for s in seeds]) if seeds else np.nan for r in recipes]
        )
    return np.array(rows)


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % of the means of resampled cells."""
    drawn = np.random.default_rng(0).choice(values, (BOOTSTRAPS, len(values)))
    low, high = np.quantile(drawn.mean(1), (0.025, 0.975))
    return float(low), float(high)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--against", default="logistic regression")
    parser.add_argument("--recipes", nargs="+")
    given = parser.parse_args()
    cells = read(given.results)
    recipes = given.recipes or list(dict.fromkeys(r for runs in cells.values() for r in runs))
    table = means(cells, recipes)
    whole = ~np.isnan(table).any(1)
    keys = [key for key, ok in zip(cells, whole, strict=True) if ok]
    table = table[whole]
    print(f"{len(keys)} cells\n")
    print("| set, a class, network (seeds) | " + " | ".join(recipes) + " |")
    print("|---" * (len(recipes) + 1) + "|")
    for key, row in zip(keys, table, strict=True):
        seeds = set.intersection(*(set(cells[key][recipe]) for recipe in recipes))
        cells_shown = " | ".join(f"**{v:.1f}**" if v == row.max() else f"{v:.1f}" for v in row)
        print(f"| {key[0]}, {key[1]}, {key[2]} ({len(seeds)}) | {cells_shown} |")
    ranks = (
        (table[:, :, None] < table[:, None, :]).sum(2)
        + ((table[:, :, None] == table[:, None, :]).sum(2) - 1) / 2
        + 1
    )
    regret = table.max(1, keepdims=True) - table
    base = recipes.index(given.against) if given.against in recipes else 0
    print(
        f"\n| recipe | mean | rank | regret (95 %), worst | against {recipes[base]}: mean (95 %), worst | seconds |"
    )
    print("|---|---|---|---|---|---|")
    for i, recipe in enumerate(recipes):
        seconds = np.mean([run["seconds"] for key in keys for run in cells[key][recipe].values()])
        low, high = interval(regret[:, i])
        gain = table[:, i] - table[:, base]
        less, more = interval(gain)
        print(
            f"| {recipe} | {table[:, i].mean():.1f} | {ranks[:, i].mean():.2f} | {regret[:, i].mean():.1f} "
            f"({low:.1f} to {high:.1f}), {regret[:, i].max():.1f} | {gain.mean():+.1f} ({less:+.1f} to {more:+.1f}), "
            f"{gain.min():+.1f} | {seconds:.0f} |"
        )


if __name__ == "__main__":
    main()
