"""Every torchvision classification architecture, as a session uses it: load, new head, freeze, one step, cut.

Networks up to 31 million parameters, and one of each family that has none so small, run with numbers on small
pictures. The larger ones run on the device ``meta``, where every shape and every gradient's presence is
checked but no number; they differ from the small ones of their family in depth and width alone.
``--all`` runs the larger ones with numbers too.
"""

from __future__ import annotations

import zlib

import pytest
import torch
import torchvision.models as tv

from tests.architectures import ALL, NAMES, on_meta, usual_size
from tlnb.engine.data.samples import TensorSamples
from tlnb.engine.network import freezing
from tlnb.engine.network.auxiliary import auxiliary_heads
from tlnb.engine.network.head import find_head, new_head, outputs_of, replace
from tlnb.engine.network.layers import find_layers
from tlnb.engine.training.route import Route
from tlnb.engine.training.stage import Stage
from tlnb.engine.training.tasks import Classification
from tlnb.engine.training.trainer import StageTrainer
from tlnb.session import Session

MOST = 30_000_000
HUGE = 250_000_000  # AdamW's moments would take memory that a usual machine lacks
ALONE = ("alexnet", "vit_b_32")


def parameters(name: str) -> int:
    return tv.get_model_weights(name).DEFAULT.meta["num_params"]


SMALL = tuple(n for n in NAMES if n in ALONE or parameters(n) <= MOST)
WITH_NUMBERS = NAMES if ALL else SMALL
HEADS = {
    "alexnet": "classifier.6", "convnext": "classifier.2", "densenet": "classifier",
    "efficientnet": "classifier.1", "googlenet": "fc", "inception": "fc", "maxvit": "classifier.5",
    "mnasnet": "classifier.1", "mobilenet_v2": "classifier.1", "mobilenet_v3": "classifier.3",
    "regnet": "fc", "resnet": "fc", "resnext": "fc", "shufflenet": "fc", "squeezenet": "classifier.1",
    "swin": "head", "vgg": "classifier.6", "vit": "heads.head", "wide_resnet": "fc",
}  # fmt: skip
CLASSES = 3


def head_of(name: str) -> str:
    return next(head for start, head in HEADS.items() if name.startswith(start))


def test_all_eighty_are_here() -> None:
    assert len(NAMES) == 80
    assert len(SMALL) == 42


@pytest.fixture(autouse=True)
def no_autosave(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of 80 networks take longer to write than all the rest, and are tested elsewhere."""
    monkeypatch.setenv("TLNB_AUTOSAVE", "0")


@pytest.fixture(scope="module")
def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(6, 3, 64, 64, generator=generator), torch.arange(6) % CLASSES


@pytest.mark.parametrize("name", WITH_NUMBERS)
def test_load_head_freeze_step_cut(name: str, pictures: tuple[torch.Tensor, torch.Tensor]) -> None:
    tl = Session([])
    tl.data(pictures, size=usual_size(name), valid=0.5, batch=3)
    loaded = tl.load(name, weights="none")

    assert loaded.head == head_of(name)
    assert [r.name for r in tl.layers if r.head] == [loaded.head]
    assert tl.layers[-1].shape == (CLASSES,)
    heads = [tl.model.get_submodule(place) for place in (loaded.head, *loaded.side_heads)]
    assert [outputs_of(head) for head in heads] == [CLASSES] * len(heads)
    assert all(not head.bias.any() for head in heads)

    tl.freeze("body")
    before = sums(tl.model)
    stage = tl.train(epochs=1, lr=1e-2).stages[0]
    assert stage.digest_before == stage.digest_after != ""
    after = sums(tl.model)
    assert {n for n in after if after[n] != before[n]} == {f"{loaded.head}.weight", f"{loaded.head}.bias"}

    # The first step checks that each trainable parameter, in auxiliary classifiers too, gets a gradient.
    tl.unfreeze("all")
    how = {"lr": 1e-2, "optimizer": "sgd", "momentum": 0} if parameters(name) > HUGE else {"lr": 1e-4}
    stage = tl.train(epochs=1, **how).stages[0]
    assert stage.trained == tuple(range(len(tl.layers)))
    after = sums(tl.model)
    still = {n for n, _ in tl.model.named_parameters() if after[n] == before[n]}
    assert still <= never_moved(tl.model)

    check_cut(tl)


def sums(model: torch.nn.Module) -> dict[str, int]:
    """A checksum of each weight and buffer; copies of all would not fit beside the largest."""
    return {n: zlib.crc32(t.contiguous().numpy().data) for n, t in model.state_dict().items()}


def never_moved(model: torch.nn.Module) -> set[str]:
    """Weights and shifts that start at zero and whose gradient is exactly zero (behind a dead ReLU)."""
    return {name for name, p in model.named_parameters() if not p.detach().any()}


def check_cut(tl: Session) -> None:
    layers = tl._need_layers()
    assert layers.note is None
    samples = tl._samples
    assert samples is not None
    batch = samples[1].batch(torch.arange(2))
    with torch.inference_mode():
        expected = tl.model.eval()(batch)
        for cut in (len(layers) // 2, len(layers) - 1):
            prefix, tail = layers.graph.split(cut)
            assert torch.equal(tail.eval()(prefix(batch)), expected)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(SMALL)))
def test_large_ones_by_shape(name: str) -> None:
    model, example = on_meta(name)
    head = find_head(model)
    assert head == head_of(name)
    assert auxiliary_heads(model) == ()
    replace(model, head, new_head(model.get_submodule(head), "linear", CLASSES))
    layers = find_layers(model, example, head)
    assert layers[-1].shape == (CLASSES,)
    assert layers.graph.cuts == tuple(range(len(layers)))

    targets = torch.zeros(2, dtype=torch.int64, device="meta")
    samples = TensorSamples(example, targets)
    for frozen in (layers.body, ()):
        freezing.apply(model, layers, frozen)
        stage = Stage("all", frozen=frozen, optimizer="sgd", lr=1e-3)
        route = Route(samples, samples, model, torch.device("meta"))
        trainer = StageTrainer(model, layers, stage, route, number=1, batch=2, seed=0, task=Classification())
        trainer.set_modes(training=True)
        names = {n for i in set(range(len(layers))) - set(frozen) for n in layers[i].parameter_names}
        assert {n for n, p in model.named_parameters() if p.requires_grad} == names
        loss = trainer.train_step(torch.arange(2, device="meta"), probe=True)
        assert loss.shape == ()
    prefix, tail = layers.graph.split(layers.head[0])
    assert tail.eval()(prefix(example)).shape == (2, CLASSES)
