"""Similarity by norm statistics, features of every layer, and choices of samples."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tlnb.engine.advice.figures import norm_similarity
from tlnb.engine.data import glyphs
from tlnb.engine.data.samples import ImageSamples, TensorSamples, choose
from tlnb.engine.features.cache import FeatureCache
from tlnb.engine.features.layer_features import hooked_features, layer_features, narrowed, pooled
from tlnb.engine.features.planner import FeaturePlanner
from tlnb.engine.models.catalogue import load_model
from tlnb.engine.network.layers import find_layers

CPU = torch.device("cpu")


def test_similarity_is_the_frechet_distance_of_normals_written_out() -> None:
    norm = nn.BatchNorm1d(2, eps=0.0).eval()
    norm.running_mean.copy_(torch.tensor([0.0, 1.0]))
    norm.running_var.copy_(torch.tensor([1.0, 4.0]))
    x = torch.tensor([[1.0, 1.0], [3.0, 5.0]])  # means 2 and 3, spreads 1 and 2
    found = norm_similarity(nn.Sequential(norm), TensorSamples(x, torch.tensor([0, 1])), CPU)
    assert found is not None
    assert found.value == pytest.approx(math.exp(-((4 + 0) + (1 + 0)) / 2))


def test_a_network_without_batch_norm_does_not_tell() -> None:
    assert (
        norm_similarity(nn.Linear(2, 2), TensorSamples(torch.ones(3, 2), torch.zeros(3).long()), CPU) is None
    )


def test_similarity_falls_as_glyphs_are_changed_more_and_nothing_moves() -> None:
    loaded = load_model("convnet5")
    before = {k: v.clone() for k, v in loaded.model.state_dict().items()}
    images, targets = glyphs.draw(200, seed=4)
    values = []
    for change in (images, images // 2 + 60, 255 - images):
        samples = ImageSamples(loaded.preprocess.fit(change), targets, loaded.preprocess)
        found = norm_similarity(loaded.model, samples, CPU)
        assert found is not None
        values.append(found.value)
    assert values[0] > 0.97
    assert values[0] > values[1] > values[2]
    assert all(torch.equal(v, before[k]) for k, v in loaded.model.state_dict().items())


def test_every_cut_is_recorded_from_one_pass_and_training_finds_it() -> None:
    loaded = load_model("convnet5")
    images, targets = glyphs.draw(70, seed=5)
    samples = ImageSamples(loaded.preprocess.fit(images), targets, loaded.preprocess)
    layers = find_layers(loaded.model, samples.batch(torch.arange(1)), head=loaded.head)
    planner, ticks = FeaturePlanner(FeatureCache(None)), []
    found = layer_features(
        loaded.model, layers, samples, planner, CPU, on_progress=lambda done, total: ticks.append(total)
    )
    assert found.kept == (1, 2, 3, 4, 5, 6, 7)
    with torch.no_grad():
        exact = loaded.model.classifier[:-1](loaded.model.features(samples.batch(torch.arange(70))))
    assert torch.allclose(found.vectors[-1], exact, atol=1e-4)
    assert sum(n == 70 for n in ticks) == 3  # one pass of three batches
    assert planner.cache.bytes("memory") > 0


def test_hooks_see_what_the_first_module_of_each_layer_gives() -> None:
    loaded = load_model("convnet5")
    images, targets = glyphs.draw(9, seed=6)
    samples = ImageSamples(loaded.preprocess.fit(images), targets, loaded.preprocess)
    x = samples.batch(torch.arange(9))
    layers = find_layers(loaded.model, x[:1], head=loaded.head)
    found = hooked_features(loaded.model, layers, samples, CPU)
    assert set(found) == set(layers.body)
    with torch.no_grad():
        assert torch.allclose(found[0], narrowed(pooled(loaded.model.features[0](x)), seed=0), atol=1e-5)


def test_narrowing_keeps_distances_to_a_few_per_cent() -> None:
    x = torch.randn(20, 4000, generator=torch.Generator().manual_seed(1))
    ratio = torch.pdist(narrowed(x)) / torch.pdist(x)
    assert narrowed(x).shape == (20, 512)
    assert ratio.min() > 0.85
    assert ratio.max() < 1.15


def test_a_choice_is_even_over_classes_and_the_same_next_time() -> None:
    targets = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    samples = TensorSamples(torch.arange(100.0)[:, None], targets)
    some = choose(samples, 20, seed=3)
    assert torch.bincount(some.targets).tolist() == [12, 6, 2]
    assert torch.equal(some.batch(torch.arange(20)), choose(samples, 20, seed=3).batch(torch.arange(20)))
    assert choose(samples, 100, seed=3) is samples
