"""A network that predicts: BatchNorm folded in, inputs made as training made them, and what spoke for an answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from tlnb.display.pictures import image_uri, uint8_of
from tlnb.engine.checkpoint.network import tensors_of
from tlnb.engine.core.fingerprint import tensors_digest
from tlnb.engine.core.modules import duplicate, set_training
from tlnb.engine.core.objectives import Classification, Objective, scores_of
from tlnb.engine.core.tree import Batch, call
from tlnb.engine.data.augmented import augmented
from tlnb.engine.data.dataset import Data
from tlnb.engine.data.images.scale import PLAIN, PixelScale
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.data.samples import ImageSamples
from tlnb.engine.data.sound.front_end import RawFrames
from tlnb.engine.data.tokens import AnyPreprocess, Text, TextPreprocess
from tlnb.engine.data.wholes import mean_of_wholes, of_wholes
from tlnb.engine.network.forms import is_familiar
from tlnb.engine.results.hearing import Ear
from tlnb.engine.results.judging import watched
from tlnb.engine.results.predictions import SHOWN
from tlnb.engine.results.saliency import heat_maps
from tlnb.engine.results.spoken import as_uint8, under_heat, words_for
from tlnb.engine.results.sure import Judged, Sure
from tlnb.errors import DataError

BATCH = 32
WHY = 8  # pictures, up to which it is shown what spoke for the answer: that costs a step backward
VIEW_AUGMENT = "light"


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
    task: Objective = field(default_factory=Classification)
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
        self.network = _made_ready(model, folded if sure is None else as_it_is)
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


Kept = dict[tuple[str, str, str], nn.Module]
_kept: ContextVar[Kept | None] = ContextVar("kept", default=None)


@contextmanager
def copied_once(kept: Kept) -> Iterator[None]:
    """Inside, predictions of a network that has not changed share one copy of it: frame after frame of a webcam.

    Args:
        kept: holds the copy from one time to the next.
    """
    token = _kept.set(kept)
    try:
        yield
    finally:
        _kept.reset(token)


def _made_ready(model: nn.Module, make: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """The copy of a network that predicts."""
    kept = _kept.get()
    if kept is None:
        return make(model)
    # By content: weights by their bits, all else by what the modules say of themselves.
    key = make.__name__, repr(model), tensors_digest(sorted(tensors_of(model).items()))
    if key not in kept:
        kept.clear()
        kept[key] = make(model)
    return kept[key]


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
