"""How fast a network runs here, from a few batches of it, and what plans will take before they run."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tlnb.engine.core.objectives import scores_of
from tlnb.engine.core.tree import Batch, call
from tlnb.engine.data.samples import Samples
from tlnb.engine.features.cost import best_cut, forward_flops, relative_cost
from tlnb.engine.network.layers import LayerMap
from tlnb.engine.network.trace import quiet
from tlnb.engine.training.ending import SHARES
from tlnb.engine.training.fit_head import last_layer
from tlnb.engine.training.linear_fit import FOLDED, FOLDS, PASSES
from tlnb.engine.training.lr_finder import LEAST, SHARE
from tlnb.engine.training.plan import Traits, first_part, lines_behind_fit, train_line
from tlnb.engine.training.stage import FIT, Stage

KEPT_BY_ADAMW = 4  # times its weights: they, their gradients, and two moments
TRIED = 16  # samples of the batch that is timed
MARGIN = 1.2  # by which what is expected must stay below a budget
FEWEST = 3  # a plan gives way to a cheaper one where less than this part of its epochs would fit
SOLVES = 100  # evaluations of its loss that the solver of a head takes
EIGEN = 30  # times the cube of its side that the axes of a matrix cost


@dataclass(frozen=True)
class Pace:
    """How fast a network runs here.

    Attributes:
        read: seconds to read one sample.
        forward: seconds for one sample through all layers, in test mode.
        step: seconds for one sample forward and backward through all layers.
        flops: forward cost of each layer, see ``forward_flops``.
        solver: operations a second of a product of matrices in float64.
        width: how many numbers enter the last layer.
    """

    read: float
    forward: float
    step: float
    flops: tuple[int, ...]
    solver: float
    width: int

    def fit(self, samples: int, outputs: int) -> float:
        """Seconds to fit a linear head to so many samples that are known."""
        least, folded = min(samples, self.width), min(samples, FOLDED)
        axes = 4 * samples * self.width * least + EIGEN * least**3
        folds = 4 * PASSES * 3 * FOLDS * folded * least * outputs
        return (axes + folds + 4 * SOLVES * samples * least * outputs) / self.solver

    def probes(self, samples: int, width: int) -> float:
        """Seconds to probe the features of one layer, of so many numbers."""
        return 3 * EIGEN * min(samples, width) ** 3 / self.solver


def measure_pace(
    model: nn.Module, head: str, layers: LayerMap, samples: Samples, device: torch.device
) -> Pace:
    """Time one small batch; nothing of the network changes.

    Args:
        model: on the device.
        head: qualified name of its head; empty for none.
        layers: its layers.
        samples: of the data.
        device: where the model is.
    """
    rows = torch.arange(min(TRIED, len(samples)))
    began = time.perf_counter()
    x = samples.batch(rows)
    read = (time.perf_counter() - began) / len(rows)
    x = x.to(device)
    with quiet(model):
        forward = min(_timed(lambda: call(model, x), device) for _ in range(3)) / len(rows)
    step, _ = step_cost(model, x)
    side = torch.ones(512, 512, dtype=torch.float64)
    product = min(_timed(lambda: side @ side, torch.device("cpu")) for _ in range(3))
    layer = last_layer(model.get_submodule(head)) if head else None
    width = 1 if layer is None else int(getattr(layer, "in_features", 0) or layer.weight.shape[1])
    return Pace(
        read, forward, step if step is not None else 3 * forward, forward_flops(model, layers, x),
        2 * len(side) ** 3 / product, width,
    )  # fmt: skip


def _timed(act: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    act()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return max(time.perf_counter() - began, 1e-9)


def seconds_of(
    stages: Sequence[Stage], pace: Pace, layers: LayerMap, samples: tuple[int, int], outputs: int, batch: int
) -> float:
    """About how long a plan takes: passes of frozen layers once, steps of what trains, measuring, and fits.

    Args:
        stages: of the plan.
        pace: of the network.
        layers: its layers.
        samples: how many train, and how many are measured on after each epoch.
        outputs: classes, labels or values.
        batch: samples a step, where a stage does not say.
    """
    train, valid = samples
    every, once, total = sum(pace.flops) or 1, pace.read + pace.forward, 0.0
    known = 0  # the deepest cut whose features are kept
    for stage in stages:
        adapted = {i for i, _ in stage.adapted}
        flags = [i in stage.frozen for i in range(len(layers))]
        cut = best_cut(layers, flags)
        if cut > known:
            total += (train + valid) * once
            known = cut
        rest = sum(pace.flops[cut:]) / every
        reads = 0.0 if cut else pace.read
        measure = valid * (reads + rest * pace.forward)
        learn = reads + pace.step * relative_cost(pace.flops, flags, cut, adapted)
        fit = train * (reads + rest * pace.forward) + pace.fit(train, outputs)
        if stage.kind == FIT:
            total += fit + measure
            continue
        total += stage.epochs * (train * learn + measure)
        total += fit if stage.init == "soft" else 0.0
        total += len(SHARES) * measure if stage.blend == "auto" else 0.0
        if stage.lr is None:
            total += max(SHARE * train, LEAST * (stage.batch or batch)) * learn
    return total


def show_seconds(seconds: float) -> str:
    """Seconds as people say them: ``0.4 s``, ``40 s``, ``5 min``, ``1.5 h``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


_EPOCHS = re.compile(r"\bepochs (\d+)")


def plan_within(
    advised: str, layers: LayerMap, images: int, traits: Traits, budget: float, cost: Callable[[str], float]
) -> tuple[str, float] | None:
    """The best plan that fits: the advised one, then biases alone, the last part of the body, or the head.

    Where not all epochs of a plan fit, it is taken with fewer, but not with less than a third of them.

    Args:
        advised: the plan of the advice.
        layers, images, traits: see ``plan.lines_behind_fit``.
        budget: seconds.
        cost: about how many seconds a plan takes.

    Returns:
        The plan and its seconds; None where not even the head fits.
    """
    every, first = range(len(layers)), first_part(layers)
    gently, *more = lines_behind_fit(layers, every, every, images, traits)
    part = train_line(f"{first}:", images, traits, soft=True)
    for plan in (advised, *([f"fit head\n{gently}"] if more else []), f"fit head\n{part}"):
        found = _EPOCHS.search(plan)
        usual = int(found[1]) if found else 1
        for epochs in range(usual, max(-(-usual // FEWEST), 1) - 1, -1):
            text = _EPOCHS.sub(f"epochs {epochs}", plan)
            seconds = cost(text)
            if MARGIN * seconds <= budget:
                return text, seconds
    seconds = cost("fit head")
    return ("fit head", seconds) if MARGIN * seconds <= budget else None


def step_cost(model: nn.Module, x: Batch) -> tuple[float | None, int | None]:
    """Seconds for each sample of a step that trains all layers, and bytes that it takes with this batch.

    The step runs twice, in test mode, on aliases of the weights, so that neither they nor their gradients are touched.
    What is kept for the way back is counted as it is saved.

    Args:
        model: any network.
        x: a batch, on its device.

    Returns:
        None for both where no gradient reaches the weights.
    """
    with quiet(model), torch.enable_grad():
        weights = {
            name: p.detach().requires_grad_() for name, p in model.named_parameters() if p.is_floating_point()
        }
        own = {w.untyped_storage()._cdata for w in weights.values()}  # which storage it is, by any backend
        saved: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                saved[storage._cdata] = storage.nbytes()
            return tensor

        def forward(*args: Tensor, **parts: Tensor) -> object:
            return functional_call(model, weights, args, parts)

        seconds = []
        try:
            for _ in range(2):
                began = time.perf_counter()
                with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                    loss = scores_of(call(forward, x)).float().square().mean()
                torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
                if x.device.type == "cuda":
                    torch.cuda.synchronize(x.device)
                seconds.append(time.perf_counter() - began)
        except RuntimeError:  # no way back through it, or no room for it
            return None, None
    held = KEPT_BY_ADAMW * sum(w.numel() * w.element_size() for w in weights.values())
    return min(seconds) / len(x), held + sum(saved.values())
