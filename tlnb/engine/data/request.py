"""How a data set is to be read: everything that ``tl.data`` takes beside the source."""

from __future__ import annotations

import csv
import inspect
import io
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from functools import partial
from math import isfinite
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_type_hints

import numpy as np

from tlnb.engine.core.arguments import number_between, others_code, path_of, shown, whole_number
from tlnb.engine.core.machine import free_bytes
from tlnb.engine.core.structure import Unfit, structure, whole
from tlnb.engine.data.augment import check_augment
from tlnb.engine.data.images.scale import PixelScale
from tlnb.engine.data.sound.front_end import LogMel
from tlnb.errors import DataError, did_you_mean

CLASSES, LABELS, REGRESSION = "classes", "labels", "regression"
TARGETS = (CLASSES, LABELS, REGRESSION)
BALANCES = ("weights", "samples")
NO_SPLIT = "none"
OWN = "own"
"""The test part that the source itself has."""
FIRST = ("valid", "size", "batch", "per_class", "augment", "balance", "target", "strict", "seed")
"""Options that stand in every record of how data was read; the others stand there where they were named."""
HIDDEN = ("progress", "heard")
"""Fields that are no options of the user's."""
_Method = TypeVar("_Method", bound=Callable[..., Any])
_MOST_SIDE = 1 << 13  # pixels of a side of the training pictures


def _nobody(done: int, total: int) -> None:
    """Tell nobody how far it is."""


@dataclass(frozen=True)
class SourceRequest:
    """How a data set is to be read.

    Args:
        valid: share of the samples to validate on, where the source has no split of its own.
        size: side of the training images in pixels; None for the network's own.
        batch: samples a step; None for what a DataLoader says, or by the amount of data (16, 32, 64).
        per_class: at most this many training samples of each class.
        augment: ``none``, ``light``, ``standard``, ``strong``, or a v2 transform.
        balance: ``weights`` of classes in the loss, or ``samples`` of small classes repeated.
        target: ``classes``, ``labels`` or ``regression``; None to be told by how the targets look.
        strict: a file that cannot be used is an error.
        seed: of the split, the new head, the order of samples and dropout.
        label: column with the label, or several joined by commas; None to be told by their names.
        path: column with the picture.
        split: column that says which samples train and which validate; ``COLUMN=VALUE`` names the validation
            part; ``none`` for a split by ``valid`` whatever a column or a folder is called.
        delimiter: what stands between the labels of a sample in one cell, such as ``|``.
        folder: where the pictures of a table are; also, what its paths may not lead out of.
        suffix: ending that the names in a table lack, such as ``.jpg``.
        links: follow links that lead out of the folder.
        range: black and white, such as ``0,4095``, or white alone; None: found over the pictures.
        bands: which bands of the pictures are used, from 1, such as ``4,3,2``; of sounds, how many mel bands they
            are drawn in, such as ``64``.
        window: seconds of a sound that the network is shown at a time; longer clips are cut into pieces.
        rate: samples a second that sounds are brought to.
        test: share of the samples that is set aside under seal, which only ``test`` reads; ``own`` (or True) for the
            source's own test part. None for no test part.
        groups: samples that stay on one side of the split: name of a column, ``parent`` for the folder of a file,
            a regular expression with one group over the path, ``near`` for near duplicates, or an entry a sample.
        score: by which networks are compared: ``accuracy``, ``balanced``, ``f1``, ``auroc``, ``ap``, ``kappa``,
            ``loss`` … for classes, fewer for labels; ``r2``, ``mae``, ``rmse``, ``loss`` for values; None: the usual.
        time: column with a time, or an entry a sample: the newest samples validate, or are the test part.
        text: column with the texts, or two joined by commas for pairs of sentences.
        length: tokens of the longest text; None for the 99th percentile of the training texts.
        marks: a CSV that ``%tl_clean --save`` wrote: samples that are relabelled, dropped or kept.
        progress: told how many of how many files are looked at.
        heard: how the network at hand learned to hear; options that are named come first.
    """

    valid: float = 0.2
    size: int | None = None
    batch: int | None = None
    per_class: int | None = None
    augment: Any = "none"
    balance: str | None = None
    target: str | None = None
    strict: bool = False
    seed: int = 0
    label: str | None = None
    path: str | None = None
    split: str | None = None
    delimiter: str | None = None
    folder: str | None = None
    suffix: str | None = None
    links: bool = False
    range: str | None = None
    bands: str | None = None
    test: Any = None
    groups: Any = None
    time: Any = None
    score: str | None = None
    window: float | None = None
    rate: int | None = None
    text: str | None = None
    length: int | None = None
    marks: str | None = None
    progress: Callable[[int, int], None] = field(default=_nobody, compare=False, repr=False)
    heard: LogMel | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, **options: Any) -> SourceRequest:
        """The request that these options make.

        Raises:
            DataError: an unknown option, or a value that it does not take.
        """
        names = [f.name for f in fields(cls) if f.name != "heard"]
        for name in options:
            if name not in names:
                raise DataError(f"there is no option {name!r} of the data{did_you_mean(name, names)}")
        plain: dict[str, Callable[[Any], Any]] = {
            "label": _joined, "text": partial(_joined, option="--text"), "range": _numbers, "bands": _numbers,
            "folder": lambda value: os.fspath(path_of(value, DataError)),
            "marks": lambda value: os.fspath(path_of(value, DataError)),
            "test": _test, "groups": _entries, "time": _entries, "window": _seconds,
        }  # fmt: skip
        for name, value in options.items():
            if name in plain and value is not None:
                with others_code(value, DataError):
                    options[name] = plain[name](value)
        made = cls(**options)
        made._check()
        return made

    def _check(self) -> None:
        number_between(self.valid, "--valid", 0, 1, DataError)
        whole_number(self.seed, "--seed", 0, DataError)
        for option, number in (
            ("--per-class", self.per_class),
            ("--batch", self.batch),
            ("--size", self.size),
            ("--length", self.length),
        ):
            if number is not None:
                whole_number(number, option, 1, DataError)
        for option, word, words in (
            ("--balance", self.balance, BALANCES),
            ("--target", self.target, TARGETS),
        ):
            if word is not None and (not isinstance(word, str) or word not in words):
                raise DataError(
                    f"{option} takes {', '.join(words)}, not {shown(word)}{did_you_mean(word, words)}"
                )
        for name in ("path", "split", "delimiter", "suffix", "score"):
            word = getattr(self, name)
            if word is not None and (not isinstance(word, str) or not word):
                raise DataError(f"--{name} takes a word, not {shown(word)}")
        for name in ("strict", "links"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise DataError(f"--{name} is True or False, not {shown(getattr(self, name))}")
        check_augment(self.augment)
        if self.size is not None:
            _check_size(self.size)
        _ = self.span, self.band_numbers
        LogMel(**{name: value for name in ("window", "rate") if (value := getattr(self, name)) is not None})

    @property
    def parted(self) -> bool:
        """Whether more is said of the parts than the share that validates."""
        return self.test is not None or self.groups is not None or self.time is not None

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns that hold labels; empty to be told by their names."""
        return _names(self.label)

    @property
    def texts(self) -> tuple[str, ...]:
        """The columns that hold texts; empty to be told by their names."""
        return _names(self.text)

    @property
    def span(self) -> tuple[float, float] | None:
        """Black and white; None to be found.

        Raises:
            DataError: no numbers, or white not above black.
        """
        if self.range is None:
            return None
        try:
            numbers = [float(part) for part in self.range.replace(":", ",").split(",")]
        except ValueError:
            numbers = []
        low, white = (0.0, numbers[0]) if len(numbers) == 1 else numbers if len(numbers) == 2 else (0.0, 0.0)
        if not (isfinite(low) and isfinite(white) and low < white):
            raise DataError(f"--range takes black and white, such as 0,4095, not {shown(self.range)}")
        return low, white

    @property
    def band_numbers(self) -> tuple[int, ...]:
        """The bands that are used, from 1; empty for all.

        Raises:
            DataError: no whole numbers from 1 up.
        """
        if self.bands is None:
            return ()
        parts = [part.strip() for part in self.bands.split(",")]
        if not all(part.isdecimal() and 0 < int(part) <= 1 << 12 for part in parts) or len(parts) > 1 << 10:
            raise DataError(f"--bands takes numbers from 1 up, such as 4,3,2, not {shown(self.bands)}")
        return tuple(map(int, parts))

    @property
    def scale(self) -> PixelScale:
        """What the user says of the pixels."""
        low, white = self.span or (0.0, None)
        return PixelScale(low, white, self.band_numbers, given=self.range is not None)

    def refuse(self, names: Iterable[str], what: str) -> None:
        """Refuse options that would mean nothing.

        Args:
            names: of the options.
            what: why, such as ``class folders have no columns``.

        Raises:
            DataError: one of them is set.
        """
        for name in names:
            if getattr(self, name) not in (None, False):
                raise DataError(f"{what}; --{name} means nothing here")

    def plain(self, source: str) -> dict[str, Any]:
        """The arguments of ``load_data`` as plain values, to read the same again; marks are kept by themselves."""
        asked: dict[str, Any] = {"source": source} | {name: getattr(self, name) for name in FIRST}
        for f in fields(self):
            if f.name not in (*FIRST, *HIDDEN, "marks") and getattr(self, f.name) != f.default:
                asked[f.name] = getattr(self, f.name)
        return asked


USUAL = SourceRequest()
"""What holds where nothing is said."""
_LIMITS = {"size": whole(1, 1 << 12), "batch": whole(1, 1 << 31), "per_class": whole(1), "length": whole(1)}


def asked_from(value: Any) -> dict[str, Any]:
    """The way back from ``SourceRequest.plain``, from a file that may say anything.

    Raises:
        Unfit: an argument is missing, unknown, or of another type.
    """
    known = structure(dict[str, Any], value)
    hints = get_type_hints(SourceRequest)
    found: dict[str, Any] = {"source": structure(str, known.pop("source", None))}
    for name in (*FIRST, *(name for name in known if name not in FIRST)):
        if name not in hints or name in HIDDEN:
            raise Unfit("is no argument of the data", f".{name[:60]}")
        if name not in known:
            raise Unfit("is missing", f".{name}")
        kinds = get_args(hints[name]) if isinstance(hints[name], UnionType) else (hints[name],)
        kind = next(kind for kind in kinds if kind is not NoneType)
        read = _LIMITS.get(name, partial(structure, str if kind is Any else kind))
        try:
            found[name] = None if known[name] is None else read(known[name])
        except Unfit as error:
            raise error.below(f".{name}") from None
    return found


def takes_request(method: _Method) -> _Method:
    """Give a method that takes ``**options`` the signature and the docs of the request's fields."""
    signature = inspect.signature(method)
    plain = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    more = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type)
        for f in fields(SourceRequest)
        if f.name not in HIDDEN
    ]
    method.__signature__ = signature.replace(parameters=[*plain, *more])  # type: ignore[attr-defined]
    told = inspect.cleandoc(SourceRequest.__doc__ or "").partition("Args:\n")[2].partition("    progress:")[0]
    lines = inspect.cleandoc(method.__doc__ or "").replace("    options: how it is read, see below.\n", told)
    method.__doc__ = lines
    return method


COLUMNS = ("label", "path", "split", "delimiter", "folder", "suffix")
"""The options that are for tables."""


def _test(value: object) -> str | None:
    """A share as text, or the word for the source's own part."""
    if value is False:
        return None
    if value is True or (isinstance(value, str) and value == OWN):
        return OWN
    try:
        share = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise DataError(
            f"--test takes a share between 0 and 1, or nothing for the source's own test part, not {shown(value)}"
        ) from None
    number_between(share, "--test", 0, 1, DataError)
    return f"{share:.15g}"


def _entries(value: object) -> object:
    """A word as it is; an array as a tuple, which can be compared."""
    if isinstance(value, str):
        return value
    return tuple(np.asarray(value).tolist()) if np.ndim(value) == 1 else value  # type: ignore[arg-type]


def _names(joined: str | None) -> tuple[str, ...]:
    if joined is None:
        return ()
    return tuple(name.strip() for name in next(csv.reader([joined], skipinitialspace=True)))


def _joined(value: object, option: str = "--label") -> str:
    """Names of columns as one text; a name that holds a comma stands in quotes."""
    if isinstance(value, str):
        if not value.strip():
            raise DataError(f"{option} takes the name of a column, or several joined by commas")
        return value
    if not isinstance(value, list | tuple) or not value or not all(isinstance(name, str) for name in value):
        raise DataError(f"{option} takes the name of a column, or several, not {shown(value)}")
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(value)
    return text.getvalue()


def _numbers(value: object) -> str:
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int | float | np.number):
        return f"{value:.15g}"
    if isinstance(value, list | tuple | np.ndarray):
        return ",".join(part if isinstance(part, str) else shown(part) for part in value)
    return value if isinstance(value, str) else shown(value)


def _seconds(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _check_size(size: int) -> None:
    """Refuse pictures that no memory holds, before any is made."""
    one = 3 * 4 * size * size  # bytes as network input; a network needs several times as much
    if size > _MOST_SIDE or 4 * one > free_bytes():
        raise DataError(
            f"--size {size}: a picture would take {one / 1e9:.2g} GB as the network's input, and the network more; "
            "224 is usual"
        )
