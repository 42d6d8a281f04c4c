"""Predictions for files, folders, arrays, texts and sounds: what is named is read, and shown to the network."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tlnb.display.tables import printable
from tlnb.engine.core.arguments import others_code, path_of
from tlnb.engine.core.objectives import kind_of
from tlnb.engine.core.tree import Tree, as_batch
from tlnb.engine.data.images.check import Problem, readable
from tlnb.engine.data.images.decode import decode_bytes, decode_file, decode_image
from tlnb.engine.data.images.headers import SUFFIXES, BadPicture
from tlnb.engine.data.images.scale import PixelScale
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.data.readers import as_image_tensor, fit_tensor
from tlnb.engine.data.sound.front_end import RawFrames
from tlnb.engine.data.sources.text import as_texts, read_text
from tlnb.engine.data.texts import plain, shown
from tlnb.engine.data.tokens import Text, TextPreprocess
from tlnb.engine.results.hearing import is_sound, of_sound_files, of_waves
from tlnb.engine.results.novelty import FALSE_ALARMS
from tlnb.engine.results.predictions import Predictions
from tlnb.engine.results.predictor import BATCH, OwnInput, Predictor
from tlnb.engine.results.sureness import SURE
from tlnb.errors import DataError

_LONGEST_PATH, _LONGEST_TITLE = 1024, 60  # letters


def predict(
    predictor: Predictor,
    source: object,
    *,
    views: int = 1,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
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
        on_progress: called as ``on_progress(done, total)`` before each batch; what it raises ends the work.
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
        on_progress(0, len(texts))
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
        names, answers, problems = of_sound_files(
            predictor, ear, files, views, lambda: on_progress(0, len(files))
        )
    elif ear is not None:
        names, answers = of_waves(predictor, ear, source, views, lambda: on_progress(0, 0))
        problems = []
    elif paths is not None:
        names, answers, problems = _of_files(predictor, paths, views, on_progress)
    else:
        with nullcontext() if isinstance(source, _KNOWN) else others_code(source, DataError):
            names, answers = _of_arrays(predictor, source, views, on_progress)
        problems = []
    return _made(predictor, names, answers, problems, began, views, sure, false_alarms)


def _made(
    predictor: Predictor, names: Sequence[str], answers: Sequence[Tensor], problems: Sequence[Problem], began: float,
    views: int, sure: float, false_alarms: float,
) -> Predictions:  # fmt: skip
    if problems and not names:
        more = f"; and {len(problems) - 1} others" if problems[1:] else ""
        raise DataError(f"{problems[0].path} cannot be predicted on: {problems[0].reason}{more}")
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
        return _written([source])
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
    return _written(found)


def _written(texts: Sequence[Text]) -> tuple[list[str], list[Text], list[Problem]]:
    """Names and texts without those in which nothing is written, as in data that is learned from."""
    empty = [number for number, text in enumerate(texts) if not plain(text).strip("\0 \t\r\n")]
    kept = [text for number, text in enumerate(texts) if number not in set(empty)]
    return [_title(text) for text in kept], kept, [Problem(f"text {number}", "no text") for number in empty]


def _is_place(word: str) -> bool:
    """Whether this is a .txt file, a folder, or what would be called so."""
    if not word.strip() or len(word) > _LONGEST_PATH or "\n" in word or "\0" in word:
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
    predictor: Predictor, paths: Sequence[Path | Encoded], views: int, on_progress: Callable[[int, int], None]
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
    for known, good, bad in readable(paths, read, BATCH, lambda done: on_progress(done, len(paths))):
        names += known
        problems += bad
        if good and own is None:
            answers.append(predictor.pictures(torch.stack(good), views))
        elif good:
            answers.append(predictor.inputs(torch.cat(good)))
    return names, answers, problems


def _of_arrays(
    predictor: Predictor, source: object, views: int, on_progress: Callable[[int, int], None]
) -> tuple[list[str], list[Tensor]]:
    like, own = getattr(predictor.data.train, "inputs", None), predictor.own
    if own is not None:
        like, pictures = own.like, _as_pictures(source)
        source = torch.cat([own.of(picture) for picture in pictures]) if pictures else source
    preprocess = predictor.preprocess
    if isinstance(like, Tree) or (like is None and not isinstance(preprocess, Preprocess)):
        return _of_trees(predictor, source, like, on_progress)
    assert isinstance(preprocess, Preprocess)
    items: Any = _pictures(source, preprocess.channels) if like is None else _rows(source, like)
    answers = []
    for at in range(0, len(items), BATCH):
        on_progress(at, len(items))
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
    predictor: Predictor, source: object, like: Tree | None, on_progress: Callable[[int, int], None]
) -> tuple[list[str], list[Tensor]]:
    """Answers for inputs of several tensors, given by name."""
    if isinstance(predictor.preprocess, TextPreprocess) and not isinstance(source, Mapping):
        raise DataError("the network reads texts; give words, several in a list, or a .txt file")
    known = ", ".join(like) if like is not None else ", ".join(getattr(predictor.preprocess, "names", ()))
    if not isinstance(source, Mapping) or (like is not None and set(source) != set(like)):
        raise DataError(f"the network takes several inputs; give them by name, a dict with {known}")
    tree = as_batch(source)
    answers = []
    for at in range(0, len(tree), BATCH):
        on_progress(at, len(tree))
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
