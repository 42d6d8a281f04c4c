"""What a network gets right and wrong on the validation samples, and its worst mistakes as a grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from tlnb.display.figures import INK, VERMILION, as_html, new_figure, short
from tlnb.display.pictures import SMALL, figure_html, grid_html, image_uri
from tlnb.display.tables import Table, frame, printable
from tlnb.engine.core.metrics import score_named, shown_beside
from tlnb.engine.core.objectives import Classification, Regression
from tlnb.engine.data.dataset import Data
from tlnb.engine.data.grid import titles
from tlnb.engine.data.samples import PictureSamples, Samples
from tlnb.engine.data.sound.players import Players, players_of
from tlnb.engine.data.text_samples import TextSamples
from tlnb.engine.data.wholes import of_wholes, worst_pieces
from tlnb.engine.results.conformal import Coverage, RiskCoverage
from tlnb.engine.results.page import MATRIX, confusions, matrix_html, side_by_side
from tlnb.engine.results.saliency import heat_maps
from tlnb.engine.results.scores import (
    Calibration,
    confusion_matrix,
    draw_confusion,
    per_class_rows,
    per_sample_loss,
    scores_over,
    value_rows,
    wilson,
)
from tlnb.engine.results.spoken import Words, as_uint8, marked_html, marked_text, under_heat, words_for
from tlnb.engine.results.sureness import Sureness
from tlnb.engine.results.temperature import Temperature
from tlnb.engine.training.records import show_score

if TYPE_CHECKING:
    from matplotlib.figure import Figure


COLUMNS = 4
LONGEST = 18  # letters of a name


@dataclass(frozen=True)
class Mistake:
    """One sample that was taken for something else.

    Attributes:
        index: its number among the validation samples.
        name: of its file, or ``sample 7``.
        true: what it is.
        predicted: what it was taken for.
        loss: of this sample.
        sure: probability of what was predicted; None for measured values.
        words: of a text, each with how much it spoke for what was predicted, 1 for the one that did most; below zero
            for those that spoke against it.
    """

    index: int
    name: str
    true: str
    predicted: str
    loss: float
    sure: float | None
    words: Words = ()

    @property
    def marked(self) -> str:
        """The text with the words marked that spoke most for what was predicted; the name of other samples."""
        if not self.words:
            return self.name
        return marked_text(self.words)


class MistakeGrid:
    """Pictures of mistakes, each beside its heat map.

    Attributes:
        pixels: (N, C, H, W), uint8 in 0..255 or floating point in 0..1.
        maps: (N, H, W) in 0..1.
        method: how the maps were made.
        players: plays the sounds that the pictures are of; None where they are of none.
    """

    def __init__(
        self, mistakes: Sequence[Mistake], pixels: Tensor, maps: Tensor, method: str,
        players: Players | None = None,
    ):  # fmt: skip
        self.mistakes, self.pixels, self.maps, self.method = tuple(mistakes), pixels, maps, method
        self.players = players

    def _repr_html_(self) -> str:
        small = max(self.pixels.shape[-2:]) <= SMALL
        figures = []
        for mistake, pixels, heat in zip(self.mistakes, self.pixels, self.maps, strict=True):
            sure = "" if mistake.sure is None else f" {100 * mistake.sure:.0f} %"
            caption = (
                f'taken for <span class="tlnb-wrong">{escape(mistake.predicted)}</span>{sure}<br>is '
                f'<b>{escape(mistake.true)}</b> <span class="tlnb-quiet">loss {mistake.loss:.2f} · '
                f"{escape(mistake.name)}</span>"
            )
            uri = image_uri(as_uint8(under_heat(pixels, heat)))
            alt = f"{mistake.true} taken for {mistake.predicted}"
            figures.append(figure_html(uri, alt, caption, small=small))
        return grid_html(figures, 210)

    @property
    def figure(self) -> Figure:
        """Two pictures a mistake: the sample, and the same in grey under its heat map."""
        columns = min(COLUMNS, len(self.mistakes))
        rows = -(-len(self.mistakes) // columns)
        figure = new_figure(2.7 * columns, 1.85 * rows)
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for ax in axes:
            ax.set_axis_off()
        for ax, mistake, pixels, heat in zip(axes, self.mistakes, self.pixels, self.maps, strict=False):
            ax.imshow(under_heat(pixels, heat), interpolation="nearest")
            sure = "" if mistake.sure is None else f" ({100 * mistake.sure:.0f} %)"
            words = {"fontsize": 9, "parse_math": False}
            ax.set_title(
                f"taken for {short(mistake.predicted, LONGEST)}{sure}", color=VERMILION, pad=4, **words
            )
            true = f"is {short(mistake.true, LONGEST)} · loss {mistake.loss:.2f}"
            ax.text(0.5, -0.04, true, transform=ax.transAxes, ha="center", va="top", color=INK, **words)
        return figure


def ranked(losses: Tensor, wrong: Tensor, most: int) -> list[int]:
    """Numbers of the samples that are wrong, the largest loss first."""
    order = torch.argsort(losses, descending=True, stable=True)
    return [int(i) for i in order if wrong[i]][:most]


HEADERS = ("class", "precision", "recall", "F1", "samples")
VALUE_HEADERS = ("value", "R²", "mean error", "root mean square")


@dataclass(frozen=True)
class Results:
    """The validation samples, judged.

    Attributes:
        name: of the data.
        classes: names of the outputs.
        kind: ``classes``, ``labels`` or ``values``.
        metric: name of the figure.
        figure_value: the figure.
        loss: mean loss.
        answers: probabilities (N, classes) or values (N, values), float32.
        targets: class numbers (N,), labels (N, labels) or values (N, values).
        losses: of each sample, (N,).
        rows: a row a class: name, precision, recall, F1, samples; or a row a value: name, R², mean error,
            root mean square error.
        mistakes: the worst, the largest loss first.
        pictures: the same as pictures; None where samples are none.
        sureness: temperature, coverage and size of sets, risk and coverage; None where that was not asked.
        note: what has to be known to read the figures; empty for nothing.
    """

    name: str
    classes: tuple[str, ...]
    kind: str
    metric: str
    figure_value: float
    loss: float
    answers: np.ndarray = field(repr=False)
    targets: np.ndarray = field(repr=False)
    losses: np.ndarray = field(repr=False)
    rows: tuple[tuple[Any, ...], ...] = field(repr=False)
    mistakes: tuple[Mistake, ...] = field(repr=False)
    pictures: MistakeGrid | None = field(repr=False, default=None)
    sureness: Sureness | None = field(repr=False, default=None)
    note: str = ""

    # ---------------------------------------------------------------- figures

    @property
    def accuracy(self) -> float:
        """Share of the samples that are right; the task's own figure where a sample has not one class."""
        return float((self.predicted == self.targets).mean()) if self.kind == "classes" else self.figure_value

    @property
    def interval(self) -> tuple[float, float] | None:
        """Where the accuracy lies with 95 % confidence (Wilson 1927); None where it is no share."""
        if self.kind != "classes":
            return None
        return wilson(int((self.predicted == self.targets).sum()), len(self.targets))

    @property
    def predicted(self) -> np.ndarray:
        """Class numbers (N,), labels (N, labels) of 0 and 1, or values (N, values)."""
        if self.kind == "classes":
            return self.answers.argmax(1)
        return (self.answers >= 0.5).astype(np.int64) if self.kind == "labels" else self.answers

    @property
    def confusion(self) -> np.ndarray:
        """How often class i was taken for class j; for labels and values there is none: (0, 0)."""
        if self.kind != "classes":
            return np.zeros((0, 0), dtype=np.int64)
        return confusion_matrix(self.targets, self.predicted, len(self.classes))

    @property
    def calibration(self) -> Calibration | None:
        """How sure against how often right; None where there is not one class a sample."""
        if self.kind != "classes":
            return None
        return Calibration.of(self.answers.max(1), self.predicted == self.targets)

    @property
    def temperature(self) -> Temperature | None:
        """The number that makes probabilities mean what they say; None where it was not asked."""
        return None if self.sureness is None else self.sureness.temperature

    @property
    def coverage(self) -> Coverage | None:
        """How sets of classes do; None where that is not known."""
        return None if self.sureness is None else self.sureness.coverage

    @property
    def risk(self) -> RiskCoverage | None:
        """What is wrong among the surest; None where that is not known."""
        return None if self.sureness is None else self.sureness.risk

    # ---------------------------------------------------------------- pictures

    def plot(self, what: str = "confusion") -> Figure | None:
        """A picture: ``confusion``, ``calibration``, ``risk`` or ``mistakes``; None where there is none."""
        if what == "confusion":
            return draw_confusion(self.confusion, self.classes) if self.kind == "classes" else None
        if what == "calibration":
            return self.calibration.figure if self.calibration else None
        if what == "risk":
            return self.risk.figure if self.risk else None
        if what == "mistakes":
            return self.pictures.figure if self.pictures else None
        raise ValueError(f"plot takes confusion, calibration, risk or mistakes, not {what!r}")

    # ---------------------------------------------------------------- data

    @property
    def table(self) -> Table:
        """A line a class or value."""
        if self.kind == "values":
            return Table(VALUE_HEADERS, [(name, *(f"{x:.4g}" for x in row)) for name, *row in self.rows])
        rows = [(name, *(f"{x:.3f}" for x in (p, r, f)), count) for name, p, r, f, count in self.rows]
        return Table(HEADERS, rows)

    def frame(self) -> Any:
        """A row a sample as a pandas DataFrame; a dict of columns where pandas is not installed."""
        columns: dict[str, Any] = {"loss": self.losses}
        if self.kind == "classes":
            names = np.array(self.classes)
            columns |= {"true": names[self.targets], "predicted": names[self.predicted]}
            columns["sure"] = self.answers.max(1)
        columns |= {f"answer {name}": self.answers[:, i] for i, name in enumerate(self.classes)}
        return frame(columns)

    # ---------------------------------------------------------------- shown

    @property
    def summary(self) -> str:
        """One or two lines."""
        count = len(self.targets)
        if self.kind != "classes":
            return (
                f"{self.name}: {self.metric} {self.figure_value:.4f}, loss {self.loss:.4f}, {count:,} samples"
            )
        low, high = self.interval or (0.0, 1.0)
        calibration = self.calibration
        assert calibration is not None
        first = (
            ""
            if self.metric == "accuracy"
            else f"{self.metric} {show_score(self.figure_value, self.metric)}, "
        )
        return (
            f"{self.name}: {first}accuracy {100 * self.accuracy:.1f} % (95 % sure: {100 * low:.1f} to "
            f"{100 * high:.1f} %), {int((self.predicted != self.targets).sum())} wrong of {count:,}; "
            f"{self._balanced()}loss {self.loss:.4f}, calibration error {100 * calibration.error:.1f} %"
        )

    def _balanced(self) -> str:
        """The mean over the classes, where they are very uneven."""
        if self.metric == "balanced" or shown_beside(self.targets, self.kind) is None:
            return ""
        return f"balanced {100 * score_named('balanced', 'classes')(self.targets, self.answers):.1f} %, "

    def _sure_lines(self) -> tuple[str, ...]:
        return () if self.sureness is None else self.sureness.lines

    @property
    def mistake_table(self) -> Table:
        """A line a mistake."""
        rows = [
            (
                m.marked,
                m.true,
                m.predicted,
                "-" if m.sure is None else f"{100 * m.sure:.0f} %",
                f"{m.loss:.2f}",
            )
            for m in self.mistakes
        ]
        texts = any(m.words for m in self.mistakes)
        title = "worst mistakes" + (
            ", marked the words that spoke for what they were taken for" if texts else ""
        )
        return Table(("sample", "is", "taken for", "sure", "loss"), rows, title, align="<<<>>")

    def _mistakes_html(self) -> str:
        """Texts with their words coloured by how much they spoke for what was predicted."""
        rows = []
        for m in self.mistakes:
            words = marked_html(m.words)
            sure = "" if m.sure is None else f" ({100 * m.sure:.0f} %)"
            taken = f"is {escape(m.true)}, taken for {escape(m.predicted)}{sure}, loss {m.loss:.2f}"
            rows.append(f'<li>{words}<br><span style="opacity:0.7">{taken}</span></li>')
        head = "worst mistakes; the redder a word, the more it spoke for what the text was taken for"
        return f"<p>{head}</p><ul>{''.join(rows)}</ul>"

    def _matrix_html(self) -> str:
        if self.kind != "classes":
            return ""
        if len(self.classes) <= MATRIX:
            return matrix_html(self.confusion, self.classes)
        return as_html(draw_confusion(self.confusion, self.classes), f"confusion of {self.name}", 85)

    def _how_sure_html(self) -> Iterator[str]:
        """Pictures apart, so that a narrow page has them below each other and none is small print."""
        for what, words in (("calibration", "calibration"), ("risk", "risk and coverage")):
            figure = self.plot(what)
            if figure is not None:
                yield as_html(figure, f"{words} of {self.name}", 85)

    def __repr__(self) -> str:
        first = [self.note] if self.note else []
        parts = [*first, self.summary, *self._sure_lines(), repr(self.table)]
        return "\n".join([*parts, repr(self.mistake_table)] if self.mistakes else parts)

    def _repr_html_(self) -> str:
        lines = "<br>".join(map(escape, (self.summary, *self._sure_lines())))
        parts = [*([f"<p>{escape(self.note)}</p>"] if self.note else []), f"<p>{lines}</p>"]
        if self.pictures is not None:
            parts.append(
                "<p>worst mistakes: the picture, and beside it what in it spoke for the wrong answer "
                f"({escape(self.pictures.method)})</p>"
            )
            parts.append(self.pictures._repr_html_())
            parts.append(self.pictures.players.html if self.pictures.players else "")
        elif any(m.words for m in self.mistakes):
            parts.append(self._mistakes_html())
        elif self.mistakes:
            parts.append(self.mistake_table._repr_html_())
        told = confusions(self.confusion, self.classes) if self.kind == "classes" else ""
        parts += [f"<p>{escape(told)}</p>"] if told else []
        parts.append(side_by_side(self._matrix_html(), *self._how_sure_html()))
        parts.append(f"<details><summary>each class</summary>{self.table._repr_html_()}</details>")
        if self.coverage is not None and self.sureness is not None:
            sets = self.sureness.table._repr_html_()
            parts.append(f"<details><summary>sets of each class</summary>{sets}</details>")
        return f"<div>{''.join(parts)}</div>"


def gather(
    model: nn.Module,
    data: Data,
    samples: Samples,
    device: torch.device,
    *,
    worst: int = 8,
    scores: Tensor | None = None,
    sure: float | None = None,
    temperature: Temperature | None = None,
) -> Results:
    """Judge each of the validation samples; of pieces, the wholes that they belong to.

    Args:
        model: gives scores (B, outputs).
        data: with names and task.
        samples: its validation samples, fitted to the network.
        device: where the model is.
        worst: how many mistakes are kept.
        scores: of the samples, (N, outputs) on the CPU, where they are known; None to run the network over them.
        sure: share of sure answers that should hold; None to leave out how sure the network is.
        temperature: that fits answers out of fold; None to fit these samples.
    """
    task, targets = data.task, samples.targets
    scores = scores_over(model, samples, device) if scores is None else scores
    shown = torch.arange(len(targets))  # the sample that is shown for each answer
    if samples.wholes is not None:
        shown = worst_pieces(per_sample_loss(task, scores, targets), samples.wholes)
        scores, targets = of_wholes(task, scores, targets, samples.wholes)
    losses = per_sample_loss(task, scores, targets)
    answers = task.answers(scores)
    meter = task.meter(torch.device("cpu"))
    meter.update(scores, targets)
    classes = tuple(map(printable, data.classes))
    if isinstance(task, Regression):
        kind, own = "values", task.answers(targets)
        rows = value_rows(classes, own, answers)
        wrong = torch.ones(len(targets), dtype=torch.bool)
    else:
        kind, own = ("classes" if isinstance(task, Classification) else "labels"), targets
        taken = answers.argmax(1) if kind == "classes" else (answers >= 0.5).to(targets.dtype)
        rows = per_class_rows(classes, targets, taken)
        wrong = taken != targets if kind == "classes" else (taken != targets).any(1)
    chosen = ranked(losses, wrong, worst)
    mistakes = _mistakes(data, targets, chosen, scores, answers, losses, kind)
    if kind == "classes" and isinstance(samples, TextSamples) and chosen:
        mistakes = _with_words(model, samples, mistakes, answers, device)
    return Results(
        printable(data.name), classes, kind, task.metric, meter.value(), task.loss(scores, targets).item(),
        answers.numpy(), own.numpy(), losses.numpy(), rows, mistakes,
        _pictures(model, samples, shown[chosen], mistakes, scores[chosen], device) if kind == "classes" else None,
        None if sure is None else Sureness.of(task, classes, scores, targets, sure, temperature),
    )  # fmt: skip


def _mistakes(
    data: Data,
    targets: Tensor,
    chosen: list[int],
    scores: Tensor,
    answers: Tensor,
    losses: Tensor,
    kind: str,
) -> tuple[Mistake, ...]:
    """The chosen samples in words."""
    true = titles(data, targets[chosen]) if chosen else []
    if kind == "classes":
        predicted = [data.classes[int(i)] for i in answers[chosen].argmax(1)] if chosen else []
    else:
        predicted = titles(data, (answers if kind == "labels" else scores)[chosen]) if chosen else []
    return tuple(
        Mistake(
            index, printable(data.valid.name(index)), printable(t), printable(p), float(losses[index]),
            float(answers[index].max()) if kind == "classes" else None,
        )
        for index, t, p in zip(chosen, true, predicted, strict=True)
    )  # fmt: skip


def _with_words(
    model: nn.Module, samples: TextSamples, mistakes: tuple[Mistake, ...], answers: Tensor, device: torch.device
) -> tuple[Mistake, ...]:  # fmt: skip
    """The mistakes with the words that spoke for them."""
    indices = torch.tensor([mistake.index for mistake in mistakes])
    texts = [samples.texts[int(i)] for i in indices]
    found = words_for(model, samples.preprocess, texts, answers[indices].argmax(1), device)
    return tuple(replace(mistake, words=words) for mistake, words in zip(mistakes, found, strict=True))


def _pictures(
    model: nn.Module, samples: Samples, indices: Tensor, mistakes: tuple[Mistake, ...], scores: Tensor,
    device: torch.device,
) -> MistakeGrid | None:  # fmt: skip
    if not len(indices) or not isinstance(samples, PictureSamples):
        return None
    maps, method = heat_maps(model, samples.batch(indices).to(device), scores.argmax(1).to(device))
    players = players_of(samples, indices, [m.name for m in mistakes])
    return MistakeGrid(mistakes, samples.pixels(indices), maps, method, players)
