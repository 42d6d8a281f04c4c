"""The classification architectures of torchvision, with numbers or without storage."""

from __future__ import annotations

import os
from contextlib import contextmanager
from unittest import mock

import torch
import torchvision.models as tv
from torch import nn
from torchvision.models import regnet

NAMES = tuple(sorted(tv.list_models(module=tv)))
ALL = "TLNB_TEST_ALL" in os.environ
"""Set by ``pytest --all``."""
FAMILIES = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "maxvit_t",
    "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18",
    "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11_bn", "vit_b_32",
)  # fmt: skip
"""One network of each family; the others differ from it in depth and width."""
WITH_NUMBERS = frozenset(
    NAMES
    if ALL
    else ("densenet121", "googlenet", "mobilenet_v2", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_1")
)
"""Run with numbers: several inputs to a layer, side heads, blocks that invert, a sum, a split, a head of convolution.
The others run on the device ``meta``, which has shapes alone. ``--all`` runs all with numbers; that takes 16 GB and
many minutes."""
SHOWN = NAMES if ALL else FAMILIES
"""Run at all."""
HEADS = {
    "alexnet": "classifier.6", "convnext": "classifier.2", "densenet": "classifier",
    "efficientnet": "classifier.1", "googlenet": "fc", "inception": "fc", "maxvit": "classifier.5",
    "mnasnet": "classifier.1", "mobilenet_v2": "classifier.1", "mobilenet_v3": "classifier.3",
    "regnet": "fc", "resnet": "fc", "resnext": "fc", "shufflenet": "fc", "squeezenet": "classifier.1",
    "swin": "head", "vgg": "classifier.6", "vit": "heads.head", "wide_resnet": "fc",
}  # fmt: skip


def head_of(name: str) -> str:
    """The last layer of a network, which gives the scores."""
    return next(head for start, head in HEADS.items() if name.startswith(start))


@contextmanager
def _meta():
    # RegNet computes its widths with small tensors, which need numbers.
    make = regnet.BlockParams.from_init_params.__func__

    def with_numbers(cls, *args, **kwargs):
        with torch.device("cpu"):
            return make(cls, *args, **kwargs)

    patch = mock.patch.object(regnet.BlockParams, "from_init_params", classmethod(with_numbers))
    with patch, torch.device("meta"):
        yield


def _options(name: str) -> dict[str, object]:
    return {"init_weights": False} if name.startswith(("googlenet", "inception")) else {}


def usual_size(name: str) -> int:
    """Height and width of the smallest pictures that the network takes, 64 pixels where it takes any."""
    if name.startswith(("vit", "maxvit")):
        return 224  # fixed by the position embedding or the windows
    if name.startswith("inception"):
        return 299  # its auxiliary head needs the full size in training
    return 64


def on_meta(name: str) -> tuple[nn.Module, torch.Tensor]:
    """The network and an example of two images, without storage."""
    with _meta():
        model = tv.get_model(name, weights=None, **_options(name))
        return model, torch.empty(2, 3, usual_size(name), usual_size(name))


def real(name: str, size: int | None = None) -> tuple[nn.Module, torch.Tensor]:
    """The network with seeded random weights and two seeded images."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = tv.get_model(name, weights=None, **_options(name))
        size = size or usual_size(name)
        return model, torch.randn(2, 3, size, size)
