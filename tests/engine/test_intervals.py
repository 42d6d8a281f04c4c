"""The interval of a share, against figures from Wilson's formula and its limits."""

from __future__ import annotations

import numpy as np
import pytest

from tlnb.engine.results.scores import Calibration, confusion_matrix, wilson


@pytest.mark.parametrize(
    ("hits", "samples", "low", "high"),
    # Newcombe (1998), Statistics in Medicine 17, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_that_of_the_literature(hits: int, samples: int, low: float, high: float) -> None:
    assert wilson(hits, samples) == pytest.approx((low, high), abs=5e-5)


def test_the_interval_knows_its_limits() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(10, 10)[1] == 1.0
    assert 0.69 < wilson(10, 10)[0] < 0.73


def test_the_interval_holds_the_share_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    inside = [low <= 0.9 <= high for low, high in (wilson(int(h), 80) for h in rng.binomial(80, 0.9, 4000))]
    assert 0.93 < np.mean(inside) < 0.97


def test_the_calibration_error_is_the_weighted_gap() -> None:
    confidence = np.array([0.95] * 10 + [0.55] * 30)
    right = np.array([True] * 5 + [False] * 5 + [True] * 15 + [False] * 15)
    found = Calibration.of(confidence, right)
    assert found.error == pytest.approx((10 * 0.45 + 30 * 0.05) / 40)
    assert found.counts.sum() == 40
    assert found.accuracy[9] == 0.5
    assert np.isnan(found.accuracy[0])


def test_a_sure_and_right_network_has_no_calibration_error() -> None:
    assert Calibration.of(np.ones(7), np.ones(7, bool)).error == 0


def test_the_matrix_counts_who_was_taken_for_whom() -> None:
    matrix = confusion_matrix(np.array([0, 0, 1, 2]), np.array([0, 2, 1, 0]), 3)
    assert matrix.tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 0]]
