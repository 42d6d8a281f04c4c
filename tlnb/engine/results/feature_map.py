"""A map of samples: what comes out of a layer in two dimensions, to see what the network holds to be alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tlnb.display.figures import INK, PALETTE, as_html, as_png, new_figure, short
from tlnb.display.tables import Table, frame
from tlnb.engine.core.arguments import others_code
from tlnb.engine.data.look import Look
from tlnb.errors import BadArguments, ModelError, NotReady, first_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = ("pca", "umap")
COLOURS = ("class", "prediction", "correct", "part")
PARTS = ("training", "validation")
NEIGHBOURS = 15  # of a point that UMAP keeps together
KEPT = 50  # directions that UMAP starts from
MISSING = 'UMAP needs one more package: pip install "tlnb[map]"; without it: --by pca'
MARKERS = ("o", "s", "^", "D", "v")  # classes beyond the colours are told apart by these
RIGHT, WRONG = PALETTE[0], PALETTE[1]
LEGEND = 24  # classes that are named beside the picture


def in_two(vectors: Tensor, by: str = "pca", seed: int = 0) -> tuple[np.ndarray, str]:
    """Vectors as points of a plane.

    Args:
        vectors: float32 (n, d).
        by: ``pca`` for the two directions in which they spread most (Pearson 1901), ``umap`` for a plane in which
            neighbours stay neighbours (McInnes et al. 2018); distances and sizes mean little there.
        seed: of what is drawn at random.

    Returns:
        float32 (n, 2), and in words how they were made.

    Raises:
        NotReady: UMAP is not installed.
        ModelError: the vectors are not finite.
    """
    values = vectors.double().numpy()
    if not np.isfinite(values).all():
        raise ModelError("what comes out of this layer is not finite, so it cannot be drawn")
    if by == "umap":
        return _by_umap(values, seed)
    points, share = _principal(values, 2, seed)
    return points.astype(np.float32), f"PCA, {100 * share:.0f} % of the spread"


def _principal(values: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, float]:
    """The first principal components (n, count), zeros where there are fewer, and their share of the variance."""
    from sklearn.decomposition import PCA

    points = np.zeros((len(values), count))
    most = min(count, *values.shape)
    if len(values) < 2 or not values.std(0).any():
        return points, 1.0
    made = PCA(most, random_state=seed)
    points[:, :most] = made.fit_transform(values)
    return points, float(made.explained_variance_ratio_.sum())


def _by_umap(values: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    try:
        from umap import UMAP
    except ImportError as trouble:
        raise NotReady(MISSING if "umap" in str(trouble) else f"{MISSING} ({first_line(trouble)})") from None
    if len(values) <= 2 * NEIGHBOURS:
        points, _ = _principal(values, 2, seed)
        return points.astype(np.float32), f"PCA: UMAP needs more than {2 * NEIGHBOURS} samples"
    import warnings

    start = _principal(values, min(KEPT, *values.shape), seed)[0] if values.shape[1] > KEPT else values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that a seed costs threads
        made = UMAP(n_neighbors=NEIGHBOURS, init="pca", random_state=seed).fit_transform(start)
    return np.asarray(made, np.float32), f"UMAP, {NEIGHBOURS} neighbours"


@dataclass(frozen=True)
class Selection:
    """Samples that were chosen on a map.

    Attributes:
        parts: of each, ``training`` or ``validation``.
        indexes: its place in that part, as ``tl.split`` counts them.
        names: of the samples.
        classes: what each is.
        predictions: what the network takes it for.
    """

    parts: tuple[str, ...]
    indexes: tuple[int, ...]
    names: tuple[str, ...]
    classes: tuple[str, ...]
    predictions: tuple[str, ...]

    def frame(self) -> Any:
        """A row a sample as a pandas DataFrame; a dict of columns where pandas is not installed."""
        columns = ("part", "index", "sample", "class", "prediction")
        values = (self.parts, self.indexes, self.names, self.classes, self.predictions)
        return frame({name: list(column) for name, column in zip(columns, values, strict=True)})

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"{len(self):,} sample{'s' * (len(self) != 1)} chosen on the map; .frame() has them"


@dataclass(eq=False)
class FeatureMap:
    """Samples of the training and validation part as points.

    Attributes:
        coordinates: float32 (N, 2).
        names: of the samples.
        part: of each, 0 for training and 1 for validation: uint8 (N,).
        index: its place in that part, int64 (N,).
        kind: ``classes``, ``labels`` or ``values``.
        groups: names of the classes; of labels, each set of them that a sample has or gets.
        targets: number of each sample's group, int64 (N,); of values, the first value, float64.
        predicted: the same of what the network says.
        sure: probability of what is predicted, float32 (N,); NaN where there is none.
        layer: number of the layer.
        where: the layer in words.
        method: how the points were made, in words.
        colour: ``class``, ``prediction``, ``correct`` or ``part``: what the static picture shows by colour.
        notes: what has to be known to read it, a line each.
        seconds: that it took.
        selected: places of the samples that were chosen.
        learned: whether the head has learned anything; if not, predictions mean nothing.
        look: a sample as it can be looked at, by its place.
    """

    coordinates: np.ndarray = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    part: np.ndarray = field(repr=False)
    index: np.ndarray = field(repr=False)
    kind: str
    groups: tuple[str, ...]
    targets: np.ndarray = field(repr=False)
    predicted: np.ndarray = field(repr=False)
    sure: np.ndarray = field(repr=False)
    layer: int
    where: str
    method: str
    colour: str = "class"
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    learned: bool = True
    look: Callable[[int], Look] = field(repr=False, default=lambda place: Look())
    selected: tuple[int, ...] = field(init=False, default=())

    def __len__(self) -> int:
        return len(self.names)

    @property
    def correct(self) -> np.ndarray:
        """Whether each sample is taken for what it is, bool (N,); of values, whether it is off by less than half."""
        if self.kind != "values":
            found: np.ndarray = self.targets == self.predicted
            return found
        off = np.abs(self.targets - self.predicted)
        return off <= np.median(off)

    def words(self, values: np.ndarray, place: int) -> str:
        """A target or a prediction in words."""
        return f"{values[place]:.4g}" if self.kind == "values" else self.groups[int(values[place])]

    def select(self, places: Iterable[int]) -> Selection:
        """Choose samples by their places; a view of the map follows.

        Raises:
            BadArguments: there is no such place; what was chosen stays.
        """
        with others_code(places, BadArguments):
            wanted = sorted({int(place) for place in places})
        if wanted and not 0 <= wanted[0] <= wanted[-1] < len(self):
            raise BadArguments(f"places of this map are 0 to {len(self) - 1:,}")
        self.selected = tuple(wanted)
        return self.selection

    @property
    def selection(self) -> Selection:
        """What was chosen, by ``select`` or with the mouse."""
        chosen = self.selected
        return Selection(
            tuple(PARTS[self.part[i]] for i in chosen),
            tuple(int(self.index[i]) for i in chosen),
            tuple(self.names[i] for i in chosen),
            tuple(self.words(self.targets, i) for i in chosen),
            tuple(self.words(self.predicted, i) for i in chosen),
        )

    def frame(self) -> Any:
        """A row a sample as a pandas DataFrame; a dict of columns where pandas is not installed."""
        every = range(len(self))
        chosen = np.zeros(len(self), bool)
        chosen[list(self.selected)] = True
        return frame({
            "sample": list(self.names), "part": [PARTS[number] for number in self.part], "index": self.index,
            "x": self.coordinates[:, 0], "y": self.coordinates[:, 1],
            "class": [self.words(self.targets, i) for i in every],
            "prediction": [self.words(self.predicted, i) for i in every],
            "sure": self.sure, "correct": self.correct, "selected": chosen,
        })  # fmt: skip

    @property
    def summary(self) -> str:
        """One line: what is drawn."""
        train = int((self.part == 0).sum())
        return (
            f"{train:,} training and {len(self) - train:,} validation samples by what comes out of {self.where}; "
            f"{self.method}; {self.seconds:.1f} s"
        )

    @property
    def table(self) -> Table:
        """Each group: samples, how many of them the network takes for something else, and for what."""
        rows = []
        for number, name in enumerate(self.groups):
            own = self.targets == number
            if not own.any():
                continue
            wrong = self.predicted[own & ~self.correct].astype(np.int64)
            most = self.groups[int(np.bincount(wrong).argmax())] if len(wrong) else ""
            rows.append((name, int(own.sum()), len(wrong), most))
        if not self.learned:
            return Table(("class", "samples"), [row[:2] for row in rows], align="<>")
        return Table(("class", "samples", "wrong", "most taken for"), rows, align="<>><")

    # ---------------------------------------------------------------- the static picture

    def colours(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """What colour stands for: a number for each sample, and the names of the numbers; no names for values."""
        if self.colour == "part":
            return self.part.astype(np.int64), PARTS
        if self.colour == "correct":
            names = ("off by less than half", "off by more") if self.kind == "values" else ("right", "wrong")
            return (~self.correct).astype(np.int64), names
        values = self.targets if self.colour == "class" else self.predicted
        return (values, ()) if self.kind == "values" else (values, self.groups)

    @property
    def figure(self) -> Figure:
        """The map as a figure of matplotlib."""
        numbers, names = self.colours()
        figure = new_figure(7.2, 4.6)
        ax = figure.subplots()
        ax.set_axis_off()
        ax.set_aspect("equal", adjustable="datalim")
        x, y = self.coordinates.T
        size = float(np.clip(9000 / max(len(self), 1), 4, 26))
        if not names:
            shown = ax.scatter(x, y, c=numbers, s=size, cmap="viridis", linewidths=0)
            bar = figure.colorbar(shown, ax=ax, shrink=0.7)
            bar.ax.tick_params(colors=INK, labelsize=8)
            bar.outline.set_visible(False)
        for number, name in enumerate(names):
            own = numbers == number
            if own.any():
                colour, marker = look_of(number)
                ax.scatter(
                    x[own], y[own], s=size, color=colour, marker=marker, linewidths=0, alpha=0.8,
                    label=short(name, 22) if number < LEGEND else None,
                )  # fmt: skip
        if names:
            made = ax.legend(
                loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8, labelcolor=INK,
                markerscale=1.4, ncols=1 if len(names) <= LEGEND // 2 else 2,
            )  # fmt: skip
            for text in made.get_texts():  # a class may be called $x$
                text.set_parse_math(False)
        return figure

    def _repr_png_(self) -> bytes:
        return as_png(self.figure)

    def __repr__(self) -> str:
        lines = [self.summary, *self.notes, *([repr(self.table)] if self.kind != "values" else [])]
        return "\n".join(lines)

    @property
    def picture(self) -> str:
        """The static picture as HTML."""
        return as_html(self.figure, f"map of {len(self):,} samples, coloured by {self.colour}")

    @property
    def below(self) -> str:
        """What stands below the picture, as HTML."""
        from html import escape

        lines = "<br>".join(escape(line) for line in (self.summary, *self.notes))
        table = "" if self.kind == "values" else self.table._repr_html_()
        more = f"<details><summary>each class</summary>{table}</details>" if table else ""
        return f"<div>{lines}</div>{more}"

    def _repr_html_(self) -> str:
        return f"<div style='max-width:760px'>{self.picture}</div>{self.below}"


def look_of(number: int) -> tuple[str, str]:
    """Colour and marker of a group."""
    return PALETTE[number % len(PALETTE)], MARKERS[number // len(PALETTE) % len(MARKERS)]


def groups_of(kind: str, classes: Sequence[str], *rows: Tensor) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """Targets or answers as numbers of groups, and the groups' names.

    Args:
        kind: ``classes``, ``labels`` or ``values``.
        classes: names of the outputs.
        rows: of classes, class numbers (N,); of labels, 0 and 1, (N, labels); of values, (N, values).
    """
    if kind == "classes":
        return tuple(classes), [row.numpy().astype(np.int64) for row in rows]
    if kind == "values":
        return tuple(classes[:1]), [row[:, 0].double().numpy() for row in rows]
    sets = torch.cat([row > 0 for row in rows]).numpy()
    found, numbers, counts = np.unique(sets, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    names = tuple(", ".join(n for n, on in zip(classes, found[i], strict=True) if on) or "-" for i in order)
    ends = np.cumsum([len(row) for row in rows])[:-1]
    return names, np.split(back[numbers.reshape(-1)], ends)
