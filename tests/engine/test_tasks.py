"""Losses and figures against scikit-learn and plain PyTorch."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import accuracy_score, average_precision_score, r2_score
from torch.nn import functional as F

from tlnb.engine.core.objectives import Classification, MultiLabel, Regression

CPU = torch.device("cpu")
GENERATOR = torch.Generator().manual_seed(0)
SCORES = torch.randn(101, 4, generator=GENERATOR)
CLASSES = torch.randint(4, (101,), generator=GENERATOR)
LABELS = (torch.rand(101, 4, generator=GENERATOR) < torch.tensor([0.5, 0.2, 0.05, 0.0])).float()
VALUES = torch.randn(101, 4, generator=GENERATOR) * 3 + 5


def measured(task, targets):
    meter = task.meter(CPU)
    for part in torch.arange(101).split(25):
        meter.update(SCORES[part], targets[part])
    return meter.value()


def test_accuracy_is_that_of_scikit_learn():
    expected = accuracy_score(CLASSES.numpy(), SCORES.argmax(1).numpy())
    assert measured(Classification(), CLASSES) == pytest.approx(expected)


def test_mean_average_precision_is_that_of_scikit_learn_without_labels_that_nobody_has():
    expected = average_precision_score(LABELS[:, :3].numpy(), SCORES[:, :3].numpy())
    assert measured(MultiLabel(), LABELS) == pytest.approx(expected)


def test_explained_variance_is_that_of_scikit_learn():
    expected = r2_score(VALUES.numpy(), SCORES.numpy())
    assert measured(Regression((0.0,) * 4, (1.0,) * 4), VALUES) == pytest.approx(expected, rel=1e-5)


def test_losses_are_those_of_torch():
    weights = (1.0, 2.0, 3.0, 4.0)
    tensor = torch.tensor(weights)
    pairs = [
        (Classification().loss(SCORES, CLASSES), F.cross_entropy(SCORES, CLASSES)),
        (Classification(weights=weights).loss(SCORES, CLASSES, 0.1),
         F.cross_entropy(SCORES, CLASSES, weight=tensor, label_smoothing=0.1)),
        (MultiLabel().loss(SCORES, LABELS), F.binary_cross_entropy_with_logits(SCORES, LABELS)),
        (MultiLabel().loss(SCORES, LABELS, 0.2),
         F.binary_cross_entropy_with_logits(SCORES, LABELS * 0.8 + 0.1)),
        (MultiLabel(weights=weights).loss(SCORES, LABELS),
         F.binary_cross_entropy_with_logits(SCORES, LABELS, pos_weight=tensor)),
        (Regression().loss(SCORES, VALUES), F.mse_loss(SCORES, VALUES)),
    ]  # fmt: skip
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs)


def test_regression_learns_standard_values_and_answers_in_the_users_unit():
    task = Regression.of(VALUES)
    learned = task.standardised(VALUES)
    torch.testing.assert_close(learned.mean(0), torch.zeros(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(learned.std(0, correction=0), torch.ones(4))
    torch.testing.assert_close(task.answers(learned), VALUES)


def test_a_constant_value_does_not_divide_by_zero():
    task = Regression.of(torch.full((5, 1), 7.0))
    assert task.standardised(torch.full((5, 1), 7.0)).tolist() == [[0.0]] * 5


def test_answers_are_probabilities():
    torch.testing.assert_close(Classification().answers(SCORES).sum(1), torch.ones(101))
    torch.testing.assert_close(MultiLabel().answers(SCORES), SCORES.sigmoid())
