"""The part of a script, and of the loader beside an export, that hears: the very code that the session heard with."""

from __future__ import annotations

import csv
import inspect
import io
from pathlib import Path

from tlnb.engine.data.image_cache import DecodedSamples
from tlnb.engine.data.samples import Samples
from tlnb.engine.data.sound.clips import Clips, FrameSamples, PieceReader
from tlnb.engine.data.sound.front_end import RawFrames, piece_starts
from tlnb.engine.data.split import repeated_to_balance
from tlnb.engine.data.wholes import LEAST
from tlnb.engine.export.script.source import Source
from tlnb.engine.export.script.text import literal, no_formula
from tlnb.errors import ExportError

_IMPORTS = {
    "import math", "import numpy as np", "import soundfile", "from functools import lru_cache",
    "from scipy import fft, signal", "from typing import Any",
}  # fmt: skip
_MARK = "# What scripts carry begins here.\n"

_LOAD = '''def load_data():
    """Pieces of clips and their targets, to learn from and to measure on: the split is a table of pieces."""
    parts = {{"train": ([], []), "valid": ([], [])}}
    with open(HERE / {name}, newline="", encoding="utf-8") as file:
        for row in csv.reader(file):
            pieces, targets = parts[row[0]]
            pieces.append((ROOT / row[1], float(row[2])))
            targets.append({target})
    return tuple((pieces, torch.tensor(targets)) for pieces, targets in parts.values())


@lru_cache(maxsize=None)
def read_picture(piece{argument}):
    """A piece of a clip as {what}."""
    path, start = piece
    with soundfile.SoundFile(path) as file:
        wave = read_piece(file, start, WINDOW, FRONT["rate"])
{make}'''

_PICTURE = """    picture = torch.from_numpy(mel_picture(wave, **FRONT)).unsqueeze(0)
    picture = TF.resize(picture, list(SIZE), interpolation=TF.InterpolationMode({mode}), antialias=True)
    return picture{colours}[0].contiguous()"""
_FRAME = "    return torch.from_numpy(plain_frame(wave)).reshape({shape})"
_INPUTS = '''def inputs(pieces, indices):
    """Network input for these samples: frames with mean 0 and standard deviation 1."""
    return torch.stack([read_picture(pieces[i]) for i in indices])'''

_OF_CLIPS = '''def of_clips(scores, targets):
    """Scores whose answers are the mean over the pieces of each clip, and the targets of the clips."""
    with open(HERE / {name}, newline="", encoding="utf-8") as file:
        clips = torch.tensor([int(row[3]) for row in csv.reader(file) if row[0] == "valid"])
    answers = {answers}
    first = torch.cat([torch.ones(1, dtype=torch.bool), clips[1:] != clips[:-1]])
    sums = answers.new_zeros(int(first.sum()), answers.shape[1]).index_add_(0, clips, answers)
    mean = sums / torch.bincount(clips).unsqueeze(1)
    return {scores}.float(), targets[first]'''
_ANSWERS = {
    "classes": ("scores.double().softmax(1)", f"mean.clamp_min({LEAST}).log()"),
    "labels": ("scores.double().sigmoid()", f"mean.clamp({LEAST}, 1 - 1e-15).logit()"),
    "values": ("scores.double()", "mean"),
}

_READ = '''def read_sound(path):
    """The pieces of a WAV or FLAC file as :func:`predict` takes them: {what}."""
    pieces = []
    with soundfile.SoundFile(path) as file:
        for start in piece_starts(file.frames / file.samplerate, WINDOW):
            wave = read_piece(file, start, WINDOW, FRONT["rate"])
{make}
    return torch.stack(pieces)


if __name__ == "__main__":
    network = load()
    for name in sys.argv[1:]:
        with torch.inference_mode():
            answers = predict(network, read_sound(name)).mean(0).tolist()  # over the pieces of the clip
        best = max(range(len(CLASSES)), key=answers.__getitem__)
        print(f"{{name}}: {{CLASSES[best]}} ({{answers[best]:.3f}})")'''


def reader_of(samples: Samples) -> PieceReader | None:
    """What reads the sounds that samples are made of; None where they are made of none."""
    plain = getattr(samples, "plain", samples)
    reader = plain.reader if isinstance(plain, DecodedSamples) else None
    return reader if isinstance(reader, PieceReader) else None


def is_cut(source: Source) -> bool:
    """Whether clips that are measured on are cut into pieces."""
    return source.samples[1].wholes is not None


def sounds_code(source: Source, reader: PieceReader, imports: set[str]) -> tuple[str, str]:
    """``load_data`` with what it needs, and ``inputs`` where it takes no pictures.

    Raises:
        ExportError: a clip that turned out damaged in training.
    """
    name = f"{source.stem}.pieces.csv"
    source.files[name] = _table(source, reader)
    imports |= _IMPORTS | {"import csv"}
    target = "int(row[4])" if source.kind == "classes" else "[float(cell) for cell in row[4:]]"
    raw = reader.raw
    if raw is None:
        imports.add("from torchvision.transforms.v2 import functional as TF")
        what, make = "a picture at the network's size: uint8 (C, H, W)", _picture(source.preprocess)
    else:
        what, make = "a frame for the network", _FRAME.format(shape=literal(raw.shape))
    load = _LOAD.format(
        name=literal(name), target=target, what=what, make=make,
        argument=", whole=False" if source.changed else "",
    )  # fmt: skip
    root = Path(reader.files.root).resolve()
    size = "" if raw else f"\nSIZE = {tuple(source.preprocess.size)}"
    top = f"ROOT = Path({literal(str(root))})  # the folder of the sounds{size}\n{_constants(reader)}"
    parts = [top, _carried(reader), load]
    if is_cut(source):
        answers, scores = _ANSWERS[source.kind]
        parts.append(_OF_CLIPS.format(name=literal(name), answers=answers, scores=scores))
    return "\n\n\n".join(parts), _INPUTS if raw else ""


def loader_parts(samples: Samples, reader: PieceReader, imports: set[str]) -> list[str]:
    """What the loader beside an export reads sounds with: constants, front end, ``read_sound`` and a main part."""
    imports |= _IMPORTS | {"import sys"}
    if isinstance(samples, FrameSamples):
        what, make = (
            "float32 (P, *shape)",
            f"torch.from_numpy(plain_frame(wave)).reshape({literal(samples.preprocess.shape)})",
        )
        size, lines = "", [f"pieces.append({make})"]
    else:
        imports.add("from torchvision.transforms.v2 import functional as TF")
        preprocess = samples.preprocess  # type: ignore[attr-defined]
        what, size = "uint8 (P, C, H, W)", f"SIZE = {tuple(preprocess.size)}\n"
        lines = _picture(preprocess).replace("    return ", "    pieces.append(").splitlines()
        lines = [line.strip() for line in lines]
        lines[-1] += ")"
    read = _READ.format(what=what, make="\n".join(f"            {line}" for line in lines))
    starts = inspect.getsource(piece_starts).rstrip()
    return [f"{size}{_constants(reader)}", _carried(reader), starts, read]


def _picture(preprocess: object) -> str:
    mode, channels = preprocess.interpolation, preprocess.channels  # type: ignore[attr-defined]
    return _PICTURE.format(
        mode=literal(mode), colours="" if channels == 1 else f".expand(-1, {channels}, -1, -1)"
    )


def _constants(reader: PieceReader) -> str:
    shown = reader.front
    numbers = (
        {"rate": reader.rate} if isinstance(reader.raw, RawFrames) else
        {"rate": shown.rate, "bands": shown.bands, "frame": shown.frame, "hop": shown.hop, "size": shown.transform}
    )  # fmt: skip
    return f"WINDOW = {reader.window!r}  # seconds of a piece\nFRONT = {literal_dict(numbers)}"


def literal_dict(numbers: dict[str, int]) -> str:
    """A dictionary as code."""
    return "{" + ", ".join(f'"{key}": {value}' for key, value in numbers.items()) + "}"


def _carried(reader: PieceReader) -> str:
    """The source of the front end, as far as it is used."""
    from tlnb.engine.data.sound import front  # it imports scipy.signal, which takes a while

    if reader.raw is None:
        source = inspect.getsource(front)
        return source[source.index(_MARK) + len(_MARK) :].strip()
    return "\n\n\n".join(
        inspect.getsource(f).rstrip() for f in (front.plain_frame, front.read_piece, front.at_rate)
    )


def _table(source: Source, reader: PieceReader) -> str:
    """A row a piece: part, file, second, number of the clip, targets."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    train, valid = source.data.train, source.data.valid
    if source.data.balance == "samples":
        train = train.subset(repeated_to_balance(train.targets))
    broken = {problem.path for problem in source.data.problems}
    for part, clips in (("train", train), ("valid", valid)):
        assert isinstance(clips, Clips)
        pieces, places = reader.pieces_of(clips.rows)
        for piece, place in zip(pieces.tolist(), places.tolist(), strict=True):
            if reader.name(piece) in broken:
                raise ExportError(
                    f"{clips.name(place)} turned out damaged in training; take it away and train anew"
                )
            target = clips.targets[place].tolist()
            cells = target if isinstance(target, list) else [target]
            writer.writerow([part, no_formula(clips.name(place)), repr(reader.starts[piece]), place, *cells])
    return file.getvalue()
