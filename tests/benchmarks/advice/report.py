"""The regret of each policy, from what ``collect.py`` wrote: ``python report.py FILE.jsonl ...``.

The regret of a policy on a task (a domain with an amount of data) is the best plan's accuracy minus that of the
plan it picks, in points, both means over the same seeds. The best is taken over every plan that was trained on
the task, the advised one among them. Since the best of a dozen noisy means is too high by chance alone, a second
figure takes the plan that was best on the *other* seeds and its accuracy on this one (cross-fitting), which luck
does not raise. Intervals are from 2,000 bootstraps over domains.

A task is left out, by a rule that was fixed before any was seen, where no plan beats the largest class by three
standard errors: there is nothing to choose then.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from procedures import procedures

from tlnb.engine.advice.advice import MUCH

Domain, Amount, Seed = str, int, int
ALL = tuple(procedures(1))
ADVISED = "advised"
SELDOM = ("fastai", "scratch")  # left out on the last set, since they had been far behind everywhere
ABOVE_CHANCE = 3.0  # standard errors


@dataclass
class Task:
    """What was measured on one domain with one amount of data.

    Attributes:
        accuracy: by plan, then by seed.
        figures: by seed, what the advisor saw.
        chance: the largest class's share of the test images.
        test: test images over all seeds.
    """

    accuracy: dict[str, dict[Seed, float]] = field(default_factory=lambda: defaultdict(dict))
    figures: dict[Seed, dict] = field(default_factory=dict)
    chance: float = 0.0
    test: int = 0

    def seeds(self) -> list[Seed]:
        """Those on which the advised plan and the figures are known."""
        return sorted(set(self.accuracy[ADVISED]) & set(self.figures))

    @property
    def whole(self) -> bool:
        """Whether every usual procedure was trained on one of these seeds at least."""
        return bool(self.seeds()) and all(
            set(self.accuracy[name]) & set(self.seeds()) for name in ALL if name not in SELDOM
        )

    @property
    def means(self) -> dict[str, float]:
        """Accuracy of each plan, over the seeds.

        A procedure that was far behind at the first seed is not run at the others. So every mean is the advised
        plan's mean plus the mean difference to it over the seeds that have both.
        """
        return {name: self._mean(name, self.seeds()) for name in self.accuracy}

    def _mean(self, name: str, seeds: list[Seed]) -> float:
        own = self.accuracy[ADVISED]
        both = [seed for seed in seeds if seed in self.accuracy[name]]
        if not both:
            return float("-inf")
        gain = statistics.fmean(self.accuracy[name][seed] - own[seed] for seed in both)
        return statistics.fmean(own[seed] for seed in seeds) + gain

    @property
    def tells(self) -> bool:
        """Whether the best plan is better than chance."""
        if not self.test:
            return False
        error = (self.chance * (1 - self.chance) / self.test) ** 0.5
        return max(self.means.values()) > self.chance + ABOVE_CHANCE * error

    def regret(self, pick: Callable[[dict], str]) -> float:
        """The best plan's mean minus that of what is picked, in points."""
        return 100 * (max(self.means.values()) - self._own(pick))

    def fair_regret(self, pick: Callable[[dict], str]) -> float:
        """The same against the plan that was best on the other seeds; the plain one where there is one seed."""
        seeds = self.seeds()
        if len(seeds) < 2:
            return self.regret(pick)
        best = statistics.fmean(self._mean(self._best_without(seed), [seed]) for seed in seeds)
        return 100 * (best - self._own(pick))

    def _own(self, pick: Callable[[dict], str]) -> float:
        """What is picked may differ from seed to seed; where it was not run, its mean stands in."""
        means = self.means
        found = [(pick(self.figures[seed]), seed) for seed in self.seeds()]
        gains = [
            self.accuracy[name][seed] - self.accuracy[ADVISED][seed]
            if seed in self.accuracy[name]
            else means[name] - means[ADVISED]
            for name, seed in found
        ]
        return means[ADVISED] + statistics.fmean(gains)

    def _best_without(self, seed: Seed) -> str:
        rest = [s for s in self.seeds() if s != seed]
        known = [name for name in self.accuracy if seed in self.accuracy[name]]
        return max(known, key=lambda name: self._mean(name, rest))


def naive_table(figures: dict) -> str:
    """The classic table read by amount and by guesswork: more than half alike is alike."""
    much, alike = (figures["per_class"] or 0) >= MUCH, (figures["similarity"] or 0) >= 0.5
    if much:
        return "all, decay" if alike else "fine-tune all"
    return "head" if alike else "from 3"


POLICIES: dict[str, Callable[[dict], str]] = {
    "advisor": lambda figures: ADVISED,
    "classic table, naively": naive_table,
} | {name: (lambda figures, name=name: name) for name in ALL}


def read(paths: Iterable[Path]) -> dict[tuple[Domain, Amount], Task]:
    """The tasks that are whole."""
    tasks: dict[tuple[Domain, Amount], Task] = defaultdict(Task)
    for line in (line for path in paths for line in path.read_text().splitlines()):
        row = json.loads(line)
        task = tasks[row["domain"], row["amount"]]
        if row["procedure"] == "figures":
            task.figures[row["seed"]] = row["figures"]
            task.chance = max(task.chance, row["chance"])
            task.test += row["test"]
        else:
            task.accuracy[row["procedure"]][row["seed"]] = row["accuracy"]
    return {key: task for key, task in tasks.items() if task.whole}


def interval(regrets: Mapping[tuple[Domain, Amount], float]) -> tuple[float, float]:
    """Of the mean, at 95 %: domains are drawn with replacement, each with all its amounts."""
    by_domain = defaultdict(list)
    for (domain, _), regret in regrets.items():
        by_domain[domain].append(regret)
    draw, groups = random.Random(0), list(by_domain.values())
    means = sorted(
        statistics.fmean(r for group in draw.choices(groups, k=len(groups)) for r in group)
        for _ in range(2000)
    )
    return means[50], means[1949]


def main() -> None:
    """Print the tables."""
    found = read(Path(name) for name in sys.argv[1:])
    tasks = {key: task for key, task in found.items() if task.tells}
    seeds = sum(len(task.seeds()) for task in tasks.values())
    print(
        f"{len(tasks)} tasks, {seeds} tasks and seeds; left out at chance: {sorted(set(found) - set(tasks))}"
    )
    print(f"{'policy':24} {'mean':>6}  {'95 %':>12} {'fair':>6} {'within 1':>9} {'worst':>6}  worst task")
    trained = set.intersection(*(set(task.accuracy) for task in tasks.values()))
    for policy, pick in POLICIES.items():
        if policy in SELDOM and policy not in trained:
            continue
        regrets = {key: task.regret(pick) for key, task in tasks.items()}
        fair = statistics.fmean(task.fair_regret(pick) for task in tasks.values())
        low, high = interval(regrets)
        worst = max(regrets, key=lambda key: regrets[key])
        near = sum(regret <= 1 for regret in regrets.values()) / len(regrets)
        print(
            f"{policy:24} {statistics.fmean(regrets.values()):6.2f}  {low:5.2f}–{high:5.2f} {fair:6.2f} {near:9.0%} "
            f"{regrets[worst]:6.1f}  {worst[0]}, {worst[1]}"
        )
    print("\nthe advisor, task by task:")
    for (domain, amount), task in sorted(tasks.items(), key=lambda item: item[1].regret(POLICIES["advisor"])):
        alike = statistics.fmean(f["similarity"] or 0 for f in task.figures.values())
        means = task.means
        best = max(means, key=lambda name: means[name])
        print(
            f"{domain:16} {amount:4}  similarity {alike:.2f}  {100 * means[ADVISED]:5.1f} %  "
            f"regret {task.regret(POLICIES['advisor']):4.1f}  best: {best} ({100 * means[best]:.1f} %)"
        )


if __name__ == "__main__":
    main()
