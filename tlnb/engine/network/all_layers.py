"""A head that sees what every layer gives, not the last one alone (Head2Toe, Evci et al. 2022).

Plain torch and nothing of tlnb, so that scripts and loaders can hold the very same code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Tap:
    """Takes down what enters a module at each call, pooled to vectors; it is a forward pre-hook.

    Args:
        seen: where it is put, by number.
        number: of the tap.
        cells: cells a side to which places are averaged; none for vectors, and for sequences (B, T, D), whose mean
            is taken.
    """

    def __init__(self, seen: dict, number: int, cells: tuple):
        self.seen, self.number, self.cells = seen, number, cells

    def __call__(self, module: nn.Module, inputs: tuple) -> None:
        """Note the first input."""
        if isinstance(inputs[0], Tensor):
            self.seen[self.number] = pooled_to(inputs[0], self.cells)


class AllLayers(nn.Module):
    """Scores that are linear in what enters several modules of a network, and in what enters the head.

    It hears the modules while it stands in the network, see :func:`listen`. Features that a fit leaves out have
    weight zero.

    Args:
        taps: (name of a module, numbers of a sample there, cells a side) for each that it hears.
        features: numbers that enter the head itself for each sample.
        classes: outputs.
        places: whether it stands where a convolution stood: it takes (B, features, H, W) and gives (B, classes, 1, 1).
    """

    def __init__(self, taps: tuple, features: int, classes: int, places: bool = False):
        super().__init__()
        self.taps, self.features, self.places = tuple(taps), features, places
        self.linear = nn.Linear(sum(size for _, size, _ in self.taps) + features, classes)
        self.seen: dict[int, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Scores (B, classes) for what enters the head, (B, features)."""
        parts = [self.seen.pop(number) for number in range(len(self.taps))]
        own = pooled_to(x, (1,) * max(x.dim() - 2, 0))
        scores = self.linear(torch.cat([*parts, own], 1))
        return scores[:, :, None, None] if self.places else scores

    def extra_repr(self) -> str:
        """What it is made with."""
        return f"{len(self.taps) + 1} layers"


def pooled_to(x: Tensor, cells: tuple) -> Tensor:
    """Samples (B, ...) as float32 vectors: images and rows averaged over so many cells a side, sequences over all."""
    x = x.float()
    if len(cells) == 2:
        x = F.adaptive_avg_pool2d(x, cells)
    elif len(cells) == 1:
        x = F.adaptive_avg_pool1d(x, cells[0])
    elif x.dim() > 2:
        x = x.flatten(1, -2).mean(1)
    return x.flatten(1)


def listen(model: nn.Module) -> None:
    """Let each head of all layers that stands in the network hear it, and no other.

    Raises:
        AttributeError: the network has no module of a name that one hears.
    """
    modules = list(model.modules())
    for module in modules:
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, Tap):
                del module._forward_pre_hooks[key]
    for head in modules:
        if isinstance(head, AllLayers):
            for number, (name, _, cells) in enumerate(head.taps):
                model.get_submodule(name).register_forward_pre_hook(Tap(head.seen, number, tuple(cells)))
