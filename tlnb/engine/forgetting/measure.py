"""What a network still knows of its old task, and how far each layer has moved, by centred kernel alignment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tlnb.display.tables import Table
from tlnb.engine.core.objectives import Classification, Objective
from tlnb.engine.data import glyphs
from tlnb.engine.data.load import load_data
from tlnb.engine.data.raw import Pictures
from tlnb.engine.data.samples import Samples, choose, with_targets
from tlnb.engine.data.tokens import AnyPreprocess
from tlnb.engine.features.layer_features import hooked_features
from tlnb.engine.network.layers import LayerMap
from tlnb.errors import DataError


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear CKA (Kornblith et al. 2019): ``|Y'X|_F^2 / (|X'X|_F |Y'Y|_F)`` on centred columns.

    Between 0 and 1; 1 where the features are equal up to rotation and one common scale. NaN where one of them
    does not vary.

    Args:
        x: (n, d).
        y: (n, e), of the same samples.
    """
    x, y = (v.double() - v.double().mean(0) for v in (x, y))
    if len(x) < max(x.shape[1], y.shape[1]):  # n×n matrices are the smaller ones
        a, b = x @ x.T, y @ y.T
        cross, own = (a * b).sum(), a.norm() * b.norm()
    else:
        cross, own = (y.T @ x).square().sum(), (x.T @ x).norm() * (y.T @ y).norm()
    return float(cross / own) if own > 0 else float("nan")


def unbiased_cka(x: Tensor, y: Tensor) -> float:
    """Linear CKA from the unbiased estimator of HSIC (Song et al. 2012), which few samples do not inflate.

    Args:
        x: (n, d) with n of at least 4.
        y: (n, e), of the same samples.
    """
    a, b = (v.double() @ v.double().T for v in (x, y))
    own = _hsic(a, a) * _hsic(b, b)
    return float(_hsic(a, b) / own.sqrt()) if own > 0 else float("nan")


def _hsic(a: Tensor, b: Tensor) -> Tensor:
    n = len(a)
    off = 1 - torch.eye(n, dtype=a.dtype)
    a, b = a * off, b * off
    total = (a * b).sum() + a.sum() * b.sum() / ((n - 1) * (n - 2)) - 2 * (a.sum(0) @ b.sum(1)) / (n - 2)
    return total / (n * (n - 3))


GLYPHS_SEED = 710_231  # training and the model card draw from others
GLYPHS = 820
DRIFT_SAMPLES = 256


@dataclass(frozen=True)
class OldData:
    """Samples of the old task.

    Attributes:
        name: what the user called them.
        samples: to measure on, under the classes of the old head.
        learned: to take the Fisher information from.
        task: loss and figure.
    """

    name: str
    samples: Samples
    learned: Samples
    task: Objective


def old_data(
    source: object, preprocess: AnyPreprocess, classes: Sequence[str] | None, outputs: int
) -> OldData:
    """Read data of the old task.

    Args:
        source: ``glyphs``, drawn with fonts and a seed that training never saw; or anything that names data,
            whose validation part is measured on.
        preprocess: of the network.
        classes: of the old head, in order; None where nobody told.
        outputs: how many class scores the old head gives.

    Raises:
        DataError: the data has classes that the old head does not know.
    """
    if isinstance(source, str) and source == "glyphs" and classes == glyphs.CLASSES:
        drawn = [
            Pictures(*glyphs.draw(GLYPHS, seed=GLYPHS_SEED + k, fonts=fonts)).prepare(preprocess)
            for k, fonts in enumerate((glyphs.HELD_OUT_FONTS, glyphs.TRAIN_FONTS))
        ]
        return OldData("glyphs", drawn[0], drawn[1], Classification())
    data = load_data(source)
    learned, samples = data.samples(preprocess)
    if isinstance(data.task, Classification):
        places = _places(data.classes, classes, outputs)
        learned, samples = (with_targets(part, places[part.targets]) for part in (learned, samples))
    elif len(data.classes) != outputs:
        raise DataError(
            f"the old head gives {outputs} scores, and a target of this data holds {len(data.classes)}"
        )
    return OldData(data.name, samples, learned, data.task)


def _places(names: Sequence[str], classes: Sequence[str] | None, outputs: int) -> torch.Tensor:
    """Where each class of the data stands among the outputs of the old head."""
    if classes is None:
        if len(names) != outputs:
            raise DataError(f"the old head gives {outputs} scores and the data has {len(names)} classes")
        return torch.arange(len(names))
    strange = [name for name in names if name not in classes]
    if strange:
        raise DataError(
            f"the old head does not know the class {strange[0]!r}; --source takes data of the task that the "
            "network was trained on before"
        )
    return torch.tensor([classes.index(name) for name in names])


@dataclass(frozen=True)
class Drift:
    """How alike a layer's features still are to those of the old network.

    Attributes:
        layer: its number.
        name: of the module that it starts with.
        cka: linear CKA on the same samples; 1 where nothing moved.
    """

    layer: int
    name: str
    cka: float


def drift(
    old: nn.Module, now: nn.Module, layers: LayerMap, samples: Samples, device: torch.device
) -> tuple[Drift, ...]:
    """Linear CKA between old and present features, layer by layer; it needs no labels and no old data.

    Args:
        old: the network before training.
        now: the network as it is.
        layers: of the present network; those of the body are compared.
        samples: any inputs; at most ``DRIFT_SAMPLES`` are used.
        device: where to compute.
    """
    some = choose(samples.view(0, 0), DRIFT_SAMPLES, seed=0)
    before, after = (hooked_features(net.to(device), layers, some, device) for net in (old, now))
    return tuple(
        Drift(i, layers[i].name, linear_cka(before[i], after[i]))
        for i in layers.body
        if i in before and i in after
    )


@dataclass(frozen=True)
class StageMark:
    """The old task after a stage.

    Attributes:
        number: of the stage.
        text: its line.
        old: figure on the old task; None where the weights of that time are not kept.
    """

    number: int
    text: str
    old: float | None


@dataclass(frozen=True)
class Forgetting:
    """What is left of the old task.

    Attributes:
        task: its name.
        before: figure before any training; None without old data, as are the others then.
        stages: after each stage.
        now: with the weights as they are.
        metric: name of the figure.
        drift: of each layer of the body.
        source: what was measured on, in words.
    """

    task: str
    before: float | None
    stages: tuple[StageMark, ...]
    now: float | None
    metric: str
    drift: tuple[Drift, ...]
    source: str

    @property
    def forgotten(self) -> float | None:
        """What was lost: before less now; None without old data."""
        return None if self.before is None or self.now is None else self.before - self.now

    @property
    def table(self) -> Table:
        """The old task's figure before, after each stage, and now."""
        rows = [("before", "", _show(self.before, self.metric))]
        rows += [(f"stage {s.number}", s.text, _show(s.old, self.metric)) for s in self.stages]
        rows.append(("now", "", _show(self.now, self.metric)))
        return Table(("when", "line", f"{self.task}: {self.metric}"), rows, align="<<>")

    @property
    def drift_table(self) -> Table:
        """A line for each layer of the body."""
        rows = [(d.layer, d.name, f"{d.cka:.3f}") for d in self.drift]
        return Table(("layer", "name", "CKA with the old"), rows, align="><>")

    def _summary(self) -> str:
        if self.forgotten is None:
            return f"no old data named: drift of the features only, on {self.source}"
        points = 100 * self.forgotten
        verb = "forgot" if points >= 0 else "gained"
        return f"{verb} {abs(points):.1f} points of {self.task}, measured on {self.source}"

    def __repr__(self) -> str:
        parts = [repr(self.table)] if self.before is not None else []
        return "\n".join([self._summary(), *parts, repr(self.drift_table)])

    def _repr_html_(self) -> str:
        from html import escape

        parts = [self.table._repr_html_()] if self.before is not None else []
        return "".join([f"<div>{escape(self._summary())}</div>", *parts, self.drift_table._repr_html_()])


def _show(value: float | None, metric: str) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f} %" if metric == "accuracy" else f"{value:.4f}"
