"""A map of the session's samples by what comes out of a layer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from weakref import ref

import numpy as np
import torch
from torch import Tensor

from tlnb.display.tables import printable
from tlnb.engine.core.arguments import whole_number
from tlnb.engine.core.objectives import Objective, kind_of
from tlnb.engine.data.augmented import AugmentedSamples
from tlnb.engine.data.look import Look, look_at
from tlnb.engine.data.samples import Samples, SubsetSamples, choose
from tlnb.engine.data.split import repeated_to_balance
from tlnb.engine.data.wholes import first_pieces, mean_of_wholes, of_wholes, one_of_each, pieces_of
from tlnb.engine.features.at_layer import features_at
from tlnb.engine.network.address import select
from tlnb.engine.network.layers import LayerMap
from tlnb.engine.results.feature_map import COLOURS, METHODS, PARTS, FeatureMap, groups_of, in_two
from tlnb.errors import BadArguments, NotReady
from tlnb.session.recorder import head_learned_nothing
from tlnb.session.tools import Tools
from tlnb.session.view import SessionView

MOST = 10_000  # samples of a map, where nothing else is said
GONE = "the data of this map is not named any more; draw the map again"


def draw_map(view: SessionView, tools: Tools, layer: object, by: str, colour: str, most: int) -> FeatureMap:
    """See ``Session.map``. The test part is not read."""
    whole_number(most, "--samples", 2)
    for word, words, name in ((by, METHODS, "--by"), (colour, COLOURS, "--colour")):
        if word not in words:
            raise BadArguments(f"{name} takes one of {', '.join(words)}, not {printable(str(word))!r}")
    layers, data = view.need_ready(), view.need_data()
    wanted = _layer(layer, layers)
    began = time.perf_counter()
    parts = view.need_samples()
    plain = tuple(map(_plain, parts))
    # Of a class that is evened out, samples stand there more than once; the map has each once.
    again = repeated_to_balance(data.train.targets) if data.balance == "samples" else None
    shares = _shares(tuple(map(_count, plain)), most)
    shown = [
        _Part(samples, again if number == 0 else None, share)
        for number, (samples, share) in enumerate(zip(plain, shares, strict=True))
    ]
    with tools.walk("drawing the map") as on_progress:
        found = features_at(
            view.need_model().model, layers, wanted, (shown[0].samples, shown[1].samples), view.planner, view.device,
            on_progress,
        )  # fmt: skip
        vectors, scores, targets = [], [], []
        for part, rows, given in zip(shown, found.vectors, found.scores, strict=True):
            own, answers, right = part.wholes(data.task, rows, given)
            vectors.append(own)
            scores.append(answers)
            targets.append(right)
        on_progress(0, 0)
        points, method = in_two(torch.cat(vectors), by)
    kind = kind_of(data.task)
    answers, right = data.task.answers(torch.cat(scores)), torch.cat(targets)
    if kind == "classes":
        said, sure = answers.argmax(1), answers.max(1).values
    elif kind == "labels":
        said, sure = (answers >= 0.5).float(), torch.full((len(answers),), float("nan"))
    else:
        said, right = answers, data.task.answers(right)
        sure = torch.full((len(answers),), float("nan"))
    groups, (true, taken) = groups_of(kind, tuple(map(printable, data.classes)), right, said)
    sources = (data.train, data.valid)
    names = [printable(sources[n].name(int(i))) for n, part in enumerate(shown) for i in part.index]
    return FeatureMap(
        points, tuple(names), np.repeat(np.array([0, 1], np.uint8), [len(part.index) for part in shown]),
        np.concatenate([part.index.numpy() for part in shown]), kind, groups, true, taken, sure.numpy(),
        found.layer, _where(found.layer, layers), method, colour, tuple(_notes(view, wanted, found.layer, shown, by)),
        time.perf_counter() - began, _learned(view),
        _looker(parts, torch.cat([part.row for part in shown]), len(shown[0].row)),
    )  # fmt: skip


def _layer(layer: object, layers: LayerMap) -> int:
    """The layer that is meant; None for the last one before the head."""
    if layer is None:
        return max(layers.body, default=len(layers) - 1)
    found = select(layer, layers)
    if len(found) != 1:
        raise BadArguments(
            f"a map is of one layer, and {printable(str(layer))!r} names {len(found)}; take one of them"
        )
    return found[0]


def _plain(samples: Samples) -> Samples:
    """The samples without random changes."""
    return (samples.plain if isinstance(samples, AugmentedSamples) else samples).view(0, 0)


def _count(samples: Samples) -> int:
    return len(one_of_each(samples))


def _shares(counts: tuple[int, ...], most: int) -> list[int]:
    """How many of each part are drawn."""
    total = sum(counts)
    if total <= most:
        return list(counts)
    valid = max(1, round(most * counts[1] / total))
    return [max(1, most - valid), valid]


class _Part:
    """What is drawn of a part.

    Args:
        samples: all of it, without random changes.
        again: for each of them its place in the data, where some stand there more than once; None where none does.
        most: how many are drawn.

    Attributes:
        count: samples of the part.
        index: place in the part of each sample that is drawn, int64 (n,).
        row: its place among ``samples``; of pieces, that of its first.
        samples: those that go through the network.
    """

    def __init__(self, samples: Samples, again: Tensor | None, most: int):
        every = torch.arange(len(samples)) if samples.wholes is None else first_pieces(samples.wholes)
        if again is not None and samples.wholes is None:
            _, every = _first_of(again)
        self.count = len(every)
        if len(every) > most:
            kept = choose(SubsetSamples(samples, every), most, seed=0)
            assert isinstance(kept, SubsetSamples)
            every = every[kept.rows]
        self.row = every
        self.pieces: Tensor | None = None
        if samples.wholes is not None:
            numbers = samples.wholes.unique(return_inverse=True)[1]
            rows, self.pieces = pieces_of(numbers, numbers[self.row])
            self.samples: Samples = SubsetSamples(samples, rows)
            self.index = samples.wholes[self.row]
        else:
            whole = len(self.row) == len(samples)
            self.samples = samples if whole else SubsetSamples(samples, self.row)
            self.index = self.row if again is None else again[self.row]

    def wholes(self, task: Objective, vectors: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors, scores and targets of what is drawn: those of pieces together."""
        targets = self.samples.targets
        if self.pieces is None:
            return vectors, scores, targets
        joined, right = of_wholes(task, scores, targets, self.pieces)
        return mean_of_wholes(vectors, self.pieces), joined, right


def _first_of(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Each number once, and the place where it stands first."""
    found, first = np.unique(numbers.numpy(), return_index=True)
    return torch.from_numpy(found), torch.from_numpy(first)


def _where(layer: int, layers: LayerMap) -> str:
    before = " (what enters the head)" if layers.head and layer == layers.head[0] - 1 else ""
    return f"layer {layer}, {printable(layers[layer].name)}{before}"


def _notes(view: SessionView, wanted: int, layer: int, shown: list[_Part], by: str) -> list[str]:
    notes = []
    if wanted != layer:
        notes.append(
            f"behind layer {wanted} the network cannot be cut; layer {layer} is the nearest one before it"
        )
    for part, name in zip(shown, PARTS, strict=True):
        if len(part.row) < part.count:
            notes.append(
                f"{len(part.row):,} of {part.count:,} {name} samples are drawn; --samples says how many"
            )
    data = view.need_data()
    if len(data.classes) > 1 and kind_of(data.task) == "values":
        notes.append(f"colours are of the first value, {printable(data.classes[0])}")
    if not _learned(view):
        notes.append("the head is new and has learned nothing yet: predictions mean nothing before %tl_train")
    if by == "pca":
        notes.append('--by umap keeps neighbours together (pip install "tlnb[map]")')
    return notes


def _learned(view: SessionView) -> bool:
    return not (head_learned_nothing(view.state) and view.need_model().head)


def _looker(parts: Iterable[Samples], rows: Tensor, first: int) -> Callable[[int], Look]:
    """Looks at a sample by its place on the map, as long as the session holds the data."""
    held = tuple(map(ref, parts))

    def look(place: int) -> Look:
        samples = held[int(place >= first)]()
        if samples is None:
            raise NotReady(GONE)
        return look_at(_plain(samples), int(rows[place]))

    return look
