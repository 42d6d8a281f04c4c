"""Predictions for files, folders, arrays and data sets, by the network with BatchNorm folded in."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from tlnb.display.pictures import bars_html, figure_html, grid_html, image_uri, uint8_of
from tlnb.display.tables import Table, frame, printable
from tlnb.engine.core.arguments import others_code, path_of
from tlnb.engine.core.modules import duplicate, set_training
from tlnb.engine.core.objectives import Classification, Task, kind_of, scores_of
from tlnb.engine.core.tree import Batch, Tree, as_batch, call
from tlnb.engine.data.augmented import augmented
from tlnb.engine.data.dataset import Data
from tlnb.engine.data.images.check import Problem, readable
from tlnb.engine.data.images.decode import decode_bytes, decode_file, decode_image
from tlnb.engine.data.images.headers import SUFFIXES, BadPicture
from tlnb.engine.data.images.scale import PLAIN, PixelScale
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.data.readers import as_image_tensor, fit_tensor
from tlnb.engine.data.samples import ImageSamples
from tlnb.engine.data.sound.front_end import RawFrames
from tlnb.engine.data.sources.text import as_texts, read_text
from tlnb.engine.data.texts import shown
from tlnb.engine.data.tokens import AnyPreprocess, Text, TextPreprocess
from tlnb.engine.data.wholes import mean_of_wholes, of_wholes
from tlnb.engine.network.forms import is_familiar
from tlnb.engine.results.hearing import Ear, is_sound, of_sound_files, of_waves
from tlnb.engine.results.judging import watched
from tlnb.engine.results.novelty import FALSE_ALARMS
from tlnb.engine.results.saliency import heat_maps
from tlnb.engine.results.spoken import Words, as_uint8, marked_html, under_heat, words_for
from tlnb.engine.results.sure import NONE, Judged, Sure
from tlnb.engine.results.sureness import SURE
from tlnb.errors import DataError

BATCH = 32
SHOWN = 20
_LONGEST_PATH, _LONGEST_TITLE = 1024, 60  # letters
WHY = 8  # pictures, up to which it is shown what spoke for the answer: that costs a step backward
LIKELY = 3  # classes that are shown of each sample
UNSURE = 0.6  # a class that is less likely is shown as doubtful
SET = 8  # classes that are shown of a set
VIEW_AUGMENT = "light"


@dataclass(frozen=True)
class Predictions:
    """What the network says of some samples.

    Attributes:
        names: of the samples.
        classes: names of the outputs.
        answers: probabilities (N, classes) or values (N, values), float32.
        kind: ``classes``, ``labels`` or ``values``.
        problems: files that could not be read, with the reason.
        seconds: decoding included.
        network_seconds: in the network alone.
        views: how many views were averaged; 1 for the pictures as they are.
        judged: what can be relied on; None where that was not asked.
        pictures: the first of them as the network sees them, as data addresses; empty where samples are none.
        spoken: of few pictures, each beside what in it spoke for its answer, as data addresses.
        words: of the first texts, each word with how much it spoke for the answer: 1 for the one that did most, below
            zero for those that spoke against it.
        how: how it was found what spoke.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    answers: np.ndarray = field(repr=False)
    kind: str
    problems: tuple[Problem, ...] = ()
    seconds: float = 0.0
    network_seconds: float = 0.0
    views: int = 1
    judged: Judged | None = None
    pictures: tuple[str, ...] = field(default=(), repr=False)
    spoken: tuple[str, ...] = field(default=(), repr=False)
    words: tuple[Words, ...] = field(default=(), repr=False)
    how: str = ""

    @property
    def sure(self) -> float | None:
        """Share of the answers that should hold; None where that was not asked."""
        return None if self.judged is None else self.judged.sure

    @property
    def sets(self) -> tuple[tuple[str, ...], ...] | None:
        """The classes that each sample may be of, the likeliest first; None where that was not asked.

        An empty set says that the network is less sure of every class than it usually is of the right one.
        """
        if self.judged is None or self.judged.member is None:
            return None
        order = np.argsort(-self.answers, 1, kind="stable")
        return tuple(
            tuple(self.classes[i] for i in row if member[i])
            for row, member in zip(order, self.judged.member, strict=True)
        )

    @property
    def none(self) -> np.ndarray | None:
        """Which samples are like nothing that was learned, bool (N,); None where that is not known."""
        return None if self.judged is None else self.judged.none

    @property
    def strangeness(self) -> np.ndarray | None:
        """How unlike all that was learned each sample is, (N,), about 0 for an ordinary one; None as for ``none``."""
        return None if self.judged is None else self.judged.strangeness

    @property
    def intervals(self) -> np.ndarray | None:
        """From and to of each value, (N, values, 2); None for classes, or where that was not asked."""
        return None if self.judged is None else self.judged.intervals

    @property
    def labels(self) -> tuple[str, ...]:
        """The answer for each sample in words: the class, the labels joined by commas, or the values.

        A sample that is like nothing that was learned is ``none of these``, where sure answers were asked for.
        """
        if self.kind == "classes":
            none = np.zeros(len(self.answers), bool) if self.none is None else self.none
            return tuple(
                NONE if strange else self.classes[i]
                for i, strange in zip(self.answers.argmax(1), none, strict=True)
            )
        if self.kind == "labels":
            return tuple(", ".join(n for n, p in zip(self.classes, row, strict=True) if p >= 0.5) or "-"
                         for row in self.answers)  # fmt: skip
        return tuple(", ".join(f"{value:.4g}" for value in row) for row in self.answers)

    @property
    def table(self) -> Table:
        """A line a sample, with the likeliest classes; with the set or interval where that was asked."""
        shown = range(min(len(self.names), SHOWN))
        columns: list[tuple[str, Sequence[str]]] = [("sample", self.names), ("is", self.labels)]
        if self.judged is not None:
            columns.append((f"{100 * self.judged.sure:g} % sure", [self._held(i) for i in shown]))
        columns.append(("how sure", [self._likely(i) for i in shown]))
        rows = [tuple(values[i] for _, values in columns) for i in shown]
        return Table(tuple(name for name, _ in columns), rows, align="<" * len(columns))

    def _held(self, place: int) -> str:
        """The set or the interval of a sample."""
        if self.intervals is not None:
            return ", ".join(f"{low:.4g} to {high:.4g}" for low, high in self.intervals[place])
        assert self.sets is not None
        found = self.sets[place]
        left = f" and {len(found) - SET} more" if len(found) > SET else ""
        return f"{', '.join(found[:SET])}{left}" if found else "no class"

    def _likely(self, place: int) -> str:
        if self.kind == "values":
            return "-"
        row = self.probabilities[place]
        order = np.argsort(-row, kind="stable")[:LIKELY]
        return ", ".join(f"{self.classes[i]} {100 * row[i]:.1f} %" for i in order)

    @property
    def probabilities(self) -> np.ndarray:
        """The answers, at the temperature that fits the validation samples where sure answers were asked for."""
        if self.judged is None or self.judged.probabilities is None:
            return self.answers
        return self.judged.probabilities

    @property
    def summary(self) -> str:
        """One line: how many, how fast."""
        count = len(self.names)
        each = 1000 * self.seconds / max(count, 1)
        inner = 1000 * self.network_seconds / max(count, 1)
        views = f", the mean of {self.views} views" if self.views > 1 else ""
        how = ", batch norm folded in" if self.judged is None else ""
        return (
            f"{count:,} sample{'s' * (count != 1)} in {self.seconds:.2f} s: {each:.1f} ms each, "
            f"{inner:.1f} ms of it in the network{how}{views}"
        )

    @property
    def certainty(self) -> str:
        """One line: how the sets did, and how many samples are none of the classes; empty where that was not asked."""
        if self.judged is None:
            return ""
        share = f"{100 * self.judged.sure:g} %"
        if self.sets is None:
            return f"intervals that hold {share} of values like those of the validation part"
        sizes = [len(found) for found in self.sets]
        line = f"sets that hold the right class of {share} of samples like those of the validation part"
        line += f": {sum(sizes) / max(len(sizes), 1):.2f} classes each"
        if self.none is None or self.judged.note:
            return line
        return (
            f"{line}; {int(self.none.sum()):,} {NONE}, as {100 * self.judged.false_alarms:g} % of samples of the "
            "classes would be too (--false-alarms)"
        )

    def frame(self) -> Any:
        """A row a sample as a pandas DataFrame; a dict of columns where pandas is not installed."""
        columns: dict[str, Any] = {"sample": list(self.names), "answer": list(self.labels)}
        columns |= {name: self.answers[:, i] for i, name in enumerate(self.classes)}
        if self.sets is not None:
            columns["set"] = [", ".join(found) for found in self.sets]
        if self.none is not None:
            columns[NONE] = self.none
        if self.intervals is not None:
            for i, name in enumerate(self.classes):
                columns[f"{name} from"], columns[f"{name} to"] = self.intervals[:, i].T
        return frame(columns)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def _notes(self) -> list[str]:
        left = len(self.names) - SHOWN
        notes = [f"… and {left:,} more; .frame() has them all"] if left > 0 else []
        notes += [self.certainty] if self.judged is not None else []
        notes += [self.judged.note] if self.judged is not None and self.judged.note else []
        if self.problems:
            notes.append(f"{len(self.problems)} could not be read:")
            notes += [f"  {path}: {reason}" for path, reason in self.problems[:SHOWN]]
        return notes

    def __repr__(self) -> str:
        return "\n".join([self.summary, *([repr(self.table)] if self.names else []), *self._notes])

    def _repr_html_(self) -> str:
        notes = "<br>".join(escape(note) for note in self._notes)
        small = f'<div class="tlnb-quiet">{escape(self.summary)}</div>'
        table = self.table._repr_html_()
        if (self.pictures or self.words) and self.kind != "values":
            table = f"<details><summary>as a table</summary>{table}</details>" if len(self) > 1 else ""
            shown = self.spoken or self.pictures
            figures = [self._figure(place, uri) for place, uri in enumerate(shown)]
            figures = figures or [self._text(place) for place in range(len(self.words))]
            table = (
                grid_html(figures, 420 if len(self) == 1 else 300 if self.spoken or self.words else 200)
                + table
            )
            notes = "<br>".join(filter(None, (notes, escape(self._how))))
        return f"{table}<p>{notes}</p>{small}"

    def _figure(self, place: int, uri: str) -> str:
        """A sample: its picture, what it is, and how sure that is."""
        label, caption = self.labels[place], self._caption(place)
        small = self.pictures[place].startswith("data:image/png")
        return figure_html(uri, f"{self.names[place]}: {label}", caption, small=small)

    def _text(self, place: int) -> str:
        """A text: its words, what it is, and how sure that is."""
        return (
            f"<figure><div>{marked_html(self.words[place])}</div>{self._caption(place, name=False)}</figure>"
        )

    @property
    def _how(self) -> str:
        """How to read what spoke for the answers."""
        if self.words:
            return "the redder a word, the more it spoke for the answer"
        return f"beside each picture, what in it spoke for the answer ({self.how})" if self.spoken else ""

    def _caption(self, place: int, *, name: bool = True) -> str:
        row, label = self.probabilities[place], self.labels[place]
        order = np.argsort(-row, kind="stable")[:LIKELY]
        weak = self.kind == "classes" and bool(row[order[0]] < UNSURE)
        bars = bars_html([(self.classes[i], float(row[i])) for i in order], weak=weak)
        size = "font-size:20px;font-weight:600" if len(self) == 1 else "font-size:15px;font-weight:600"
        doubt = ' <span class="tlnb-quiet">not sure</span>' if weak else ""
        file = self.names[place].replace("\\", "/").rpartition("/")[2] if name else ""
        held = f"{100 * self.judged.sure:g} % sure: {self._held(place)}" if self.judged is not None else ""
        quiet = "<br>".join(escape(line) for line in (held, file) if line)
        return f'<div style="{size}">{escape(label)}{doubt}</div>{bars}<div class="tlnb-quiet">{quiet}</div>'


@dataclass(frozen=True)
class OwnInput:
    """How a data set of the user's makes network input of a picture.

    Attributes:
        like: a batch that it made, (B, ...).
        transform: makes input of a picture; None where the data set does not say how.
    """

    like: Tensor
    transform: Callable[[Any], Any] | None

    def of(self, picture: Any) -> Tensor:
        """A batch of one, as the data set would make it.

        Raises:
            DataError: it does not say how, or makes something else of this picture.
        """
        shape = tuple(self.like.shape[1:])
        if self.transform is None:
            raise DataError(
                f"the data set prepares its samples by itself; give them as it does: tensors of the shape {shape}"
            )
        made = torch.as_tensor(self.transform(picture))
        if made.shape != self.like.shape[1:]:
            raise DataError(
                f"the data set's transform makes {tuple(made.shape)} of this picture, not {shape}"
            )
        return made.to(self.like.dtype)[None]


@dataclass(frozen=True)
class Known:
    """What the head knows that a network came with, where no data is named.

    Attributes:
        classes: names of the outputs.
    """

    classes: tuple[str, ...]
    task: Task = field(default_factory=Classification)
    scale: PixelScale = PLAIN
    train: None = None
    sound: None = None


class Predictor:
    """A copy of a network for inference.

    Args:
        model: gives scores (B, outputs); is not touched.
        data: with names and task; or what the head knows by itself.
        preprocess: of its pictures, or of its texts.
        device: where it runs.
        own: how the data set makes input of pictures by itself; None where tlnb does.
        sure: what answers are judged by; None where they are not. The network runs as it is then, and what is
            needed is kept in ``seen``.
    """

    def __init__(
        self, model: nn.Module, data: Data | Known, preprocess: AnyPreprocess | RawFrames, device: torch.device,
        own: OwnInput | None = None, sure: Sure | None = None,
    ):  # fmt: skip
        self.data, self.preprocess, self.device, self.own = data, preprocess, device, own
        self.ear = None if data.sound is None else Ear(data.sound, preprocess)
        self.sure = sure
        self.seen: list[tuple[Tensor, Tensor]] = []
        self._familiar = is_familiar(model)
        # Bounds are of the network as it is: what rounding does to a folded one would move who stands at a bound.
        self.network = folded(model) if sure is None else as_it_is(model)
        self.network.to(device)
        self.seconds = 0.0
        self.shown: list[str] = []  # the first pictures, as data addresses
        self.model = model
        self.seen_pictures: list[Tensor] = []  # the first ones, (C, H, W) each
        self.seen_texts: list[Text] = []

    @property
    def pictured(self) -> Preprocess:
        """What its pictures must look like."""
        assert isinstance(self.preprocess, Preprocess)
        return self.preprocess

    def show(self, pixels: Tensor) -> None:
        """Show these pictures, (B, C, H, W), one a sample, as far as samples are shown."""
        for picture in pixels[: SHOWN - len(self.shown)]:
            self.shown.append(image_uri(uint8_of(picture)))
        self.seen_pictures += pixels[: WHY + 1 - len(self.seen_pictures)]

    def spoken(self, answers: Tensor) -> dict[str, Any]:
        """What spoke for the likeliest class of each sample, where these are few, as fields of the answer."""
        if not isinstance(self.data.task, Classification) or not len(answers):
            return {}
        taken = answers.argmax(1)
        if self.seen_texts and isinstance(self.preprocess, TextPreprocess):
            if not any(isinstance(module, nn.Embedding) for module in self.model.modules()):
                return {}
            texts = self.seen_texts[:SHOWN]
            words = words_for(self.model, self.preprocess, texts, taken[: len(texts)], self.device)
            return {"words": tuple(words)}
        if len(self.seen_pictures) != len(answers) or len(answers) > WHY:
            return {}
        pixels = torch.stack(self.seen_pictures)
        x = self.pictured.normalise(pixels).to(self.device)
        maps, how = heat_maps(self.model, x, taken.to(self.device))
        pairs = zip(pixels, maps, strict=True)
        return {"spoken": tuple(image_uri(as_uint8(under_heat(*pair))) for pair in pairs), "how": how}

    def pictures(self, pixels: Tensor, views: int = 1, *, show: bool = True) -> Tensor:
        """Answers (B, outputs) for pictures at training size, (B, C, H, W), which are shown beside them."""
        if show:
            self.show(pixels)
        total = self.inputs(self.pictured.normalise(pixels))
        if views > 1:
            plain = ImageSamples(pixels, torch.zeros(len(pixels)), self.pictured)
            changed, every = augmented(plain, VIEW_AUGMENT, 0), torch.arange(len(pixels))
            for view in range(1, views):
                total = total + self.inputs(changed.view(view).batch(every))
        return total / views

    def texts(self, texts: Sequence[Text]) -> Tensor:
        """Answers (N, outputs) for texts, those of like length together."""
        preprocess = self.preprocess
        assert isinstance(preprocess, TextPreprocess)
        self.seen_texts += texts[: SHOWN - len(self.seen_texts)]
        encoded = preprocess.encode(texts)
        order = encoded.lengths.argsort(stable=True)
        answers, back, before = [], order.argsort(), len(self.seen)
        for rows in order.split(BATCH):
            part = rows.tolist()
            answers.append(self.inputs(preprocess.batch(encoded.ids_of(part), encoded.types_of(part))))
        seen = self.seen[before:]
        if seen:  # in the order of the texts, as the answers are
            features, scores = (torch.cat(parts)[back] for parts in zip(*seen, strict=True))
            self.seen[before:] = [(features, scores)]
        return torch.cat(answers)[back]

    def inputs(self, x: Batch) -> Tensor:
        """Answers (B, outputs) for what the network takes."""
        began = time.perf_counter()
        # A forward of somebody else's may ask for gradients of its own, which inference mode does not give.
        with torch.inference_mode() if self._familiar else torch.no_grad():
            scores = self._scores(x.to(self.device))
        self.seconds += time.perf_counter() - began
        return self.data.task.answers(scores)

    def _scores(self, x: Batch) -> Tensor:
        if self.sure is None:
            return scores_of(call(self.network, x)).float().cpu()
        features, scores = watched(self.network, self.sure.reads, lambda: scores_of(call(self.network, x)))
        self.seen.append((features, scores))
        return scores

    def join_seen(self, since: int, wholes: Tensor) -> None:
        """Take what was seen from a place on as that of pieces, and keep the means of their wholes, (N,) numbers."""
        if self.sure is not None:
            features, scores = (torch.cat(parts) for parts in zip(*self.seen[since:], strict=True))
            scores, _ = of_wholes(self.data.task, scores, scores, wholes)
            self.seen[since:] = [(mean_of_wholes(features, wholes), scores)]

    def judged(self, sure: float, false_alarms: float) -> Judged:
        """What can be relied on of all that was answered.

        Raises:
            DataError: see :meth:`Sure.judge`.
        """
        assert self.sure is not None
        nothing = torch.zeros(0, len(self.data.classes))
        features = torch.cat([found for found, _ in self.seen] or [self._no_features()])
        scores = torch.cat([found for _, found in self.seen] or [nothing])
        return self.sure.judge(self.data.task, features, scores, sure, false_alarms)

    def _no_features(self) -> Tensor:
        novelty = self.sure.novelty if self.sure is not None else None
        return torch.zeros(0, 0 if novelty is None else len(novelty.centre))


def as_it_is(model: nn.Module) -> nn.Module:
    """A copy in test mode."""
    own: nn.Module = duplicate(model)
    set_training(own, False)
    return own


def folded(model: nn.Module) -> nn.Module:
    """A copy in test mode, BatchNorm folded into the layer before it where torch can trace the forward."""
    own = as_it_is(model)
    if not is_familiar(own):
        return own  # what its forward does with a stand-in for a tensor is not known
    try:
        return fuse(own).eval()
    except Exception:  # whatever a forward does with a stand-in for a tensor
        return own


def predict(
    predictor: Predictor,
    source: object,
    *,
    views: int = 1,
    tick: Callable[[int, int], None] = lambda done, total: None,
    sure: float = SURE,
    false_alarms: float = FALSE_ALARMS,
) -> Predictions:
    """Predictions for what is named.

    Args:
        predictor: the network.
        source: a picture or sound file, a folder, files a line each, or arrays: (N, H, W), (N, C, H, W),
            (N, H, W, C) or one picture; sounds as (samples, rate), or a list of such; for a network that takes
            neither, inputs (N, ...).
        views: how many views are averaged: the picture and small changes of it (test-time augmentation).
        tick: called as ``tick(done, total)`` before each batch; what it raises ends the work.
        sure, false_alarms: how answers are judged, where the predictor judges; see :meth:`Sure.judge`.

    Raises:
        DataError: no such file, or something that cannot be predicted on.
    """
    if predictor.sure is not None:
        predictor.sure.need(sure)
    if views < 1:
        raise DataError(f"--views takes a whole number from 1 up, not {views}")
    if views > 1 and (predictor.own is not None or isinstance(predictor.preprocess, RawFrames)):
        raise DataError("--views is for pictures that tlnb prepares; this data set prepares its own")
    began = time.perf_counter()
    if isinstance(predictor.preprocess, TextPreprocess) and (given := _texts(source)) is not None:
        if views > 1:
            raise DataError("--views is for pictures, and these are texts")
        names, texts, problems = given
        tick(0, len(texts))
        answers = [predictor.texts(texts)] if texts else []
        return _made(predictor, names, answers, problems, began, views, sure, false_alarms)
    ear = predictor.ear
    with nullcontext() if isinstance(source, _KNOWN) else others_code(source, DataError):
        paths = _paths(source, sounds=ear is not None)
    if isinstance(predictor.preprocess, TextPreprocess) and any(isinstance(p, Encoded) for p in paths or ()):
        raise DataError("the network reads texts; give words, or a .txt file")
    if ear is not None and paths is not None:
        files = [path for path in paths if isinstance(path, Path)]
        if len(files) < len(paths):
            raise DataError("the network listens; give the file of a sound, or (samples, rate)")
        names, answers, problems = of_sound_files(predictor, ear, files, views, lambda: tick(0, len(files)))
    elif ear is not None:
        names, answers = of_waves(predictor, ear, source, views, lambda: tick(0, 0))
        problems = []
    elif paths is not None:
        names, answers, problems = _of_files(predictor, paths, views, tick)
        if problems and not names:
            more = f"; and {len(problems) - 1} others" if problems[1:] else ""
            raise DataError(f"{problems[0].path} cannot be predicted on: {problems[0].reason}{more}")
    else:
        with nullcontext() if isinstance(source, _KNOWN) else others_code(source, DataError):
            names, answers = _of_arrays(predictor, source, views, tick)
        problems = []
    return _made(predictor, names, answers, problems, began, views, sure, false_alarms)


def _made(
    predictor: Predictor, names: Sequence[str], answers: Sequence[Tensor], problems: Sequence[Problem], began: float,
    views: int, sure: float, false_alarms: float,
) -> Predictions:  # fmt: skip
    task = predictor.data.task
    kind = kind_of(task)
    classes = tuple(map(printable, predictor.data.classes))
    found = torch.cat(list(answers)).numpy() if answers else np.zeros((0, len(classes)), np.float32)
    seconds = time.perf_counter() - began
    judged = None if predictor.sure is None else predictor.judged(sure, false_alarms)
    try:
        spoken = predictor.spoken(torch.from_numpy(found))
    except (
        RuntimeError
    ):  # a forward that gives no gradient to its input: the answer stands without its reasons
        spoken = {}
    return Predictions(
        tuple(names), classes, found, kind, tuple(problems), seconds, predictor.seconds, views, judged,
        tuple(predictor.shown), **spoken,
    )  # fmt: skip


class Encoded(NamedTuple):
    """A picture as the bytes of its file."""

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name


_KNOWN = (str, os.PathLike, bytes, list, tuple, Tensor, np.ndarray, Image.Image)


def _encoded(source: Any) -> Encoded | None:
    """What holds a file's bytes: bytes, an open file, or an entry of ipywidgets' FileUpload; None for anything else."""
    name = "picture"
    if isinstance(source, Mapping) and "content" in source:
        name, source = str(source.get("name", name)), source["content"]
    elif isinstance(source, io.IOBase) and source.readable():
        name, source = str(getattr(source, "name", name)), source.read()
    return Encoded(name, bytes(source)) if isinstance(source, bytes | bytearray | memoryview) else None


def _texts(source: object) -> tuple[list[str], list[Text], list[Problem]] | None:
    """Names and texts that are meant: texts themselves, or .txt files and folders of them; None for other things.

    Raises:
        DataError: no such file, or a folder without a .txt.
    """
    if isinstance(source, os.PathLike) or (isinstance(source, str) and _is_place(source)):
        return _text_files([path_of(source, DataError)])
    if isinstance(source, str):
        lines = [line.strip() for line in source.splitlines() if line.strip()]
        if lines and all(map(_is_place, lines)):
            return _text_files([Path(line) for line in lines])
        return [_title(source)], [source], []
    found = as_texts(source)
    if found is None:
        if (
            isinstance(source, list | tuple)
            and source
            and all(isinstance(one, os.PathLike) for one in source)
        ):
            return _text_files([Path(one) for one in source])
        return None
    if all(isinstance(one, str) and _is_place(one) for one in found):
        return _text_files([Path(str(one)) for one in found])
    return [_title(one) for one in found], found, []


def _is_place(word: str) -> bool:
    """Whether this is a .txt file, a folder, or what would be called so."""
    if len(word) > _LONGEST_PATH or "\n" in word or "\0" in word:
        return False
    path = Path(word).expanduser() if not word.startswith("~") else Path(word)
    return path.is_dir() or path.suffix.lower() == ".txt"


def _text_files(paths: Sequence[Path]) -> tuple[list[str], list[Text], list[Problem]]:
    names: list[str] = []
    texts: list[Text] = []
    problems: list[Problem] = []
    for path in paths:
        inside = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
        if not inside:
            raise DataError(f"no .txt in {printable(str(path))!r}")
        if not inside[0].is_file():
            raise DataError(
                f"no file {printable(str(path))!r}; a text in quotes, a .txt, or a folder of them is needed"
            )
        for one in inside:
            read = read_text(one)
            if isinstance(read, str):
                names.append(printable(str(one)))
                texts.append(read)
            else:
                problems.append(Problem(printable(str(one)), read.reason))
    return names, texts, problems


def _title(text: Text) -> str:
    words = printable(shown(text))
    return words if len(words) <= _LONGEST_TITLE else words[: _LONGEST_TITLE - 1] + "…"


def _paths(source: object, *, sounds: bool = False) -> list[Path | Encoded] | None:
    """The files that are meant; None for arrays."""
    if isinstance(source, list | tuple) and not isinstance(source, Encoded) and source:
        opened = [_encoded(part) for part in source]
        if all(part is not None for part in opened):
            return [part for part in opened if part is not None]
    elif (one := _encoded(source)) is not None:
        return [one]
    if isinstance(source, str):
        lines = [line.strip().strip("'\"") for line in source.splitlines() if line.strip()]
        source = lines if len(lines) > 1 else (lines[0] if lines else "")
    if isinstance(source, str | os.PathLike):
        return [*_below(path_of(source, DataError), sounds=sounds)]
    if isinstance(source, list | tuple) and source and all(isinstance(s, str | os.PathLike) for s in source):
        return [path for part in source for path in _below(path_of(part, DataError), sounds=sounds)]
    return None


def _below(path: Path, *, sounds: bool) -> list[Path]:
    one = "sound" if sounds else "picture"
    if path.is_dir():
        fits: Callable[[Path], bool] = is_sound if sounds else _is_picture
        try:
            found = sorted(p for p in path.rglob("*") if fits(p) and p.is_file())
        except OSError as error:
            raise DataError(f"cannot look into {printable(str(path))!r}: {error.strerror or error}") from None
        if not found:
            raise DataError(f"no {one}s in {printable(str(path))!r}")
        return found
    if not path.is_file():
        raise DataError(f"no file {printable(str(path))!r}; a {one}, a folder of {one}s or $name is needed")
    return [path]


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _of_files(
    predictor: Predictor, paths: Sequence[Path | Encoded], views: int, tick: Callable[[int, int], None]
) -> tuple[list[str], list[Tensor], list[Problem]]:
    own = predictor.own

    def read(path: Path | Encoded) -> Tensor:
        if own is not None:
            return _opened(path, own)
        if isinstance(path, Encoded):
            return decode_bytes(path.content, predictor.pictured, scale=predictor.data.scale)
        return decode_file(path, predictor.pictured, scale=predictor.data.scale)

    names: list[str] = []
    answers: list[Tensor] = []
    problems: list[Problem] = []
    for known, good, bad in readable(paths, read, BATCH, lambda done: tick(done, len(paths))):
        names += known
        problems += bad
        if good and own is None:
            answers.append(predictor.pictures(torch.stack(good), views))
        elif good:
            answers.append(predictor.inputs(torch.cat(good)))
    return names, answers, problems


def _of_arrays(
    predictor: Predictor, source: object, views: int, tick: Callable[[int, int], None]
) -> tuple[list[str], list[Tensor]]:
    like, own = getattr(predictor.data.train, "inputs", None), predictor.own
    if own is not None:
        like, pictures = own.like, _as_pictures(source)
        source = torch.cat([own.of(picture) for picture in pictures]) if pictures else source
    preprocess = predictor.preprocess
    if isinstance(like, Tree) or (like is None and not isinstance(preprocess, Preprocess)):
        return _of_trees(predictor, source, like, tick)
    assert isinstance(preprocess, Preprocess)
    items: Any = _pictures(source, preprocess.channels) if like is None else _rows(source, like)
    answers = []
    for at in range(0, len(items), BATCH):
        tick(at, len(items))
        part = items[at : at + BATCH]
        if like is None:
            answers.append(
                predictor.pictures(
                    torch.stack([_fitted(p, predictor.pictured, predictor.data.scale) for p in part]), views
                )
            )
        else:
            answers.append(predictor.inputs(torch.stack(list(part))))
    return [f"sample {number}" for number in range(len(items))], answers


def _of_trees(
    predictor: Predictor, source: object, like: Tree | None, tick: Callable[[int, int], None]
) -> tuple[list[str], list[Tensor]]:
    """Answers for inputs of several tensors, given by name."""
    known = ", ".join(like) if like is not None else ", ".join(getattr(predictor.preprocess, "names", ()))
    if not isinstance(source, Mapping) or (like is not None and set(source) != set(like)):
        raise DataError(f"the network takes several inputs; give them by name, a dict with {known}")
    tree = as_batch(source)
    answers = []
    for at in range(0, len(tree), BATCH):
        tick(at, len(tree))
        answers.append(predictor.inputs(tree[at : at + BATCH]))
    return [f"sample {number}" for number in range(len(tree))], answers


def _opened(path: Path | Encoded, own: OwnInput) -> Tensor:
    try:
        with Image.open(io.BytesIO(path.content) if isinstance(path, Encoded) else path) as picture:
            return own.of(picture.convert("L" if own.like.dim() == 4 and own.like.shape[1] == 1 else "RGB"))
    except OSError as trouble:
        raise BadPicture(str(trouble)) from None


def _as_pictures(source: Any) -> list[Any]:
    """The pictures of Pillow that are meant; none where it is something else."""
    found = [source] if isinstance(source, Image.Image) else source
    several = isinstance(found, list | tuple) and bool(found)
    return list(found) if several and all(isinstance(one, Image.Image) for one in found) else []


def _fitted(item: Any, preprocess: Preprocess, scale: PixelScale) -> Tensor:
    try:
        if isinstance(item, Image.Image):
            return decode_image(item, preprocess, scale=scale)
        return fit_tensor(as_image_tensor(item, scale), preprocess)
    except (BadPicture, TypeError, ValueError) as trouble:
        raise DataError(f"this cannot be predicted on: {trouble}") from None


def _rows(source: Any, like: Tensor) -> Tensor:
    """Samples of the shape and type that the network learned from: one, or several in front of each other."""
    try:
        rows = torch.as_tensor(source if isinstance(source, Tensor) else np.asarray(source)).to(like.dtype)
    except (TypeError, ValueError):
        raise DataError(
            f"predictions are made for numbers, not for a {type(source).__name__} of others"
        ) from None
    rows = rows[None] if rows.shape == like.shape[1:] else rows
    if rows.shape[1:] != like.shape[1:] or not len(rows):
        raise DataError(
            f"a sample has the shape {tuple(like.shape[1:])}, several {('N', *like.shape[1:])}; "
            f"this is {tuple(rows.shape)}".replace("'", "")
        )
    return rows


def _pictures(source: Any, channels: int) -> Sequence[Any]:
    """Pictures one by one; (3, H, W) is one in colour for a network that sees colours, three grey ones else."""
    if isinstance(source, Image.Image):
        return [source]
    if isinstance(source, list | tuple) and source and all(isinstance(s, Image.Image) for s in source):
        return list(source)
    if isinstance(source, np.ndarray | list | tuple | dict | bytes) and not len(source):
        raise DataError(f"there is nothing to predict on: this {type(source).__name__} is empty")
    if not isinstance(source, Tensor | np.ndarray | list | tuple) or not len(source):
        raise DataError(
            "predictions are made for a picture file, a folder, a list of files, or arrays, "
            f"not a {type(source).__name__}"
        )
    shape: tuple[int, ...] = tuple(getattr(source, "shape", ()))
    first = len(shape) == 3 and shape[1] > 3 and shape[0] in (1, channels)
    last = len(shape) == 3 and shape[1] > 3 and shape[0] > 3 and shape[2] == 3
    return [source] if len(shape) == 2 or first or last else list(source)
