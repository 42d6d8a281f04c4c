"""The simulation that the page on large passes takes its table from, where its answer is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.benchmarks.cluster_scale import Parts, simulate

WORK = Parts(
    decode=0.01, forward=0.03, kept=1000, packed=0.0, sent=0.0, taken=0.0, task=0.0, asked=0.0, began=0.0, beside=1.0
)  # fmt: skip


def test_work_alone_is_divided_by_the_workers() -> None:
    assert simulate(WORK, 3200, 1).seconds == pytest.approx(3200 * 0.04)
    found = simulate(WORK, 32 * 4 * 10, 10)
    assert found.seconds == pytest.approx(32 * 4 * 0.04)
    assert found.working == pytest.approx(1)


def test_the_last_slice_is_waited_for() -> None:
    assert simulate(WORK, 32 * 3, 2).seconds == pytest.approx(2 * 32 * 0.04)


def test_cores_that_hold_each_other_up_are_slower_than_one_alone() -> None:
    slowed = replace(WORK, beside=1.5)
    assert simulate(slowed, 3200, 1).seconds == simulate(WORK, 3200, 1).seconds
    assert simulate(slowed, 256, 2).seconds == pytest.approx(1.5 * simulate(WORK, 256, 2).seconds)


@pytest.mark.parametrize("name", ["sent", "taken"])
def test_what_takes_longest_is_what_the_pass_takes(name) -> None:
    narrow = replace(WORK, **{name: 1e-4})  # 0.1 s for a photo, over one line or by one notebook
    found = simulate(narrow, 32 * 200, 100)
    assert found.seconds == pytest.approx(32 * 200 * 0.1, rel=0.05)
    assert found.working < 0.01
    assert (found.taking > 0.95) == (name == "taken")


def test_tasks_cost_what_they_are_many() -> None:
    dear = replace(WORK, task=1.0, began=5.0)
    assert simulate(dear, 32 * 8, 2).seconds == pytest.approx(5 + 4 * (32 * 0.04 + 1))
