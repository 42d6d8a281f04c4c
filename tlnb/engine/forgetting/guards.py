"""Guards against forgetting: terms of the loss that hold the network near to what it was.

Each keeps to its paper, with two things in common: only what trains is guarded, and the old head stays fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from tlnb.engine.core.objectives import scores_of
from tlnb.engine.core.tree import call
from tlnb.engine.data.samples import Samples
from tlnb.engine.forgetting.old_network import HeadInput, OldNetwork
from tlnb.engine.training.trainer import Guard

TEMPERATURE = 2.0
FISHER_SAMPLES = 256


class Anchor(Guard):
    """Pulls each weight of the body towards its old value: ``strength/2 sum_i c_i (w_i - w0_i)^2``.

    With c = 1 this is L2-SP (Li, Grandvalet and Davoine 2018), which takes the place of weight decay there.
    With c the diagonal of the Fisher information it is elastic weight consolidation (EWC, Kirkpatrick et al.
    2017).

    Args:
        strength: see above.
        old: weights of the old body, by name.
        importance: gives c for each weight, by name, when the stage begins; None for 1.
    """

    def __init__(
        self,
        strength: float,
        old: Mapping[str, Tensor],
        importance: Callable[[], Mapping[str, Tensor]] | None = None,
    ):
        super().__init__(strength)
        self._old, self._importance = old, importance
        self._pairs: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def begin(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Pair each trainable weight of the body with its old value, in place of weight decay."""
        weights = self._importance() if self._importance is not None else {}
        self._pairs = [
            (now, self._old[name].to(now.device), weights[name].to(now.device) if weights else None)
            for name, now in model.named_parameters()
            if now.requires_grad and name in self._old
        ]
        held = {id(now) for now, _, _ in self._pairs}
        for group in optimizer.param_groups:
            if all(id(parameter) in held for parameter in group["params"]):
                group["weight_decay"] = 0.0

    def penalty(self, indices: Tensor, forward: nn.Module, inputs: Tensor) -> Tensor:
        """The weighted squared distance from the old weights; the batch plays no part."""
        if not self._pairs:
            return torch.zeros(())
        parts = [
            (now - old).square().sum() if c is None else (c * (now - old).square()).sum()
            for now, old, c in self._pairs
        ]
        return self.strength / 2 * torch.stack(parts).sum()


class Distillation(Guard):
    """Learning without forgetting (Li and Hoiem 2016): the old head should still say what it said.

    ``strength * T^2 * KL(p_old || p_now)`` with ``p = softmax(scores / T)``, T = 2, on the new task's own
    samples: no old data is needed. The old answers are computed once, before the first step.

    The answers now are taken in test mode, as the old ones were, by a forward pass of their own. With dropout
    and batch statistics in them the divergence would never be zero, and Adam, which scales gradients up,
    would carry the weights away by that noise alone.

    Args:
        strength: see above.
        head: qualified name of the head in the network that trains.
        old: the network before training.
        answers: the old scores (n, old classes) of the training samples, computed when first asked for.
    """

    def __init__(self, strength: float, head: str, old: OldNetwork, answers: Callable[[], Tensor]):
        super().__init__(strength)
        self._name, self._old, self._answers = head, old, answers
        self._goal: Tensor | None = None

    def begin(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Ask for the old answers."""
        self._model, self._entrance = model, HeadInput(model, self._name)
        device = next(model.parameters()).device
        self._goal = (self._answers() / TEMPERATURE).softmax(1).to(device)
        self._head = self._old.model.get_submodule(self._old.head).to(device)

    def penalty(self, indices: Tensor, forward: nn.Module, inputs: Tensor) -> Tensor:
        """How far the old head's answers on this batch have moved."""
        assert self._goal is not None
        with _test_mode(self._model, forward), self._entrance.watching():
            call(forward, inputs)
            assert self._entrance.seen is not None
            now = (self._head(self._entrance.seen).float() / TEMPERATURE).log_softmax(1)
        goal = self._goal[indices.to(self._goal.device)]
        return self.strength * TEMPERATURE**2 * functional.kl_div(now, goal, reduction="batchmean")


@contextmanager
def _test_mode(*modules: nn.Module) -> Iterator[None]:
    """Test mode inside; every flag is as before when it ends."""
    flags = [(part, part.training) for module in modules for part in module.modules()]
    for part, _ in flags:
        part.training = False
    try:
        yield
    finally:
        for part, flag in flags:
            part.training = flag


def fisher(old: OldNetwork, samples: Samples, device: torch.device, seed: int = 0) -> dict[str, Tensor]:
    """Diagonal of the Fisher information of the old network's weights, scaled so that its mean is 1.

    ``F_i = E[(d log p(y | x) / d w_i)^2]`` with y drawn from the network's own answers, as the definition
    asks (Kunstner et al. 2019 show what goes wrong with the labels of the data). The scale makes one strength
    mean the same for networks of any size: with strength s an average weight is held as by ``l2sp:s``.

    Args:
        old: the network before training.
        samples: of the old task; at most ``FISHER_SAMPLES`` are used.
        device: where to compute.
        seed: of the labels that are drawn.
    """
    generator = torch.Generator().manual_seed(seed)
    model = old.model.to(device)
    names = {name: p for name, p in model.named_parameters() if p.is_floating_point()}
    total = {name: torch.zeros_like(p) for name, p in names.items()}
    rows = torch.linspace(0, len(samples) - 1, min(FISHER_SAMPLES, len(samples))).long().unique()
    model.requires_grad_(True)
    try:
        for row in rows.split(1):
            logs = scores_of(call(model, samples.batch(row).to(device))).float().log_softmax(1)
            label = torch.multinomial(logs.detach().exp().cpu(), 1, generator=generator).item()
            gradients = torch.autograd.grad(logs[0, int(label)], list(names.values()), allow_unused=True)
            for name, gradient in zip(names, gradients, strict=True):
                if gradient is not None:
                    total[name] += gradient.square()
    finally:
        model.requires_grad_(False)
    body = {name: t for name, t in total.items() if not name.startswith(f"{old.head}.")}
    mean = sum(float(t.sum()) for t in body.values()) / max(sum(t.numel() for t in body.values()), 1)
    return {name: t / max(mean, 1e-30) for name, t in body.items()}
