"""Networks of torchvision as a session uses them: load, new head, freeze, one step, cut.

``tests/engine/test_architectures.py`` takes one of each further family through head, freezing, step and cut by shape.
``--all`` runs all eighty here.
"""

from __future__ import annotations

import zlib

import pytest
import torch
import torchvision.models as tv

from tests.architectures import WITH_NUMBERS, head_of, usual_size
from tlnb.engine.network.head import outputs_of
from tlnb.session import Session

HUGE = 250_000_000  # AdamW's moments would take memory that a usual machine lacks
CLASSES = 3


def parameters(name: str) -> int:
    return tv.get_model_weights(name).DEFAULT.meta["num_params"]


@pytest.fixture(autouse=True)
def no_autosave(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of 80 networks take longer to write than all the rest, and are tested elsewhere."""
    monkeypatch.setenv("TLNB_AUTOSAVE", "0")


@pytest.fixture(scope="module")
def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(6, 3, 64, 64, generator=generator), torch.arange(6) % CLASSES


@pytest.mark.parametrize("name", sorted(WITH_NUMBERS))
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
    stage = tl.train(epochs=1, guard="off", **how).stages[0]
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
    layers = tl.view.need_layers()
    assert layers.note is None
    samples = tl._samples
    assert samples is not None
    batch = samples[1].batch(torch.arange(2))
    with torch.inference_mode():
        expected = tl.model.eval()(batch)
        for cut in (len(layers) // 2, len(layers) - 1):
            prefix, tail = layers.graph.split(cut)
            assert torch.equal(tail.eval()(prefix(batch)), expected)
