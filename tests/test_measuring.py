"""Forgetting, guards and blends in a session, by what they promise."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tlnb.engine.data import glyphs
from tlnb.engine.forgetting.guards import Anchor, Distillation, fisher
from tlnb.engine.forgetting.old_network import OldNetwork, body_state
from tlnb.errors import BadArguments, DataError, ModelError, NotReady
from tlnb.session import Session

# A hard pull away from the old weights: what a guard is for.
HARD = {"epochs": 3, "lr": 3e-3, "batch": 32}
Letters = tuple[tuple[torch.Tensor, list[str]], tuple[torch.Tensor, list[str]]]


@pytest.fixture(scope="module")
def letters() -> Letters:
    """The old task in few samples, for speed: letters of unseen fonts, to split from and to measure on."""

    def drawn(seed: int) -> tuple[torch.Tensor, list[str]]:
        images, places = glyphs.draw(246, seed=seed, fonts=glyphs.HELD_OUT_FONTS)
        return images, [glyphs.CLASSES[place] for place in places]

    return drawn(1), drawn(2)


def with_new_head() -> Session:
    tl = Session([])
    tl.load("convnet5")
    tl.data("digits", per_class=30, valid=0.1, seed=0)
    tl.freeze("body")
    tl.train(8, 1e-2, batch=32)
    tl.unfreeze("all")
    return tl


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Session]:
    """Sessions out of files: ``head``, whose new head is trained, and ``hard``, after a hard stage behind that."""
    folder, tl = tmp_path_factory.mktemp("sessions"), with_new_head()
    tl.save(str(folder / "head"))
    tl.train(**HARD)
    tl.save(str(folder / "hard"))

    def read(name: str) -> Session:
        again = Session([])
        again.resume(str(folder / name))
        return again

    return read


@pytest.fixture(scope="module")
def unguarded(saved: Callable[[str], Session], letters: Letters) -> tuple[float, float]:
    return figures(saved("hard"), letters)


def figures(tl: Session, letters: Letters) -> tuple[float, float]:
    """New and old accuracy."""
    new, old = tl.history[-1].accuracy, tl.forgetting(letters).now
    assert old is not None
    return new, old


@pytest.mark.parametrize("keep", ["l2sp:0.05", "lwf:1", "ewc:1"])
def test_a_guard_forgets_less_at_nearly_equal_new_accuracy(
    keep: str, saved: Callable[[str], Session], letters: Letters, unguarded: tuple[float, float]
) -> None:
    tl = saved("head")
    tl.train(**HARD, keep=keep)
    new, old = figures(tl, letters)
    assert old > unguarded[1] + 0.01
    assert new > unguarded[0] - 0.03


def test_what_was_forgotten_is_measured_before_after_each_stage_and_now(letters: Letters) -> None:
    tl = with_new_head()
    tl.train(**HARD)
    assert tl.history.old == {}
    found = tl.forgetting(letters)
    assert found.before is not None
    assert found.now is not None
    assert found.before > 0.95
    # The first stage trained the head alone.
    assert [mark.old for mark in found.stages] == [found.before, found.now]
    assert found.forgotten == pytest.approx(found.before - found.now)
    assert tl.history.old == {1: found.before, 2: found.now}
    assert f"{100 * found.now:.1f} %" in repr(tl.history)
    assert "old task" in tl.history._repr_html_()


def test_measuring_changes_nothing(saved: Callable[[str], Session], letters: Letters) -> None:
    tl = saved("hard")
    before = {k: v.clone() for k, v in tl.model.state_dict().items()}
    modes = [m.training for m in tl.model.modules()]
    tl.forgetting(letters)
    tl.blend()
    assert all(torch.equal(v, before[k]) for k, v in tl.model.state_dict().items())
    assert [m.training for m in tl.model.modules()] == modes


def test_old_data_named_first_is_measured_at_the_end_of_each_stage() -> None:
    tl = Session([])
    tl.load("convnet5")
    tl.data("digits", per_class=5)
    assert tl.forgetting().forgotten == 0
    tl.freeze("body")
    tl.train(1, 1e-2)
    assert tl.history.old == {1: tl.forgetting().before}


def test_drift_is_one_where_nothing_moved_and_less_behind_what_trained(
    saved: Callable[[str], Session],
) -> None:
    tl = saved("head")
    tl.freeze("0:3")
    tl.train(2, 3e-3)
    cka = [d.cka for d in tl.forgetting().drift]
    assert cka[:3] == pytest.approx([1, 1, 1])
    assert all(0 < value < 0.9999 for value in cka[3:])


def test_a_blend_goes_between_both_ends_and_back_bit_for_bit(
    saved: Callable[[str], Session], letters: Letters
) -> None:
    old = body_state(saved("head").model, "classifier.7")
    tl = saved("hard")
    tl.forgetting(letters)
    new = {k: v.clone() for k, v in body_state(tl.model, "classifier.7").items()}
    half = tl.blend(0.5)
    now = body_state(tl.model, "classifier.7")
    name = "features.0.weight"
    assert torch.allclose(now[name], (old[name] + new[name]) / 2)
    assert half.point.old is not None
    assert half.point.old > half.points[-1].old + 0.01  # less forgotten than at the new end
    tl.find_lr(steps=12)  # leaves no trace, so the ends stay
    assert tl.blend(0).a == 0
    floats = [k for k, v in old.items() if v.is_floating_point()]
    assert all(torch.equal(body_state(tl.model, "classifier.7")[k], old[k]) for k in floats)
    tl.blend(1)
    assert all(torch.equal(v, new[k]) for k, v in body_state(tl.model, "classifier.7").items())
    assert half.plot().axes


def test_what_cannot_be_measured_is_said_in_one_line() -> None:
    tl = Session([])
    tl.load("convnet5")
    with pytest.raises(NotReady, match="no data yet"):
        tl.forgetting()
    tl.data("digits", per_class=5)
    with pytest.raises(NotReady, match="nothing to blend"):
        tl.blend(0.5)
    with pytest.raises(BadArguments, match=r"from 0 .* to 1"):
        tl.blend(2)
    with pytest.raises(DataError, match="does not know the class '0'"):
        tl.forgetting("digits")
    tl.load("convnet5", weights="none")
    with pytest.raises(ModelError, match="random weights"):
        tl.forgetting()


def parts() -> tuple[torch.nn.Module, OldNetwork, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    old = OldNetwork.of(model, "2", {}, "old")
    with torch.no_grad():
        model[0].weight.add_(0.5)
    return model, old, torch.randn(10, 4), torch.arange(10) % 2


def test_l2sp_is_half_the_squared_distance_of_the_body() -> None:
    model, old, _, _ = parts()
    optimizer = torch.optim.AdamW(
        [{"params": list(model[0].parameters())}, {"params": list(model[2].parameters())}]
    )
    guard = Anchor(0.2, old.body)
    guard.begin(model, optimizer)
    assert guard.penalty(torch.arange(3), model, torch.zeros(3, 4)).item() == pytest.approx(
        0.2 / 2 * 12 * 0.25
    )
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.01]


def test_lwf_is_the_divergence_of_the_old_heads_answers() -> None:
    model, old, x, targets = parts()
    from tlnb.engine.data.samples import TensorSamples

    samples = TensorSamples(x, targets)
    guard = Distillation(1.5, "2", old, lambda: old.scores(samples, torch.device("cpu")))
    guard.begin(model, torch.optim.SGD(model.parameters()))
    rows = torch.tensor([4, 1, 7])
    found = guard.penalty(rows, model, x[rows]).item()
    p = (old.model(x[rows]) / 2).softmax(1)
    q = (old.model[2](model[:2](x[rows])) / 2).softmax(1)
    assert found == pytest.approx((1.5 * 4 * (p * (p / q).log()).sum(1).mean()).item(), rel=1e-3)


def test_fisher_of_a_linear_softmax_is_its_closed_form() -> None:
    torch.manual_seed(1)
    body, head = torch.nn.Linear(3, 2), torch.nn.Identity()
    model = torch.nn.Sequential(body, head)
    x = torch.randn(1, 3).repeat(4000, 1)  # one input, many drawn labels
    from tlnb.engine.data.samples import TensorSamples
    from tlnb.engine.forgetting import guards

    before, guards.FISHER_SAMPLES = guards.FISHER_SAMPLES, 4000
    try:
        found = fisher(
            OldNetwork(model, "1", "old"), TensorSamples(x, torch.zeros(4000).long()), torch.device("cpu")
        )
    finally:
        guards.FISHER_SAMPLES = before
    with torch.no_grad():
        p = body(x[:1]).softmax(1)[0]
    exact = (p * (1 - p))[:, None] * x[0].square()  # E[(y - p)^2] x^2
    bias = p * (1 - p)
    mean = (exact.sum() + bias.sum()) / 8
    assert torch.allclose(found["0.weight"], exact / mean, rtol=0.1)
    assert torch.allclose(found["0.bias"], bias / mean, rtol=0.1)
