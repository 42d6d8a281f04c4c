"""Training behind the frozen part, on features that are kept, against training the whole network."""

from __future__ import annotations

import pytest
import torch
from architectures import WITH_NUMBERS, real
from lively import lively
from networks import blobs
from torch import nn
from torchvision.models import VisionTransformer

from tlnb.engine.core.interrupts import Stopped, StopRequest
from tlnb.engine.core.objectives import Classification
from tlnb.engine.data.samples import Samples, TensorSamples
from tlnb.engine.features.cache import FeatureCache
from tlnb.engine.features.fold import FastPart, inference_copy
from tlnb.engine.features.key import LOOKED_AT
from tlnb.engine.features.planner import CacheRequest, FeaturePlanner, ForwardPlan
from tlnb.engine.features.prefix import PassingSamples, cut_for, cuts_ahead
from tlnb.engine.features.samples import FeatureSamples
from tlnb.engine.models.catalogue import load_model
from tlnb.engine.network import freeze
from tlnb.engine.network.layers import find_layers
from tlnb.engine.training.loop import run_stage
from tlnb.engine.training.records import StageResult
from tlnb.engine.training.stage import Stage
from tlnb.engine.training.trainer import StageTrainer

CPU = torch.device("cpu")


def photos(size: int, count: int = 12, channels: int = 3, seed: int = 0) -> TensorSamples:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % 3
    return TensorSamples(torch.randn(count, channels, size, size, generator=generator), targets)


def run(model, layers, stage, samples, planner=None, coming=()):
    """The stage trained behind the cut, or through the whole network where ``planner`` is None."""
    freeze.apply(model, layers, stage.frozen)

    def shortcut(log, on_progress):
        return planner.forward_plan(
            model, layers, CacheRequest(stage.frozen, coming), samples, CPU, log=log, on_progress=on_progress
        )

    trainer = StageTrainer(
        model, layers, stage, ForwardPlan(*samples, model), number=1, batch=4, seed=0, task=Classification(),
        shortcut=shortcut if planner else None,
    )  # fmt: skip
    result = StageResult(1, stage, trainer.trained, 0.0)
    run_stage(trainer, result, StopRequest(), lambda *_: None)
    return trainer, result


def both_ways(make, frozen_of, *, epochs=2, lr=1e-3, samples):
    """The same stage with the cache and without."""
    outcomes = []
    for planner in (FeaturePlanner(FeatureCache(), dtype_policy="fp32"), None):
        model, example = make()
        layers = find_layers(model, example)
        stage = Stage("test", frozen_of(layers), epochs=epochs, lr=lr, optimizer="sgd")
        outcomes.append(run(model, layers, stage, samples, planner))
    return outcomes


def check_same(cached, plain) -> None:
    (fast, ours), (slow, theirs) = cached, plain
    for a, b in zip(ours.records, theirs.records, strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, rel=1e-4)
        assert a.valid_loss == pytest.approx(b.valid_loss, rel=1e-4)
    order = torch.arange(len(fast.forward_plan.valid))
    with torch.no_grad():
        scores = fast.forward_plan.forward(fast.forward_plan.valid.batch(order))
        whole = slow.model(slow.forward_plan.valid.batch(order))
    assert torch.equal(scores.argmax(1), whole.argmax(1))
    assert isinstance(fast.forward_plan.train, FeatureSamples)


NETWORKS = sorted(WITH_NUMBERS)
OURS = ["convnet5", "vit_tiny"]


def classifier(name):
    torch.manual_seed(0)
    if name == "vit_tiny":
        model = VisionTransformer(32, 8, num_layers=3, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=5)
        nn.init.normal_(model.heads.head.weight)  # torchvision starts it at zero: no gradient would come back
        example = torch.randn(2, 3, 32, 32)
    elif name == "convnet5":
        loaded = load_model("convnet5")
        model, example = loaded.model, torch.randn(2, loaded.preprocess.channels, *loaded.preprocess.size)
    else:
        model, example = real(name)
    return model.eval(), example


@pytest.mark.parametrize("name", OURS + NETWORKS)
def test_a_head_trains_as_without_the_cache(name):
    make = lambda: classifier(name)  # noqa: E731
    shape = make()[1].shape
    samples = photos(shape[-1], 6, shape[1]), photos(shape[-1], 4, shape[1], seed=1)
    check_same(*both_ways(make, lambda layers: range_to(len(layers) - 1), epochs=1, lr=1e-3, samples=samples))


@pytest.mark.parametrize("name", [*OURS, "resnet18", "mobilenet_v2", "densenet121"])
def test_the_second_half_trains_as_without_the_cache(name):
    make = lambda: classifier(name)  # noqa: E731
    shape = make()[1].shape
    samples = photos(shape[-1], 12, shape[1]), photos(shape[-1], 4, shape[1], seed=1)
    # A small rate: where gradients explode in an untrained network, roundings explode with them.
    check_same(
        *both_ways(make, lambda layers: range_to(len(layers) // 2), epochs=1, lr=1e-5, samples=samples)
    )


@pytest.mark.parametrize("frozen", [(0,), (0, 1), (0, 1, 2), (0, 2)])
def test_dropout_and_batch_norm_behind_the_cut_draw_and_move_as_without_the_cache(frozen):
    make = lambda: (lively(), torch.zeros(1, 1, 8, 8))  # noqa: E731
    cached, plain = both_ways(make, lambda layers: frozen, lr=0.01, samples=(blobs(), blobs(30, seed=1)))
    check_same(cached, plain)
    for (name, ours), theirs in zip(
        cached[0].model.state_dict().items(), plain[0].model.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4, msg=name)


def range_to(stop):
    return tuple(range(stop))


@pytest.mark.parametrize("name", OURS + NETWORKS)
def test_folding_changes_roundings_only_and_leaves_the_model_alone(name):
    model, example = classifier(name)
    layers = find_layers(model, example)
    prefix, _ = layers.graph.split(layers.graph.cuts[-1])
    state = {k: v.clone() for k, v in model.state_dict().items()}
    part = FastPart(prefix)
    with torch.no_grad():
        expected, fast = prefix(example), part(example)
    assert (fast - expected).norm() <= 1e-5 * expected.norm()
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    own = {p.data_ptr() for p in part._run.parameters()}
    assert not own & {p.data_ptr() for p in model.parameters()}


def test_every_batch_norm_behind_a_convolution_is_folded():
    model, example = real("resnet18")
    layers = find_layers(model.eval(), example)
    copy = inference_copy(layers.graph.segment(0, 9))
    assert not [m for m in copy.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len([m for m in copy.modules() if isinstance(m, nn.Conv2d)]) == 20


def test_a_batch_norm_whose_input_is_seen_elsewhere_stays():
    class Seen(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2)

        def forward(self, x):
            y = self.conv(x)
            return self.head((y + self.norm(y)).mean((2, 3)))

    model = Seen().eval()
    x = torch.randn(2, 1, 6, 6)
    layers = find_layers(model, x)
    part = FastPart(layers.graph.segment(0, layers.graph.cuts[-1]))
    assert [m for m in part._run.modules() if isinstance(m, nn.BatchNorm2d)]
    assert torch.allclose(model.head(part(x).clone()), model(x), atol=1e-6)


def test_the_cut_is_the_last_clean_one_behind_frozen_layers():
    layers = find_layers(lively(), torch.zeros(1, 1, 8, 8))
    assert [cut_for(layers, frozen) for frozen in [(), (1, 2), (0,), (0, 1), (0, 1, 2), (0, 2)]] == [
        0, 0, 1, 2, 3, 1,
    ]  # fmt: skip


def test_cuts_ahead_leave_out_what_an_earlier_stage_trains():
    layers = find_layers(lively(), torch.zeros(1, 1, 8, 8))
    assert cuts_ahead(layers, (0, 1, 2), [(0, 1), (0,), ()]) == [1, 2, 3]
    assert cuts_ahead(layers, (0,), [(0, 1, 2)]) == [1]
    assert cuts_ahead(layers, (), [(0, 1, 2)]) == []


class Counted(TensorSamples):
    """Samples that count how often they were asked for."""

    asked = 0

    def batch(self, indices):
        self.asked += len(indices)
        return super().batch(indices)


def counted(samples: TensorSamples) -> Counted:
    return Counted(samples.inputs, samples.targets)


def route_of(planner, model, frozen, samples, coming=(), **options):
    layers = find_layers(model, torch.zeros(1, 1, 8, 8))
    return planner.forward_plan(model, layers, CacheRequest(frozen, coming, **options), samples, CPU)


def test_one_pass_records_every_cut_that_the_plan_will_need():
    model, train, valid = lively(), counted(blobs()), counted(blobs(30, seed=1))
    planner = FeaturePlanner(FeatureCache())
    route_of(planner, model, (0, 1, 2), (train, valid), coming=[(0, 1), (0,)])
    once = train.asked
    assert once <= 90 + 4 + LOOKED_AT
    for frozen in [(0, 1), (0,), (0, 1, 2)]:
        forward_plan = route_of(planner, model, frozen, (train, valid))
        layers = find_layers(model, torch.zeros(1, 1, 8, 8))
        expected = layers.graph.split(len(frozen))[0](train.inputs)
        torch.testing.assert_close(forward_plan.train.batch(torch.arange(90)), expected.detach())
    assert train.asked == once + 3 * LOOKED_AT


def test_features_are_pushed_on_to_a_later_cut():
    model, train, valid = lively(), counted(blobs()), counted(blobs(30, seed=1))
    planner = FeaturePlanner(FeatureCache())
    route_of(planner, model, (0,), (train, valid))
    once = train.asked
    forward_plan = route_of(planner, model, (0, 1), (train, valid))
    assert train.asked == once + LOOKED_AT
    layers = find_layers(model, torch.zeros(1, 1, 8, 8))
    expected = layers.graph.split(2)[0](train.inputs)
    torch.testing.assert_close(forward_plan.train.batch(torch.arange(90)), expected.detach())


def test_an_interrupted_pass_keeps_nothing_and_the_next_one_starts_anew():
    model, samples = lively(), (blobs(), blobs(30, seed=1))
    planner, layers = FeaturePlanner(FeatureCache()), find_layers(model, torch.zeros(1, 1, 8, 8))

    def stop(done, total):
        raise Stopped

    with pytest.raises(Stopped):
        planner.forward_plan(model, layers, CacheRequest((0,)), samples, CPU, on_progress=stop)
    assert not planner.cache.entries
    assert isinstance(route_of(planner, model, (0,), samples).train, FeatureSamples)


class Noisy(TensorSamples):
    """Samples under random changes, one for each view."""

    random = True
    numbers: tuple[int, ...] = ()

    def view(self, *numbers: int) -> Samples:
        other = Noisy(self.inputs, self.targets)
        other.numbers = numbers
        return other

    def batch(self, indices):
        return super().batch(indices) + float(sum(self.numbers))

    def fingerprint(self):
        return f"{super().fingerprint()} {self.numbers}"


def noisy() -> Noisy:
    samples = blobs()
    return Noisy(samples.inputs, samples.targets)


def test_random_samples_run_through_the_frozen_part_in_each_epoch():
    model = lively()
    forward_plan = route_of(FeaturePlanner(FeatureCache()), model, (0, 1), (noisy(), blobs(30, seed=1)))
    assert isinstance(forward_plan.train, PassingSamples)
    assert isinstance(forward_plan.valid, FeatureSamples)
    prefix = find_layers(model, torch.zeros(1, 1, 8, 8)).graph.split(2)[0]
    order = torch.arange(90).split(45)
    for epoch in (0, 3):
        view = forward_plan.train.view(1, epoch)
        expected = prefix(blobs().inputs + 1.0 + epoch).detach()
        torch.testing.assert_close(torch.cat(list(view.stream(order))), expected)


def test_kept_views_are_taken_in_turn():
    model, samples = lively(), noisy()
    forward_plan = route_of(
        FeaturePlanner(FeatureCache()), model, (0, 1), (samples, blobs(30, seed=1)), views=2
    )
    prefix = find_layers(model, torch.zeros(1, 1, 8, 8)).graph.split(2)[0]
    everything = torch.arange(90)
    for epoch in range(4):
        expected = prefix(blobs().inputs + float(epoch % 2)).detach()
        torch.testing.assert_close(forward_plan.train.view(7, epoch).batch(everything), expected)


def test_without_a_clean_cut_the_whole_network_runs():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(64, 4), nn.Linear(4, 3)

        def forward(self, x):
            y = self.body(x.flatten(1))
            return self.head(y) if y.sum() > -1e9 else y

    model = Odd()
    forward_plan = route_of(FeaturePlanner(FeatureCache()), model, (0,), (blobs(), blobs(30)))
    assert forward_plan.forward is model
    assert forward_plan.note == ""


def test_bfloat16_features_name_the_same_classes():
    model, samples = lively(), (blobs(), blobs(30, seed=1))
    forward_plan = route_of(FeaturePlanner(FeatureCache(), dtype_policy="bf16"), model, (0, 1), samples)
    assert forward_plan.train.features.rows.dtype == torch.bfloat16
    assert forward_plan.train.batch(torch.arange(4)).dtype == torch.float32
    exact = find_layers(model, torch.zeros(1, 1, 8, 8)).graph.split(2)[0](samples[0].inputs).detach()
    ours = forward_plan.train.batch(torch.arange(90))
    assert (ours - exact).norm() < 0.02 * exact.norm()
    assert not torch.equal(ours, exact)
    with torch.no_grad():
        right = (forward_plan.forward(ours).argmax(1) == model(samples[0].inputs).argmax(1)).float().mean()
    assert right > 0.95


def test_saved_seconds_grow_with_each_use():
    model, samples = lively(), (blobs(), blobs(30, seed=1))
    planner = FeaturePlanner(FeatureCache())
    forward_plan = route_of(planner, model, (0, 1), samples)
    before = forward_plan.saved()
    for _ in range(5):
        forward_plan.train.batch(torch.arange(90))
    assert forward_plan.saved() - before == pytest.approx(5 * forward_plan.train.features.seconds)
