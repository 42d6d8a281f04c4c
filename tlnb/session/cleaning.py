"""What is suspicious in a session's data, and the marks by which a person mends it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tlnb.display.tables import printable
from tlnb.engine.checkpoint.file import reason_of, whole_file
from tlnb.engine.cleaning.copies import normal
from tlnb.engine.cleaning.gallery import Gallery
from tlnb.engine.cleaning.looks import Looks, looks_of
from tlnb.engine.cleaning.suspects import Evidence, find
from tlnb.engine.core.arguments import file_to_write
from tlnb.engine.core.machine import home, pool
from tlnb.engine.data.augmented import augmented
from tlnb.engine.data.dataset import Data
from tlnb.engine.data.image_cache import DecodedSamples
from tlnb.engine.data.images.headers import BadPicture
from tlnb.engine.data.marks import ACTS, DROP, KEEP, RELABEL, Log, Mark, Numbers, marks_text, read_marks
from tlnb.engine.data.mending import base_of, class_number, counted, mended, plain_of
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.data.raw import Pictures, RawDataset
from tlnb.engine.data.readers import Reader
from tlnb.engine.data.samples import PictureSamples, Portion
from tlnb.engine.data.sound.clips import Clips
from tlnb.engine.data.split import repeated_to_balance
from tlnb.engine.data.texts import Texts, shown
from tlnb.engine.data.wholes import first_pieces, mean_of_wholes, pieces_of
from tlnb.engine.features.layer_features import pooled
from tlnb.engine.features.planner import CacheRequest
from tlnb.errors import BadArguments, DataError, NotReady
from tlnb.session.answers import Lines
from tlnb.session.autosave import autosave_seconds
from tlnb.session.change import Change
from tlnb.session.likeness import entering_head
from tlnb.session.state import SessionState, Split
from tlnb.session.suspects import Suspects
from tlnb.session.tools import OnProgress, Tools

BATCH = 64
READABLE = 96  # pixels a side of what the network is shown, from which on pictures are judged as it sees them


# -------------------------------------------------------------------- what is suspicious


def clean(state: SessionState, tools: Tools, on_progress: OnProgress) -> Suspects:
    """Look for suspects; see ``Session.clean``."""
    state.need_ready()
    data = state.need_data()
    samples = _each_once(data, state.need_samples())
    features, source = _features(state, tools, samples, on_progress)
    if not bool(torch.isfinite(features).all()):
        raise DataError(
            "the network's features are not finite for some samples, so nothing can be told by them"
        )
    texts = _texts(data)
    looks = _looks(data, samples, on_progress) if texts is None else None
    digests = None
    if texts is None and looks is None:
        digests = [
            (part.content(i) or b"").hex() for part in (data.train, data.valid) for i in range(len(part))
        ]
    evidence = Evidence(features, looks, texts, digests, source)
    found = find(data, evidence, lambda step: tools.stop.check())
    numbers = data.mending.numbers if data.mending is not None else Numbers(data)
    base = _each_once(
        data.mending.original if data.mending is not None else data, base_of(data, state.need_samples())
    )
    return Suspects(found, data, numbers, Gallery(numbers, base))


def _each_once(data: Data, samples: Split) -> Split:
    """Training samples without random changes and repetition, and validation samples."""
    train = plain_of(samples[0])
    if data.balance == "samples":
        rows = repeated_to_balance(data.train.targets)
        first = torch.full((len(data.train),), -1)
        first[rows.flip(0)] = torch.arange(len(rows)).flip(0)
        pieces, wholes = pieces_of(train.wholes, first)
        train = train.portion(pieces)
        train.wholes = wholes
    return train, samples[1]


def _features(
    state: SessionState, tools: Tools, samples: Split, on_progress: OnProgress
) -> tuple[Tensor, str]:
    """What enters the head for each sample, (N, D), and whose features these are.

    A body that was trained on these labels has learned the wrong ones too: that of before is asked where it is known.
    """
    loaded, layers = state.need_model(), state.need_layers()
    body = set(layers.body)
    learned = any(stage.records and body & set(stage.trained) for stage in state.all_stages)
    old, note = state.old.network, ""
    if learned and old is not None and loaded.trained:
        model = old.model.to(tools.device)
        parts = [entering_head(model, old.head, part, tools, on_progress) for part in samples]
        return torch.cat(
            parts
        ), "features are those of the network before training, which knew none of these labels"
    if learned:
        note = (
            "the layers were trained on these labels, so wrong ones may have been learned: a network as it was loaded "
            "tells more"
        )
    elif not loaded.trained:
        note = (
            "the network has random weights; one that was trained tells wrong labels and odd samples better"
        )
    cuts = (
        [cut for cut in layers.graph.cuts if 0 < cut <= max(layers.body, default=-1) + 1]
        if layers.graph
        else []
    )
    if not cuts:
        if not loaded.head:
            raise NotReady(
                f"{loaded.name} has no head that is known, so there are no features to compare samples by"
            )
        return torch.cat(
            [entering_head(loaded.model, loaded.head, part, tools, on_progress) for part in samples]
        ), note
    forward_plan = tools.planner.forward_plan(
        loaded.model,
        layers,
        CacheRequest(range(max(cuts))),
        samples,
        tools.device,
        log=tools.log,
        on_progress=on_progress,
    )
    parts = []
    for part in (forward_plan.train, forward_plan.valid):
        rows = torch.cat([pooled(x) for x in part.stream(torch.arange(len(part)).split(BATCH))])
        parts.append(rows if part.wholes is None else mean_of_wholes(rows, part.wholes))
    return torch.cat(parts), note


def _texts(data: Data) -> list[str] | None:
    if not (isinstance(data.train, Texts) and isinstance(data.valid, Texts)):
        return None
    return [normal(shown(text)) for part in (data.train, data.valid) for text in part.all()]


def _looks(data: Data, samples: Split, on_progress: OnProgress) -> Looks | None:
    """What the pictures look like; None where the samples are none."""
    if not all(isinstance(part, PictureSamples) for part in samples):
        return None
    total = len(data.train) + len(data.valid)

    def batches() -> Iterator[Tensor]:
        done = 0
        for collection, part in zip((data.train, data.valid), samples, strict=True):
            assert isinstance(part, PictureSamples)
            for batch in _batches(collection, part):
                on_progress(done, total)
                yield batch
                done += len(batch)

    found = looks_of(batches())
    # Of drawn sounds only silence shows; two words of one voice look too much alike.
    return (
        replace(found, side=1, bright=torch.ones_like(found.bright))
        if isinstance(data.train, Clips)
        else found
    )


def _batches(collection: RawDataset, samples: PictureSamples) -> Iterator[Tensor]:
    chosen = torch.arange(len(samples)) if samples.wholes is None else first_pieces(samples.wholes)
    whole, rows = (
        (samples.source, samples.rows[chosen]) if isinstance(samples, Portion) else (samples, chosen)
    )
    small = min(samples.preprocess.size) < READABLE
    if small and isinstance(collection, Pictures):
        yield from collection.images.split(BATCH)
    elif small and isinstance(whole, DecodedSamples) and not isinstance(collection, Clips):
        reader, plain = whole.reader, Preprocess(channels=samples.preprocess.channels)
        for some in whole.rows[rows].split(BATCH):
            read = pool().map if reader.threads else map
            yield torch.stack(list(read(lambda number: _read(reader, number, plain), some.tolist())))
    else:
        for some in chosen.split(BATCH):
            yield samples.pixels(some)


def _read(reader: Reader, number: int, preprocess: Preprocess) -> Tensor:
    try:
        return reader.read(number, preprocess)
    except BadPicture:  # it is told where it is trained on
        return torch.zeros(preprocess.channels, *preprocess.size, dtype=torch.uint8)


# -------------------------------------------------------------------- marks


def read_again(state: SessionState, data: Data) -> Data:
    """Data that was named anew, mended by the marks that the session has for it; those that came with it hold."""
    if data.mending is not None:
        return data
    log = state.marks.get(data.name, ())
    if not log or not Numbers(data).find(log):
        return data
    return mended(data, log)


def note(change: Change, data: Data) -> None:
    """Note the marks that data came with, or say where marks of another kernel are."""
    if data.mending is not None:
        change.set(marks={**change.state.marks, data.name: data.mending.log})


def left_over(state: SessionState, data: Data) -> str:
    """One line where marks for data of this name were made in another kernel and are not applied; else empty."""
    place = place_of(data.name)
    if data.mending is not None or data.name in state.marks or not place.is_file():
        return ""
    try:
        log = read_marks(place)
    except DataError:
        return ""
    fit = len(Numbers(data).find(log)) if log else 0
    if not fit:
        return ""
    one = fit == 1
    what = f"{fit} mark{'s' * (not one)} of an earlier kernel fit{'s' * one}"
    return f"{what}: --marks {_quoted(str(place))} applies {'it' if one else 'them'}"


def newer(change: Change, saved: float) -> str:
    """Take over marks that were made after a checkpoint was written; what to say of it, or nothing."""
    data = change.state.data
    place = None if data is None else place_of(data.name)
    try:
        if data is None or place is None or place.stat().st_mtime <= saved:
            return ""
        log = read_marks(place)
    except (OSError, DataError):
        return ""
    if set(log) == set(held(data)):
        return ""
    fresh = apply(change, log)
    return f"marks made after that: {_standing(fresh)}"


def _quoted(path: str) -> str:
    return f'"{path}"' if re.search(r"[\s#]", path) else path


def apply(change: Change, log: Log) -> Data:
    """Set the marks of the data, and mend it by them; the network, its head and its features stay.

    Raises:
        DataError: the data cannot be mended so; nothing has changed then.
    """
    state = change.state
    data = state.need_data()
    fresh = mended(data, log)
    marks = (
        {**state.marks, data.name: log} if log else {k: v for k, v in state.marks.items() if k != data.name}
    )
    if state.samples is not None:
        _remember(change, data, state.samples)
        base = base_of(data, state.samples)
        fitted = fresh.mending.samples(fresh, base) if fresh.mending is not None else _as_read(fresh, base)
        change.set(samples=fitted)
        if state.task in state.tasks:
            change.set_task(state.task, data=fresh, samples=fitted)
    change.set(data=fresh, marks=marks, strict=False, revision=change.state.revision + 1)
    return fresh


def _as_read(data: Data, base: Split) -> Split:
    return augmented(base[0], data.augment, data.seed), base[1]


def _remember(change: Change, data: Data, samples: Split) -> None:
    """Hold data that stages learned from, so that a script can still be written of them."""
    state = change.state
    if any(stage.records for stage in state.all_stages):
        now = state.data_fingerprint
        recipes = [stage.recipe for stage in state.all_stages if stage.recipe is not None]
        if any(used.fingerprint == now for recipe in recipes for used in recipe.data):
            change.set_recorder(objects={**state.recorder.objects, now: (data, samples)})


def mark(change: Change, asked: Iterable[tuple[int, str, str]], suspects: Mapping[int, Any]) -> Lines:
    """Decide about samples.

    Args:
        change: takes the marks.
        asked: number, ``keep``, ``relabel`` or ``drop``, and the class where there is one.
        suspects: what is known of them, by number.

    Raises:
        NotReady: no data.
        DataError: no such sample or class, or too little would be left.
    """
    state = change.state
    data = state.need_data()
    original = data.mending.original if data.mending is not None else data
    numbers = data.mending.numbers if data.mending is not None else Numbers(original)
    log, words, said = list(_log(data)), [], dict[int, tuple[str, str]]()
    for sample, act, label in asked:
        first = said.setdefault(sample, (act, label))
        if first != (act, label):
            both = " and ".join(printable(f"{word} {name}".strip()) for word, name in (first, (act, label)))
            raise BadArguments(f"sample {sample} is named twice, {both}; say which one it is")
        if act not in ACTS:
            raise BadArguments(f"a mark is {', '.join(ACTS)}, not {act!r}")
        part, index = numbers.place(sample)
        given = _given(original, part, index)
        if act == RELABEL:
            class_number(original, label)
        name, known = numbers.name(sample), suspects.get(sample)
        log.append(Mark(act, label, given, name, sample, numbers.content(sample), known.why if known else ""))
        shown = printable(name)
        words.append(
            {KEEP: f"{shown} stays as it is", DROP: f"{shown} is dropped"}.get(
                act, f"{shown}: {printable(given)} → {printable(label)}"
            )
        )
    if not words:
        raise BadArguments("no sample is named; such as: %tl_clean --drop 3,8")
    fresh = apply(change, tuple(log))
    few = words if len(words) <= 8 else [*words[:7], f"… {len(words) - 7} more"]
    return Lines(*few, _standing(fresh))


def undo(change: Change) -> Lines:
    """Take the last mark of the data back.

    Raises:
        NotReady: no data, or no marks on it.
    """
    log = _log(change.state.need_data())
    if not log:
        raise NotReady("there is no mark to take back")
    last = log[-1]
    fresh = apply(change, log[:-1])
    return Lines(f"undone: {last.words} of {printable(last.name)}", _standing(fresh))


def forget(change: Change) -> Lines:
    """Take all marks of the data back.

    Raises:
        NotReady: no data.
    """
    count = len(_log(change.state.need_data()))
    fresh = apply(change, ())
    return Lines(f"forgot {count} mark{'s' * (count != 1)}; the data is as it was read", _standing(fresh))


def _log(data: Data) -> Log:
    return () if data.mending is None else data.mending.log


def _given(data: Data, part: int, index: int) -> str:
    targets = (data.train, data.valid)[part].targets
    return "" if targets.is_floating_point() else data.classes[int(targets[index])]


def _standing(data: Data) -> str:
    words = "" if data.mending is None else counted(data.mending.marks)
    sizes = f"{len(data.train):,} training and {len(data.valid):,} validation samples"
    return f"{sizes}; {words}" if words else f"{sizes}, as they were read"


def held(data: Data) -> tuple[Mark, ...]:
    """The marks that hold, by the number of the sample; those that fit no sample as they were made."""
    if data.mending is None:
        return ()
    fits = data.mending.marks
    known = {id(mark) for mark in fits.values()}
    content = {(mark.content, mark.name) for mark in fits.values()}
    lost = [m for m in data.mending.log if id(m) not in known and (m.content, m.name) not in content]
    return (*(replace(fits[sample], sample=sample) for sample in sorted(fits)), *lost)


def save(change: Change, path: object) -> Lines:
    """Write the marks of the data to a CSV; where the call still fails, what stood there is back.

    Raises:
        DataError: it cannot be written, or another file stands there.
    """
    data, target = change.state.need_data(), file_to_write(path, "%tl_clean --save marks.csv", DataError)
    target = target if target.suffix else target.with_name(target.name + ".csv")
    shown, marks = printable(str(target)), held(data)
    if target.exists() and not _is_ours(target):
        raise DataError(f"{shown} is there and is no file of marks; take another name")
    before = target.read_bytes() if target.exists() else None
    change.journal.note(lambda: _put_back(target, before))
    _write(target, marks_text(marks))
    return Lines(
        f"{len(marks)} mark{'s' * (len(marks) != 1)} written to {shown}; %tl_data … --marks {shown} takes them"
    )


def _put_back(target: Path, before: bytes | None) -> None:
    with suppress(OSError):
        target.unlink(missing_ok=True) if before is None else target.write_bytes(before)


def _is_ours(path: Path) -> bool:
    head = marks_text(()).strip()
    try:
        with open(path, encoding="utf-8-sig") as file:
            return path.is_file() and file.readline().strip() == head
    except (OSError, UnicodeDecodeError):
        return False


def _write(target: Path, text: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as part:
            Path(part).write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise DataError(f"{printable(str(target))} cannot be written: {reason_of(error)}") from None


def numbers_in(told: object, option: str) -> list[int]:
    """Numbers of samples: a number, several (an array or a tensor too), or a text such as ``3,8``.

    Raises:
        BadArguments: something else.
    """
    if isinstance(told, str):
        parts: Iterable[Any] = [part for part in re.split(r"[,\s]+", told.strip()) if part]
    elif isinstance(told, Tensor | np.ndarray):
        parts = np.atleast_1d(np.asarray(told)).ravel().tolist()
    elif isinstance(told, Iterable):
        parts = list(told)
    else:
        parts = [told]
    found = []
    for part in parts:
        try:
            number = int(part)
        except (TypeError, ValueError):
            number = -1
        if number < 0 or isinstance(part, bool | float):
            raise BadArguments(f"{option} takes numbers of samples, such as 3,8, not {str(part)[:40]!r}")
        found.append(number)
    return found


_PAIR = re.compile(r"\s*(\d+)\s*[=:]\s*(.*?)\s*(?=,\s*\d+\s*[=:]|$)", re.DOTALL)


def labels_in(told: object) -> list[tuple[int, str]]:
    """Numbers of samples with their labels: a dict, or a text such as ``3=cat,8=dog``.

    Raises:
        BadArguments: something else.
    """
    if isinstance(told, Mapping):
        return [(number, str(label)) for key, label in told.items() for number in numbers_in(key, "relabel")]
    text = told if isinstance(told, str) else ""
    found, at = [], 0
    while at < len(text):
        match = _PAIR.match(text, at)
        if match is None or not match[2]:
            break
        found.append((int(match[1]), match[2]))
        at = match.end() + 1  # the comma between two
    if not found or at < len(text):
        raise BadArguments(
            f"--relabel takes a class for each sample, such as 3=cat,8=dog, not {str(told)[:60]!r}"
        )
    return found


# -------------------------------------------------------------------- beside the autosave


def place_of(name: str) -> Path:
    """Where the marks of the data of this name are kept by themselves."""
    plain = re.sub(r"[^\w.-]+", "_", Path(name).name)[:40] or "data"
    return home() / "marks" / f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:12]}.csv"


def keep_safe(state: SessionState, tools: Tools) -> None:
    """Write the marks beside the autosave, so that they outlive the kernel; what goes wrong is said."""
    data = state.data
    if data is None or not autosave_seconds():
        return
    try:
        _write(place_of(data.name), marks_text(held(data)))
    except DataError as error:
        tools.log(f"the marks are not saved by themselves: {error}")
