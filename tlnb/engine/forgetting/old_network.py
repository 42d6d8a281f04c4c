"""The network as it was before the session trained it: what forgetting is measured against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tlnb.engine.core.modules import duplicate, set_training
from tlnb.engine.core.objectives import Objective, scores_of
from tlnb.engine.core.tree import call
from tlnb.engine.data.samples import Samples
from tlnb.engine.network import adapters
from tlnb.engine.network.trace import quiet
from tlnb.errors import ModelError

BATCH = 128


@dataclass(frozen=True)
class OldNetwork:
    """A copy of a network from before training, with the head that came with its weights.

    Attributes:
        model: the copy, in test mode; its weights take no gradients.
        head: qualified name of the head.
        name: of the task that the head is for.
    """

    model: nn.Module
    head: str
    name: str

    @classmethod
    def of(cls, model: nn.Module, head: str, old: Mapping[str, nn.Module], name: str) -> OldNetwork:
        """Copy a network.

        Args:
            model: as it is before any training.
            head: qualified name of its head.
            old: the modules that came with the weights by place, where others stand there now: the head, and what
                belongs to it.
            name: of the old task.

        Raises:
            ModelError: the network cannot be copied.
        """
        try:
            twin: nn.Module = duplicate(model)
            adapters.detach(twin, adapters.attached(twin))
            for place, module in old.items():
                twin.set_submodule(place, duplicate(module))
        except Exception as error:
            raise ModelError(f"this network cannot be copied, so nothing old can be kept: {error}") from None
        set_training(twin, False)
        for parameter in twin.parameters():
            parameter.requires_grad_(False)
        return cls(twin, head, name)

    @property
    def body(self) -> dict[str, Tensor]:
        """Weights and buffers of everything but the head, by name."""
        return body_state(self.model, self.head)

    @torch.no_grad()
    def scores(self, samples: Samples, device: torch.device) -> Tensor:
        """The old network's class scores: (n, old classes), on the CPU."""
        self.model.to(device)
        parts = torch.arange(len(samples)).split(BATCH)
        return torch.cat(
            [scores_of(call(self.model, x.to(device))).float().cpu() for x in samples.stream(parts)]
        )


def body_state(model: nn.Module, head: str) -> dict[str, Tensor]:
    """Weights and buffers outside the head, by name: the tensors themselves, or what they are with their adapters."""
    return {
        name: tensor
        for name, tensor in adapters.merged_state(model).items()
        if not (head and (name == head or name.startswith(f"{head}.")))
    }


def put_body(model: nn.Module, head: str, state: Mapping[str, Tensor]) -> None:
    """Write weights and buffers outside the head, in place, of a network that has no adapters."""
    with torch.no_grad():
        for name, tensor in body_state(model, head).items():
            tensor.copy_(state[name])


class HeadInput:
    """Sees what enters the head of a network.

    Args:
        model: the network.
        head: qualified name of its head.
    """

    def __init__(self, model: nn.Module, head: str):
        # A graph may go through a head of several parts, but always calls the first of them.
        whole = model.get_submodule(head)
        self._first = next(m for m in whole.modules() if not list(m.children()))
        self.seen: Tensor | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, ``seen`` holds what entered the head last."""

        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self.seen = inputs[0]

        handle = self._first.register_forward_pre_hook(hook)
        try:
            yield
        finally:
            handle.remove()
            self.seen = None


@torch.no_grad()
def figure_with_head(
    model: nn.Module, head: str, old_head: nn.Module, samples: Samples, task: Objective, device: torch.device
) -> float:
    """The task's figure of a network's body under another head; the network stays as it is.

    Args:
        model: the network as it is now.
        head: qualified name of the head that stands in it.
        old_head: the one to answer with.
        samples: to measure on.
        task: whose figure.
        device: where the model is.
    """
    meter, entrance = task.meter(device), HeadInput(model, head)
    parts = torch.arange(len(samples)).split(BATCH)
    modes = [(m, m.training) for m in old_head.modules()]
    set_training(old_head, False)
    old_head.to(device)
    try:
        with quiet(model), entrance.watching():
            for indices, x in zip(parts, samples.stream(parts), strict=True):
                call(model, x.to(device))
                assert entrance.seen is not None
                meter.update(old_head(entrance.seen), samples.targets[indices].to(device))
    finally:
        for module, flag in modes:
            module.training = flag
    return meter.value()
