"""The architectures that can be built by name without another package: convnet5 and torchvision's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.models.convnet5 import convnet5
from tlnb.engine.models.state_dicts import shapes_of
from tlnb.engine.network.head import find_head, is_auxiliary

CONVNET5 = "convnet5"
IMAGENET = "imagenet"
"""What torchvision's published heads were trained for."""


@cache
def torchvision_names() -> tuple[str, ...]:
    """The classification architectures of torchvision."""
    return tuple(torchvision.models.list_models(module=torchvision.models))


def build(name: str, *, classes: int | None = None, image_size: int | None = None) -> nn.Module:
    """An architecture with random weights from torch's global generator.

    Args:
        name: ``convnet5`` or one of ``torchvision_names()``.
        classes: number of class scores; None for as many as the published weights have.
        image_size: height and width in pixels where the architecture fixes them (ViT); None for its own.
    """
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if name == CONVNET5:
        return convnet5(**options)
    if name in ("googlenet", "inception_v3"):
        # The published weights want the input scaled their own way, which torchvision leaves out otherwise.
        options |= {"init_weights": False, "transform_input": True}
    if image_size is not None and is_vit(name):
        options["image_size"] = image_size
    return torchvision.models.get_model(name, weights=None, **options)


def is_vit(name: str) -> bool:
    """Whether the architecture has a position embedding that fixes the size of its input."""
    return name.startswith("vit_")


def preset(transforms: Any) -> Preprocess:
    """The preprocessing of one of torchvision's weight entries."""
    crop, resize = transforms.crop_size[0], transforms.resize_size[0]
    return Preprocess(
        channels=3,
        size=(crop, crop),
        resize=resize,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=transforms.interpolation.value,
    )


@dataclass(frozen=True)
class Blueprint:
    """Names and shapes of an architecture.

    Attributes:
        name: of the architecture.
        shapes: of each weight and buffer, by name.
        head: qualified name of the classifier.
        children: names of its own parts in order.
    """

    name: str
    shapes: dict[str, tuple[int, ...]]
    head: str
    children: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, model: nn.Module, head: str) -> Blueprint:
        """The blueprint of a model that was built."""
        return cls(name, shapes_of(model), head, tuple(child for child, _ in model.named_children()))

    def is_body(self, key: str) -> bool:
        """Whether a weight belongs neither to a head nor to an auxiliary classifier."""
        return not is_auxiliary(key) and key not in self.head_like and not key.startswith(self.head + ".")

    @cached_property
    def head_like(self) -> frozenset[str]:
        """Where a head of another form would stand: the names of the module around the head."""
        root = self.head.split(".")[0]
        return frozenset(f"{root}.{leaf}" for leaf in ("weight", "bias"))


def blueprint(name: str, image_size: int | None = None) -> Blueprint:
    """Names and shapes of an architecture, which is built without storage for that, once."""
    return _blueprint(name, image_size)


@cache
def _blueprint(name: str, image_size: int | None) -> Blueprint:
    with without_storage():
        model = build(name, image_size=image_size)
    return Blueprint.of(name, model, find_head(model))


@contextmanager
def without_storage() -> Iterator[None]:
    """Weights that are made inside have a shape but no numbers (device ``meta``)."""
    with _NoStorage():
        yield


class _NoStorage(TorchFunctionMode):
    # ``torch.device("meta")`` would also take the numbers that RegNet computes its widths with.
    MAKERS = frozenset((torch.empty, torch.zeros, torch.ones, torch.full, torch.randn, torch.rand))
    FILLERS = frozenset((Tensor.normal_, Tensor.uniform_))  # slow in torch where there is nothing to fill

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in self.FILLERS and args[0].is_meta:
            return args[0]
        if func in self.MAKERS and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)
