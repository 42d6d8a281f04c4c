"""The settings of one stage of training, and how each is read from text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from tlnb.engine.core.arguments import MOST, shown
from tlnb.engine.core.structure import Unfit, one_of, structure
from tlnb.errors import PlanError, did_you_mean

OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("one-cycle", "cosine", "constant")
PRECISIONS = ("fp32", "bf16", "fp16", "auto")
AUGMENTS = ("none", "light", "standard", "strong")
GUARDS = ("l2sp", "lwf", "ewc")
INITS = ("keep", "soft", "zero")
BN_MODES = ("auto", "train", "frozen")
TRAIN, FIT = "train", "fit"  # what a stage does
LOGISTIC, NEAREST = "logistic", "nearest"  # how a linear head is fitted: by regression, or to class means
FITS = (LOGISTIC, NEAREST)
FIT_KEYS = ("augment", "views", "guard")  # of a stage that fits the head
AUTO = "auto"
STRICT = "strict"  # of the guard


@dataclass(frozen=True)
class Key:
    """One setting of a stage: what it takes, and what it is for.

    Args:
        kind: ``whole``, ``positive``, ``fraction``, ``rate``, ``choice``, or one of a single setting.
        help: one sentence for ``%tl_train?``.
        choices: the words that a ``choice`` takes.
        least: smallest value that a ``whole`` or ``positive`` takes.
    """

    kind: str
    help: str
    choices: tuple[str, ...] = ()
    least: float = 0.0

    @property
    def takes(self) -> str:
        """What a user may write, in words."""
        words = {
            "whole": f"a whole number from {self.least:g} up",
            "positive": f"a number from {self.least:g} up",
            "fraction": "a number from 0 to below 1",
            "rate": "auto or a number above 0",
            "guard": "none or a guard and its strength: l2sp:0.05, lwf:1 or ewc:1",
            "way back": "on, off or strict",
            "temperature": "none or a number above 0, such as 0.1",
            "share": "none, auto or a number from 0 to 1",
            "average": "none, ema or last:N, the mean after each of the last N epochs",
        }
        return words.get(self.kind) or "one of " + ", ".join(self.choices)


KEYS: dict[str, Key] = {
    "epochs": Key("whole", "passes over the training images", least=1),
    "lr": Key("rate", "learning rate of the last layer; auto runs the range test first"),
    "decay": Key("positive", "each earlier layer learns this many times slower", least=1.0),
    "batch": Key("whole", "images in a step", least=1),
    "micro": Key("whole", "images that pass the network at a time; their gradients are added up", least=1),
    "optimizer": Key("choice", "update rule", OPTIMIZERS),
    "schedule": Key("choice", "how the rate moves during the stage", SCHEDULES),
    "momentum": Key("fraction", "momentum (SGD) or first beta (AdamW)"),
    "weight_decay": Key("positive", "pull of the weights to zero, decoupled from the gradient for AdamW"),
    "smoothing": Key("fraction", "label smoothing"),
    "patience": Key(
        "whole", "end the stage after this many epochs without a better validation loss", least=1
    ),
    "augment": Key("choice", "random changes to the training images; none overrides the data's", AUGMENTS),
    "keep": Key("guard", "guard against forgetting what the network knew before"),
    "bn": Key(
        "choice",
        "statistics of BatchNorm layers that train: updated, or frozen; auto decides by network and data",
        BN_MODES,
    ),
    "init": Key(
        "choice",
        "how the head begins the stage: as it is, softly fitted (scores near each other, so that there is something "
        "to learn), or at zero",
        INITS,
    ),
    "blend": Key(
        "share",
        "end between the weights before the stage (0) and after it (1); auto takes the best on validation",
    ),
    "average": Key(
        "average",
        "end with an average of the weights: exponential over steps (ema), or of the last N epochs; BatchNorm's "
        "statistics are then taken anew",
    ),
    "guard": Key(
        "way back",
        "go back to the stage before where this one ends worse on the validation samples; strict also where it isn't "
        "better by more than luck",
    ),
    "contrast": Key(
        "temperature",
        "train what enters the head by comparing the samples of a batch, at this temperature; the head, frozen "
        "meanwhile, is to be fitted afterwards",
    ),
    "precision": Key(
        "choice",
        "number format of the layers that train; fp16 scales its loss, auto takes what the device is fast in",
        PRECISIONS,
    ),
    "views": Key(
        "whole", "keep so many augmented views of each image and take them in turn; 0 for new ones each epoch"
    ),
}


def read_adapter(value: Any) -> str:
    """The words of an adapter in a file: ``rank 8``, ``bias`` or ``norm``.

    Raises:
        Unfit: other words.
    """
    from tlnb.engine.network.adapters import rank_of  # brings torch, which the keys above do without

    words = structure(str, value)
    try:
        rank_of(words)
    except ValueError as error:
        raise Unfit(f"is no adapter: {error}") from None
    return words


@dataclass(frozen=True)
class Stage:
    """One round of training with one set of trainable layers.

    Args:
        text: the line that the user wrote, without its comment.
        frozen: indexes of the layers that stay fixed.
        by: one of ``FITS``, where the head is fitted; empty for the first.
        adapted: for each layer that is adapted, its index and the adapter's words (``rank 8``, ``bias``, ``norm``).
        epochs: passes over the training set.
        lr: learning rate of the last trainable layer, or None to find it by a range test.
        decay: rate of a layer divided by the rate of the layer before it.
        batch: samples a step; None for the data's own batch size.
        micro: samples that pass the network at a time, their gradients added up to the batch; None for all.
        optimizer: one of ``OPTIMIZERS``.
        schedule: one of ``SCHEDULES``.
        momentum: SGD momentum or AdamW's first beta; None for the optimizer's usual value (0.9).
        weight_decay: None for the optimizer's usual value (0.01 for AdamW, 0 for SGD).
        smoothing: label smoothing (Szegedy et al. 2016), 0 for none.
        patience: epochs without a better validation loss before the stage ends; None for never.
        augment: one of ``AUGMENTS``, in place of the data's own; None for that.
        keep: a guard against forgetting and its strength, such as ``lwf:1``; None for none.
        bn: one of ``BN_MODES``.
        init: one of ``INITS``: ``soft`` fits the head's last layer with a strong penalty, ``zero`` sets it to zero.
        blend: how much of what the stage learned its layers keep, between 0 and 1; ``auto`` to choose it by the
            validation samples; None for all of it.
        average: ``ema``, or ``last:N`` epochs, whose mean weights it ends with; None for the last ones.
        guard: whether the network goes back to the stage before where this one ends worse; ``strict`` for one that has
            to end better.
        contrast: temperature of the contrastive loss that stands in place of the task's; None for the task's.
        precision: one of ``PRECISIONS``.
        views: augmented views of each image that are kept behind the frozen part; epoch e uses view e mod
            ``views``. 0 for new ones in each epoch.
        kind: ``train``, or ``fit`` for a head that is fitted to convergence.
        merges: whether adapters that lines before it left become a part of the weights, before it trains.
    """

    text: str
    frozen: tuple[int, ...]
    epochs: int = 1
    lr: float | None = None
    decay: float = 1.0
    batch: int | None = None
    micro: int | None = None
    optimizer: str = "adamw"
    schedule: str = "one-cycle"
    momentum: float | None = None
    weight_decay: float | None = None
    smoothing: float = 0.0
    patience: int | None = None
    augment: str | None = None
    keep: str | None = None
    precision: str = "fp32"
    views: int = 0
    bn: str = "auto"
    init: str = "keep"
    blend: float | str | None = None
    guard: bool | str = True
    average: str | None = None
    contrast: float | None = None
    kind: Annotated[str, one_of(TRAIN, FIT)] = TRAIN
    by: Annotated[str, one_of("", *FITS)] = ""
    merges: bool = False
    adapted: tuple[tuple[int, Annotated[str, read_adapter]], ...] = ()
    asked: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def check(self) -> None:
        """See that every setting is one that a user could have made.

        Raises:
            PlanError: it is not.
            ValueError: something else was asked for than settings.
        """
        for name in KEYS:
            if getattr(self, name) is not None:
                read_key(name, getattr(self, name))
        if not set(self.asked) <= set(KEYS):
            raise ValueError("what was asked for are no settings of a stage")


def read_keys(pairs: Mapping[str, object]) -> dict[str, Any]:
    """Check and convert stage settings given as text or as Python values.

    Raises:
        PlanError: an unknown key or a value that the key does not take; one line.
    """
    return {name: read_key(name, value) for name, value in pairs.items()}


def read_key(name: str, value: object) -> Any:
    """One setting in its own type; ``lr auto`` becomes None.

    Raises:
        PlanError: an unknown key or a value that the key does not take.
    """
    key = KEYS.get(name)
    if key is None:
        raise PlanError(f"unknown key {name!r}{did_you_mean(name, KEYS)}; keys: {', '.join(KEYS)}")
    try:
        return _READERS[key.kind](key, value)
    except Exception:  # a number that is none; or an object of the user's, which may raise anything
        hint = did_you_mean(value, key.choices) if key.choices and isinstance(value, str) else ""
        raise PlanError(f"{name} takes {key.takes}, not {shown(value)}{hint}") from None


def _whole(key: Key, value: object) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError
    number = int(value)  # type: ignore[call-overload]
    return _at_least(key, number)


def _positive(key: Key, value: object) -> float:
    return _at_least(key, _finite(value))


def _fraction(key: Key, value: object) -> float:
    number = _finite(value)
    if not 0 <= number < 1:
        raise ValueError
    return number


def _rate(key: Key, value: object) -> float | None:
    if value is None or (isinstance(value, str) and value.lower() == "auto"):
        return None
    number = _finite(value)
    if number <= 0:
        raise ValueError
    return number


def _choice(key: Key, value: object) -> str:
    word = str(value).lower().replace("_", "-")
    if word not in key.choices:
        raise ValueError
    return word


def _guard(key: Key, value: object) -> str | None:
    word = str(value).lower()
    if value is None or word == "none":
        return None
    name, colon, strength = word.partition(":")
    if name not in GUARDS or not colon or _finite(strength) <= 0:
        raise ValueError
    return f"{name}:{_finite(strength):g}"


def _way_back(key: Key, value: object) -> bool | str:
    words: dict[str, bool | str] = {"on": True, "off": False, "true": True, "false": False, STRICT: STRICT}
    return words[str(value).lower()]


def _average(key: Key, value: object) -> str | None:
    word = str(value).lower()
    if value is None or word == "none":
        return None
    if word == "ema":
        return word
    name, _, number = word.partition(":")
    if name != "last" or not number.isdecimal() or int(number) < 1:
        raise ValueError
    return f"last:{int(number)}"


def _temperature(key: Key, value: object) -> float | None:
    if value is None or str(value).lower() == "none":
        return None
    number = _finite(value)
    if number <= 0:
        raise ValueError
    return number


def _share(key: Key, value: object) -> float | str | None:
    word = str(value).lower()
    if value is None or word == "none":
        return None
    if word == AUTO:
        return AUTO
    share = _finite(value)
    if not 0 <= share <= 1:
        raise ValueError
    return share


def _finite(value: object) -> float:
    if isinstance(value, bool):
        raise TypeError
    number = float(value)  # type: ignore[arg-type]
    if not math.isfinite(number):
        raise ValueError
    return number


def _at_least(key: Key, number: Any) -> Any:
    if not key.least <= number <= MOST:
        raise ValueError
    return number


_READERS = {
    "whole": _whole,
    "positive": _positive,
    "fraction": _fraction,
    "rate": _rate,
    "choice": _choice,
    "guard": _guard,
    "way back": _way_back,
    "share": _share,
    "temperature": _temperature,
    "average": _average,
}
