"""A new head takes the place of the old one wholly, and no head is lost over a name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from listening import Ear
from torch import nn

from tlnb.engine.export.script.heads import layer_code
from tlnb.errors import ModelError
from tlnb.session import Session

PICTURES = torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(24, 6, generator=torch.Generator().manual_seed(0))


def convolutional(**options: object) -> nn.Module:
    head = nn.Conv2d(4, 5, 3, **options)  # type: ignore[arg-type]
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), head, nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1}, {"padding": "same", "dilation": 2}])
@pytest.mark.parametrize("spec", ["linear", "mlp:6"])
def test_a_convolution_keeps_its_kernel(options: dict[str, object], spec: str, tmp_path: Path) -> None:
    tl = Session([])
    tl.load(convolutional(**options))
    old = tl.model[2]
    tl.data((PICTURES, torch.arange(24) % 2), batch=8)
    tl.head(spec)
    new = tl.model[2] if spec == "linear" else tl.model[2][0]
    for name in ("kernel_size", "stride", "padding", "dilation"):
        assert getattr(new, name) == getattr(old, name)
    run = tl.train(lr=1e-3)
    tl.save(str(tmp_path / "one"))
    other = Session([])
    other.load(convolutional(**options))
    other.resume(str(tmp_path / "one"))
    other.data((PICTURES, torch.arange(24) % 2), batch=8)
    assert repr(other.model) == repr(tl.model)
    assert all(
        torch.equal(a, b) for a, b in zip(other.model.parameters(), tl.model.parameters(), strict=True)
    )
    assert run.records


def test_what_does_not_answer_a_score_a_class_is_refused_and_put_back() -> None:
    class Folded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.last = nn.Linear(6, 8), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(torch.relu(self.body(x))).reshape(len(x), 2, -1)

    tl = Session([])
    tl.load(Folded(), input="6")
    last = tl.model.last
    with pytest.raises(ModelError, match="answers several rows, 2×2, for each sample"):
        tl.data((ROWS, torch.arange(24) % 6))
    assert tl.model.last is last
    assert list(tl.heads.values()) == [last]


def test_data_of_the_same_name_has_a_head_of_its_own() -> None:
    tl = Session([])
    tl.load(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5)))
    tl.data((ROWS, torch.arange(24) % 2))
    two = tl.model[2]
    tl.data((ROWS, torch.arange(24) % 3))
    three = tl.model[2]
    assert len(tl.heads) == 3
    tl.data((ROWS, torch.arange(24) % 2))
    assert tl.model[2] is two
    tl.data((ROWS, torch.arange(24) % 3))
    assert tl.model[2] is three


def test_a_head_that_other_data_trained_stays_in_words(tmp_path: Path) -> None:
    from PIL import Image

    for place in ("first", "second"):
        for kind in ("a", "b"):
            (tmp_path / place / kind).mkdir(parents=True)
            for i in range(4):
                Image.new("L", (8, 8), 30 * i + len(kind)).save(tmp_path / place / kind / f"{i}.png")
    says = Ear()
    tl = Session([says])
    tl.load("convnet5")
    tl.data(str(tmp_path / "first"), valid=0.5)
    head = tl.model.classifier[-1]
    tl.data(str(tmp_path / "first"), valid=0.5)
    assert not [line for line in says.said if "stays" in line]
    tl.data(str(tmp_path / "second"), valid=0.5)
    assert tl.model.classifier[-1] is head
    assert [line for line in says.said if "first left it" in line]


class Squeezed(nn.Module):
    """Ends as SqueezeNet does: a convolution, an activation, a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh())
        self.classifier = nn.Sequential(nn.Dropout(), nn.Conv2d(6, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.body(x)).flatten(1)


def test_an_activation_behind_a_new_head_does_not_act_and_comes_back_with_the_old_one(tmp_path: Path) -> None:
    tl = Session([])
    tl.load(Squeezed(), input="3,8,8")
    old, task, before = tl.model.classifier[1], tl.task, tl.model(PICTURES)
    tl.data((PICTURES, torch.arange(24) % 2), batch=8)
    new = tl.task
    assert isinstance(tl.model.classifier[2], nn.Identity)
    assert not tl.model.eval()(PICTURES).any()
    run = tl.run("fit head\nunfreeze all epochs 2 lr 1e-2 guard off")
    assert run.stages[0].final.valid_loss < 5  # type: ignore[union-attr]
    scores = tl.model(PICTURES)
    assert (scores < 0).any()
    tl.save(str(tmp_path / "one"))
    other = Session([])
    other.load(Squeezed(), input="3,8,8")
    other.resume(str(tmp_path / "one"))
    assert torch.equal(other.model(PICTURES), scores)
    tl.head(task=task)
    assert tl.model.classifier[1] is old
    assert isinstance(tl.model.classifier[2], nn.ReLU)
    assert tl.model(PICTURES).shape == before.shape
    tl.head(task=new)
    assert torch.equal(tl.model(PICTURES), scores)
    tl.head("linear", init="he")
    assert (tl.model(PICTURES) < 0).any()


class SharedActivation(Squeezed):
    """One activation module for the body and behind the head."""

    def __init__(self) -> None:
        super().__init__()
        self.body[1] = self.classifier[2]


def test_an_activation_that_serves_the_body_too_stays() -> None:
    tl = Session([])
    tl.load(SharedActivation(), input="3,8,8")
    tl.data((PICTURES, torch.arange(24) % 2), batch=8)
    assert isinstance(tl.model.classifier[2], nn.ReLU)
    assert tl.model.body[1] is tl.model.classifier[2]


MODULES = (
    nn.Linear(3, 4, bias=False), nn.Conv2d(3, 8, 3, padding="same", padding_mode="reflect"),
    nn.Conv2d(4, 8, (3, 1), 2, (1, 0), groups=2), nn.BatchNorm2d(4, affine=False), nn.LayerNorm(5, eps=1e-3),
    nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False, divisor_override=3), nn.GELU("tanh"),
    nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.Unflatten(1, (2, 2)), nn.LeakyReLU(0.2), nn.Dropout(0.3),
)  # fmt: skip


@pytest.mark.parametrize("module", MODULES, ids=repr)
def test_a_module_as_code_is_the_same_module(module: nn.Module) -> None:
    code = layer_code(module)
    assert code is not None
    again = eval(code, {"nn": nn})
    plain = (bool, int, float, str, tuple, type(None))
    for name, value in vars(module).items():
        if isinstance(value, plain):
            assert vars(again)[name] == value, name


def test_what_code_cannot_say_is_left_out() -> None:
    assert layer_code(nn.LSTM(3, 4)) is None


@pytest.mark.parametrize("spec", ["linear", "mlp:6", "knn:3", "nearest", "linear --init fit"])
def test_a_new_head_is_in_the_mode_of_the_one_before(spec: str, tmp_path: Path) -> None:
    """So that the user's own ``tl.model(x)`` answers as one network, also after a resume."""
    tl, other = Session([]), Session([])
    for session in (tl, other):
        session.load(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)), input="6")
        session.data((ROWS, torch.arange(24) % 3), batch=8)
        assert not any(module.training for module in session.model.modules())
    name, _, init = spec.partition(" --init ")
    tl.head(name, **({"init": init} if init else {}))
    tl.save(str(tmp_path / "one"))
    other.resume(str(tmp_path / "one"))
    for session in (tl, other):
        assert not any(module.training for module in session.model.modules())
