"""The regret of each policy, from what ``collect.py`` wrote: ``python report.py results.jsonl``.

The regret of a policy on a task is the best procedure's accuracy minus that of the procedure it picks, both
means over the seeds. The best of eleven noisy figures is too high by chance, so no policy reaches 0.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

from procedures import procedures

from tlnb.engine.advice.figures import Figures, LayerScore
from tlnb.engine.advice.rule import MUCH, decide
from tlnb.engine.models.convnet5 import HEAD, convnet5
from tlnb.engine.network.layers import find_layers

Task = tuple[str, int]


def advised(figures: Figures) -> str:
    """The procedure that the advisor's plan is."""
    import torch

    layers = find_layers(convnet5(10), torch.zeros(1, 1, 32, 32), head=HEAD)
    decision = decide(figures, layers)
    if decision.kept:
        return f"from {decision.kept}"
    return "all, decay" if decision.likeness == "high" else "all"


def naive_table(figures: Figures) -> str:
    """The classic table read by amount and by guesswork: more than half alike is alike."""
    much, alike = (figures.per_class or 0) >= MUCH, (figures.similarity or 0) >= 0.5
    if much:
        return "all, decay" if alike else "fine-tune all"
    return "head" if alike else "from 3"


POLICIES = {"advisor": advised, "classic table, naively": naive_table} | {
    name: (lambda figures, name=name: name)
    for name in ("head", "from 5", "from 3", "all", "fine-tune all", "gradual", "fastai", "scratch")
}


def read(path: Path) -> tuple[dict[tuple[Task, int], Figures], dict[Task, dict[str, list[float]]]]:
    """Figures of each task and seed, and accuracies of each task by procedure; whole tasks only."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    figures, accuracy = {}, defaultdict(lambda: defaultdict(list))
    whole = defaultdict(set)
    for row in rows:
        whole[row["domain"], row["amount"], row["seed"]].add(row["procedure"])
    for row in rows:
        task = (row["domain"], row["amount"])
        if len(whole[(*task, row["seed"])]) < len(procedures(1)) + 1:
            continue
        if row["procedure"] == "figures":
            found = dict(row["figures"])
            found["scores"] = tuple(LayerScore(**score) for score in found["scores"])
            figures[task, row["seed"]] = Figures(**found)
        else:
            accuracy[task][row["procedure"]].append(row["accuracy"])
    return figures, accuracy


def main() -> None:
    """Print the table."""
    figures, accuracy = read(Path(sys.argv[1]))
    print(f"{len(accuracy)} tasks, {len(figures)} runs of all procedures")
    regrets: dict[str, dict[Task, float]] = {name: {} for name in POLICIES}
    for task, by_procedure in accuracy.items():
        means = {name: statistics.fmean(values) for name, values in by_procedure.items()}
        seeds = [seed for (t, seed) in figures if t == task]
        for policy, pick in POLICIES.items():
            got = [by_procedure[pick(figures[task, seed])][k] for k, seed in enumerate(seeds)]
            regrets[policy][task] = 100 * (max(means.values()) - statistics.fmean(got))
    print(f"{'policy':24} {'mean':>6} {'within 1':>9} {'worst':>6}  worst task")
    for policy, found in regrets.items():
        worst = max(found, key=lambda task: found[task])
        near = sum(regret <= 1 for regret in found.values()) / len(found)
        print(f"{policy:24} {statistics.fmean(found.values()):6.2f} {near:9.0%} {found[worst]:6.1f}  {worst}")
    print("\nthe advisor, task by task:")
    for task, regret in regrets["advisor"].items():
        picks = {advised(f) for (t, _), f in figures.items() if t == task}
        alike = statistics.fmean(f.similarity or 0 for (t, _), f in figures.items() if t == task)
        said = "/".join(sorted(picks))
        print(f"{task[0]:12} {task[1]:5}  similarity {alike:.2f}  {said:12} regret {regret:5.1f}")


if __name__ == "__main__":
    main()
