"""Modules of the user's own, layers made new, and timm's networks, through a session."""

from __future__ import annotations

import builtins
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tests.networks import small
from tlnb.engine.models import timm_models
from tlnb.errors import AddressError, ModelError, NotReady, TlnbError, WeightsError
from tlnb.session import Session


@pytest.fixture
def tl() -> Session:
    return Session([])


# -------------------------------------------------------------------- $var


def test_a_module_is_used_itself_and_pictures_keep_their_size(tl: Session) -> None:
    net = small(classes=4)
    loaded = tl.load(net)
    assert tl.model is net
    assert (loaded.name, loaded.head) == ("Small", "head")
    assert "its preprocessing is not known: pixels in 0..1 as they are, mean 0, std 1" in loaded.notes
    tl.data("digits", per_class=3)
    assert tl.view.need_model().preprocess.size == (8, 8)
    assert tl.view.need_model().outputs == 10
    assert tl.train(epochs=1, lr=1e-3).stages[0].records


class Fussy(nn.Module):
    """Takes pictures of one odd size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.head = nn.Linear(2 * 9 * 11, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(x).flatten(1))


def test_layers_wait_for_data_where_no_guess_fits(tl: Session) -> None:
    loaded = tl.load(Fussy())
    assert loaded.input is None
    with pytest.raises(NotReady, match="what Fussy takes is not known yet; name data"):
        _ = tl.layers
    with pytest.raises(NotReady, match="--input 1,28,28"):
        tl.freeze("0")
    X, y = torch.randn(20, 1, 11, 13), torch.arange(20) % 5
    tl.data((X, y))
    assert [row.name for row in tl.layers] == ["conv", "head"]
    assert tl.train(epochs=1, lr=1e-3).stages[0].trained == (0, 1)


def test_the_input_can_be_said(tl: Session) -> None:
    loaded = tl.load(Fussy(), input="1,11,13")
    assert loaded.input is not None
    assert tl.layers[0].shape == (198,)  # the flattening belongs to it
    with pytest.raises(ModelError, match="Fussy does not run on a sample of 1×12×13"):
        tl.load(Fussy(), input="1,12,13")
    with pytest.raises(ModelError, match="--input takes the shape of one sample, such as 1,28,28; not 'a'"):
        tl.load(Fussy(), input="a")
    assert tl._loaded is loaded


def test_what_was_frozen_stays_frozen_and_the_head_is_what_runs_last(tl: Session) -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 3)
            self.body = nn.Linear(16, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.body(x.flatten(1)).relu())

    net = Backwards()
    net.body.requires_grad_(False)
    loaded = tl.load(net, input=(16,))
    assert loaded.head == "head"
    assert [row.name for row in tl.layers] == ["body", "head"]
    assert tl.frozen == (True, False)


def test_an_untraceable_module_trains_and_says_what_it_lacks(tl: Session) -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.body(x)
            return self.head(x if x.sum() > 0 else -x)

    tl.load(Branches())
    X = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    tl.data((X, (X[:, 0] > 0).long()))
    tl.freeze("0")
    assert "no cut: its forward takes decisions that depend on the data" in repr(tl.layers)
    assert tl.train(epochs=2, lr=1e-2).stages[0].digest_after != ""


def test_what_is_no_module_is_one_line(tl: Session) -> None:
    for thing, words in (({}, "not dict"), (nn.Flatten(), "Flatten has no weights")):
        with pytest.raises(ModelError, match=words):
            tl.load(thing)
    with pytest.raises(ModelError, match="--weights is for a network that is loaded by name"):
        tl.load(small(), weights="none")
    with pytest.raises(ModelError, match="--input is for a module of your own"):
        tl.load("convnet5", input="1,2,3")


def test_a_network_that_does_not_fit_the_data_leaves_the_session_as_it_was(tl: Session) -> None:
    tl.data("digits", per_class=3)
    before = tl.load("convnet5")
    tl.freeze("0:2")
    frozen = tl.frozen
    with pytest.raises(ModelError, match="Fussy does not run on samples of 1×32×32"):
        tl.load(Fussy())
    assert tl._loaded is before
    assert tl.frozen == frozen
    assert tl.task == "digits"


# -------------------------------------------------------------------- --layers-from


def test_layers_from_keeps_five_and_makes_the_rest_new(tl: Session) -> None:
    tl.load("convnet5")
    trained = {name: t.clone() for name, t in tl.model.state_dict().items()}
    tl.load("convnet5", layers_from="0:5")
    layers = tl.view.need_layers()
    now = tl.model.state_dict()
    kept = [n for i in range(5) for n in (*layers[i].parameter_names, *layers[i].buffer_names)]
    assert all(torch.equal(now[name], trained[name]) for name in kept)
    for layer in layers[5:]:
        weight, bias = (tl.model.get_submodule(layer.name).get_parameter(n) for n in ("weight", "bias"))
        assert not bias.any()
        assert weight.std().item() == pytest.approx((2 / weight.shape[1]) ** 0.5, rel=0.05)
        assert not torch.equal(weight, trained[f"{layer.name}.weight"])
    assert tl.load("convnet5", layers_from="all").categories is not None


def test_layers_from_resets_norms_and_takes_loose_weights_from_the_constructor(tl: Session) -> None:
    loaded = tl.load("convnext_tiny", weights="none", layers_from="0:2")
    scales = [p for name, p in loaded.model.named_parameters() if name.endswith("layer_scale")]
    assert all(torch.allclose(p, torch.full_like(p, 1e-6)) for p in scales)
    net = small()
    tl.load(net, layers_from="0")
    for place, reset in (("body.1", False), ("body.5", True), ("body.9", True)):
        norm = net.get_submodule(place)
        assert bool((norm.running_var == 1).all() and (norm.running_mean == 0).all()) is reset


def test_a_wrong_address_changes_nothing(tl: Session) -> None:
    before = tl.load("convnet5")
    with pytest.raises(AddressError):
        tl.load("convnet5", layers_from="layer9")
    assert tl._loaded is before


# -------------------------------------------------------------------- timm

timm = pytest.importorskip("timm")
TIMM = {
    "resnet18": "fc", "vit_tiny_patch16_224": "head", "mobilenetv3_small_050": "classifier",
    "convnext_atto": "head.fc", "deit_tiny_distilled_patch16_224": "head", "efficientnet_b0": "classifier",
    "levit_128s": "head.linear", "mixer_s32_224": "head", "regnety_002": "head.fc",
}  # fmt: skip


FIXED_SIZE = {"vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "levit_128s", "mixer_s32_224"}


@pytest.mark.parametrize("name", TIMM)
def test_timm_networks_load_and_train(tl: Session, name: str) -> None:
    data = torch.rand(4, 3, 64, 64), torch.arange(4) % 2
    tl.data(data, valid=0.5, size=None if FIXED_SIZE & {name} else 64)
    loaded = tl.load(f"timm/{name}", weights="none")
    assert loaded.head == TIMM[name]
    cfg = timm.data.resolve_data_config(model=tl.model)
    assert (loaded.preprocess.mean, loaded.preprocess.std) == (cfg["mean"], cfg["std"])
    assert (3, *loaded.preprocess.size) == cfg["input_size"]  # the data's own size does not change it
    assert loaded.preprocess.interpolation == cfg["interpolation"]
    tl.freeze("body")
    assert tl.train(epochs=1, lr=1e-3).stages[0].digest_after != ""
    tl.unfreeze("all")
    assert tl.train(epochs=1, lr=1e-4).stages[0].records


def test_timm_words_that_are_wrong(tl: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="timm has no model 'resnet19'; did you mean 'resnet1"):
        tl.load("timm/resnet19")
    with pytest.raises(WeightsError, match="no weights 'a1_in1'; did you mean 'a1_in1k'"):
        tl.load("timm/resnet18", weights="a1_in1")
    monkeypatch.setattr(timm_models, "_reachable", lambda url: False)
    with pytest.raises(WeightsError, match=r"cannot get the weights of timm/resnet18 .*--weights none"):
        tl.load("timm/resnet18")


def test_timm_from_a_file_of_another_head(tl: Session, tmp_path: Any) -> None:
    state = timm.create_model("resnet18", num_classes=4).state_dict()
    torch.save({"state_dict": {"module." + k: v for k, v in state.items()}}, tmp_path / "a.pth")
    path = str(tmp_path / "a.pth")
    loaded = tl.load("timm/resnet18", weights=path)
    assert loaded.outputs == 4
    assert torch.equal(tl.model.fc.weight, state["fc.weight"])
    assert tl.load(path, arch="timm/resnet18").name == "timm/resnet18"


def test_without_timm_one_line_says_what_to_install(tl: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = builtins.__import__

    def no_timm(name: str, *args: Any, **keys: Any) -> Any:
        if name == "timm":
            raise ImportError(name)
        return usual(name, *args, **keys)

    monkeypatch.setattr(builtins, "__import__", no_timm)
    with pytest.raises(ModelError, match=r"timm is not installed; get it with: pip install 'tlnb\[timm\]'"):
        tl.load("timm/resnet18")


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(3))


def without_numbers() -> nn.Module:
    with torch.device("meta"):
        return small()


def under_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return small()


CANNOT = [
    (lazy, r"0.weight of Sequential is not made yet, as its layer has seen no sample; run it on one first"),
    (without_numbers, r"weight of \w+ is on the device meta, without numbers; make the network on the CPU"),
    (under_inference_mode, r"weight of \w+ was made under torch.inference_mode, so it can never train"),
    (
        lambda: small().half(),
        r"are float16, and its samples come in float32; make them float32 first: net.float\(\)",
    ),
    (nn.Flatten, "Flatten has no weights, so there is nothing to train or freeze"),
]


@pytest.mark.parametrize(("make", "message"), CANNOT)
def test_weights_that_cannot_train_are_one_line_and_stay_as_they_are(
    tl: Session, make: Callable[[], nn.Module], message: str
) -> None:
    net = make()
    before = [(name, id(p), p.requires_grad) for name, p in net.named_parameters()]
    with pytest.raises(ModelError, match=message):
        tl.load(net, input="1,8,8")
    assert [(name, id(p), p.requires_grad) for name, p in net.named_parameters()] == before
    assert not any(module._forward_hooks for module in net.modules())


# -------------------------------------------------------------------- weights and modules of other kinds

PIXELS = torch.rand(24, 3, 8, 8, generator=torch.Generator().manual_seed(0))
KINDS = torch.arange(24) % 2


class Odd(nn.Module):
    """A weight and a buffer of any kind in the middle."""

    def __init__(self, middle: torch.Tensor, buffer: torch.Tensor | None = None) -> None:
        super().__init__()
        self.conv, self.middle, self.fc = nn.Conv2d(3, 4, 3), nn.Parameter(middle), nn.Linear(4, 2)
        self.register_buffer("kept", buffer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.conv(x).relu().mean((2, 3))
        if self.kept is not None:
            features = features @ self.kept
        return self.fc((features.to(self.middle.dtype) @ self.middle).abs())


def test_entries_that_share_one_memory_are_refused(tl: Session) -> None:
    with pytest.raises(ModelError, match="middle of Odd has entries that share one memory"):
        tl.load(Odd(torch.rand(4, 1).expand(4, 4)), input="3,8,8")
    with pytest.raises(ModelError, match="kept of Odd has entries that share one memory"):
        tl.load(Odd(torch.eye(4), torch.rand(4, 1).expand(4, 4)), input="3,8,8")
    tl.load(Odd(torch.rand(4, 4).t(), torch.rand(1, 4).expand(1, 4).t() @ torch.ones(1, 4)), input="3,8,8")


def test_complex_weights_train_as_in_a_plain_loop(tl: Session) -> None:
    torch.manual_seed(0)
    net, twin = (Odd(torch.ones(4, 4, dtype=torch.complex64) * (1 + 0.5j)) for _ in range(2))
    twin.load_state_dict(net.state_dict())
    tl.load(net, input="3,8,8")
    tl.data((PIXELS, KINDS), batch=24)
    tl.train(2, 0.05, optimizer="sgd", schedule="constant")
    rows = tl.split.train
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.05, momentum=0.9)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(twin(PIXELS[rows]), KINDS[rows]).backward()
        optimizer.step()
    assert not torch.equal(net.middle, torch.ones(4, 4, dtype=torch.complex64) * (1 + 0.5j))
    for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        assert (ours - theirs).abs().max() < 1e-5


def test_a_buffer_that_gets_another_size_is_one_line_and_as_it_was(tl: Session) -> None:
    class Grows(Odd):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.kept.resize_(len(x), 4)
            return self.fc(self.conv(x).relu().mean((2, 3)))

    net = Grows(torch.eye(4), torch.zeros(0))
    with pytest.raises(ModelError, match="its buffer kept gets another size in its forward"):
        tl.load(net, input="3,8,8")
    assert net.kept.shape == (0,)


def test_a_graph_of_export_has_no_modes(tl: Session) -> None:
    any_batch = ({0: torch.export.Dim("batch", min=1, max=1000)},)
    made = torch.export.export(
        Odd(torch.eye(4)), (torch.rand(2, 3, 8, 8),), dynamic_shapes=any_batch
    ).module()
    with pytest.raises(ModelError, match=r"takes no train and test mode .*load the module that it was made"):
        tl.load(made, input="3,8,8")


def test_a_network_that_cannot_be_copied_trains_and_says_so_in_predictions(tl: Session) -> None:
    class Single(Odd):
        def __deepcopy__(self, memo: object) -> Any:
            raise RuntimeError("there is one alone")

    tl.load(Single(torch.eye(4)), input="3,8,8")
    tl.data((PIXELS, KINDS), batch=8)
    assert tl.train(1, 0.01).stages[0].records
    with pytest.raises(ModelError, match=r"Single cannot be copied, .*there is one alone"):
        tl.predict(PIXELS[:2])


def test_a_network_that_was_changed_since_is_one_line(tl: Session) -> None:
    def plain() -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
        )

    def shorter(net: nn.Sequential) -> None:
        del net[1]

    for change, words in (
        (shorter, "4.weight is not in the network any more"),
        (nn.Module.half, "the weights of Sequential are float16"),
        (nn.Module.double, "the weights of Sequential are float64"),
    ):
        tl.load(plain(), input="3,8,8")
        tl.data((PIXELS, KINDS), batch=8)
        change(tl.model)
        with pytest.raises(ModelError, match=words):
            tl.train(1, 0.01)
    tl.model.float()
    assert tl.train(1, 0.01).stages[0].records


@pytest.mark.parametrize("weights", [{"a": torch.ones(1)}, nn.Linear(1, 1), io.BytesIO(b"x"), 3])
def test_weights_in_memory_are_no_name(tl: Session, weights: object) -> None:
    with pytest.raises(TlnbError) as caught:
        tl.load("convnet5", weights=weights)
    assert len(str(caught.value).splitlines()) == 1
