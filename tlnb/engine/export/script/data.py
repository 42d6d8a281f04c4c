"""The part of a script that reads the data, splits it, and makes network input of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from textwrap import indent

import numpy as np
import torch

from tlnb.engine.core.tree import Tree
from tlnb.engine.data.augmented import AugmentedSamples
from tlnb.engine.data.raw import ReadPictures
from tlnb.engine.data.readers import FileReader
from tlnb.engine.data.samples import ImageSamples, PictureSamples, Portion, Samples, TensorSamples
from tlnb.engine.data.split import repeated_to_balance
from tlnb.engine.data.text_samples import TextSamples
from tlnb.engine.export.script.augment import augment_code
from tlnb.engine.export.script.sounds import reader_of, sounds_code
from tlnb.engine.export.script.source import Source
from tlnb.engine.export.script.text import literal, no_formula
from tlnb.errors import ExportError

MOST = 2 << 30  # bytes of samples that are written beside a script

_DIGITS = '''def load_data():
    """Pictures (uint8, N, C, H, W) and labels, to learn from and to measure on: a fixed split."""
    digits = load_digits()
    images = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
    labels = torch.from_numpy(digits.target).long()
    train, valid = train_test_split(
        np.arange(len(labels)), test_size={size}, stratify=digits.target, random_state={seed}
    )
    train, valid = np.sort(train), np.sort(valid)
{less}{fit}    return (images[train], labels[train]), (images[valid], labels[valid])'''

_PER_CLASS = """    generator = torch.Generator().manual_seed({seed})
    order = torch.from_numpy(train)[torch.randperm(len(train), generator=generator)]
    train = torch.cat([order[labels[order] == c][:{count}] for c in range(len(CLASSES))]).sort().values
"""

_SAVED = '''def load_data():
    """Samples and targets, to learn from and to measure on, as the session had them."""
    data = load_file(HERE / {name})
    return (data["train_inputs"], data["train_targets"]), (data["valid_inputs"], data["valid_targets"])'''

_LISTED = '''def load_data():
    """Paths and targets, to learn from and to measure on: the split is a table of files."""
    parts = {{"train": ([], []), "valid": ([], [])}}
    with open(HERE / {name}, newline="", encoding="utf-8") as file:
        for row in csv.reader(file):
            paths, targets = parts[row[0]]
            paths.append(ROOT / row[1])
            targets.append({target})
    return tuple((paths, torch.tensor(targets)) for paths, targets in parts.values())


def read_picture(path{argument}):
    """A picture, turned upright, resized and cropped{unless}: uint8 (C, H, W)."""
    with Image.open(path) as picture:
        sideways = picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        height, width = picture.size if sideways else picture.size[::-1]
{target_size}
        # A JPEG can be decoded at half, a quarter or an eighth of its size; twice the size needed is kept.
        picture.draft({mode}, (2 * height, 2 * width) if sideways else (2 * width, 2 * height))
        exif = picture.getexif()
        if "A" in picture.getbands() or "transparency" in picture.info:  # what is transparent shows white
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
            picture.getexif().update(exif)
        picture = ImageOps.exif_transpose(picture.convert({mode}))
{whole}{resize}    pixels = np.array(picture)
    return torch.from_numpy(pixels[..., None] if pixels.ndim == 2 else pixels).permute(2, 0, 1)'''

_WHOLE = """        if whole:
            picture = picture.resize((width, height), Image.Resampling.{filter})
        else:
"""
_TO_SIZE = (
    "        height, width = SIZE",
    "        picture = picture.resize((width, height), Image.Resampling.{filter})\n",
)
_TO_CROP = (
    "        shorter = min(height, width)\n"
    "        height, width = int({resize} * height / shorter), int({resize} * width / shorter)",
    "        # Resize and centre crop in one.\n"
    "        top, left = round((height - SIZE[0]) / 2), round((width - SIZE[1]) / 2)\n"
    "        x, y = picture.width / width, picture.height / height\n"
    "        box = (left * x, top * y, (left + SIZE[1]) * x, (top + SIZE[0]) * y)\n"
    "        picture = picture.resize(SIZE[::-1], Image.Resampling.{filter}, box=box)\n",
)

_NORMALISED = '''MEAN = torch.tensor({mean}).view(-1, 1, 1)
STD = torch.tensor({std}).view(-1, 1, 1)


def normalised(pixels):
    """Network input, as the weights expect it."""
    return pixels.float() * (1.0 / ({top} * STD)) - MEAN / STD'''


def data_code(source: Source) -> tuple[str, set[str]]:
    """``load_data`` and ``inputs``, and the imports that they ask for.

    Raises:
        ExportError: data that cannot be written down.
    """
    imports: set[str] = set()
    train = source.samples[0]
    plain = train.plain if isinstance(train, AugmentedSamples) else train
    reader = getattr(source.data.train, "reader", None)
    files = (
        isinstance(source.data.train, ReadPictures)
        and isinstance(reader, FileReader)
        and reader.scale.is_plain
    )
    sounds = reader_of(plain)
    if sounds is not None:
        load, own = sounds_code(source, sounds, imports)
        if own:
            return _joined(load, own), imports
        changed = augment_code(source, imports, files=True)
        return _joined(load, _normalised(source.samples[1]), _INPUTS_OF_FILES, changed), imports  # type: ignore[arg-type]
    shared = not any(source.asked.get(name) for name in ("test", "groups", "time"))
    if (
        source.asked.get("source") == "digits"
        and shared
        and source.data.balance is None
        and source.data.mending is None
        and not source.changed
    ):
        load = _digits(source, imports)
    elif files:
        load = _listed(source, imports)
    elif source.texts:
        return _texts(source, imports), imports
    else:
        load = _saved(source, plain, imports)
    if not isinstance(plain, PictureSamples):
        return _joined(load, _INPUTS_AS_THEY_ARE), imports
    changed = augment_code(source, imports, files=files)
    return _joined(load, _normalised(plain), _INPUTS_OF_FILES if files else _INPUTS, changed), imports


def _joined(*parts: str) -> str:
    return "\n\n\n".join(filter(None, parts))


_INPUTS = '''def inputs(images, indices):
    """Network input for these samples: float32 (B, C, H, W)."""
    return normalised(images[indices])'''
_INPUTS_AS_THEY_ARE = '''def inputs(samples, indices):
    """Network input for these samples."""
    return samples[indices]'''
_INPUTS_OF_FILES = '''def inputs(paths, indices):
    """Network input for these samples: float32 (B, C, H, W)."""
    return normalised(torch.stack([read_picture(paths[i]) for i in indices]))'''


def _digits(source: Source, imports: set[str]) -> str:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    asked, target = source.asked, load_digits().target
    share, seed = asked["valid"], source.data.seed
    classes = len(np.unique(target))
    size = share if share * len(target) >= classes else classes
    _, valid = train_test_split(np.arange(len(target)), test_size=size, stratify=target, random_state=seed)
    if sorted(target[valid].tolist()) != sorted(source.data.valid.targets.tolist()):
        raise ExportError("the split of the digits is another than scikit-learn's now; name the data again")
    imports.update(
        ("import numpy as np", "from sklearn.datasets import load_digits",
         "from sklearn.model_selection import train_test_split")
    )  # fmt: skip
    count = asked.get("per_class")
    less = _PER_CLASS.format(seed=seed, count=count) if count is not None else ""
    return _DIGITS.format(size=size, seed=seed, less=less, fit=_fit(source, imports))


def _fit(source: Source, imports: set[str]) -> str:
    """Lines that bring ``images`` to the size and the colours of the network."""
    preprocess, lines = source.preprocess, []
    now = source.data.train.images.shape[-3:]  # type: ignore[attr-defined]
    size, target = tuple(preprocess.size), preprocess._target(*now[1:])
    if tuple(now[1:]) != target:
        imports.update(
            ("from torchvision.transforms.v2 import InterpolationMode",
             "from torchvision.transforms.v2 import functional as TF")
        )  # fmt: skip
        mode = f"InterpolationMode({literal(preprocess.interpolation)})"
        lines.append(f"images = TF.resize(images, {list(target)}, interpolation={mode}, antialias=True)")
    if target != size:
        imports.add("from torchvision.transforms.v2 import functional as TF")
        lines.append(f"images = TF.center_crop(images, {list(size)})")
    if now[0] == 1 and preprocess.channels == 3:
        lines.append("images = images.expand(-1, 3, -1, -1)")
    elif now[0] != preprocess.channels:
        imports.add("from torchvision.transforms.v2 import functional as TF")
        lines.append("images = TF.rgb_to_grayscale(images)")
    return "".join(f"    {line}\n" for line in lines)


def _normalised(samples: PictureSamples) -> str:
    preprocess = samples.preprocess
    base = samples.source if isinstance(samples, Portion) else samples
    floating = isinstance(base, ImageSamples) and base.images.is_floating_point()
    return _NORMALISED.format(
        mean=list(preprocess.mean), std=list(preprocess.std), top="1.0" if floating else "255.0"
    )


def _saved(source: Source, plain: Samples, imports: set[str]) -> str:
    valid = source.samples[1]
    tensors = {}
    for part, samples in (("train", plain), ("valid", valid)):
        if source.changed and part == "train" and isinstance(samples, PictureSamples):
            tensors[f"{part}_inputs"] = _before_changes(samples)
        else:
            tensors[f"{part}_inputs"] = _inputs_of(samples)
        tensors[f"{part}_targets"] = samples.targets.contiguous()
    if sum(tensor.nbytes for tensor in tensors.values()) > MOST:
        raise ExportError("this data is too large to be written beside a script; keep it in files")
    name = f"{source.stem}.data.safetensors"
    source.files[name] = tensors
    imports.add("from safetensors.torch import load_file")
    return _SAVED.format(name=literal(name))


def _before_changes(samples: PictureSamples) -> torch.Tensor:
    pictures = samples.whole(torch.arange(len(samples)))
    if len({picture.shape for picture in pictures}) > 1:
        raise ExportError("pictures of several sizes under random changes; keep them in files")
    return torch.stack(pictures)


def _inputs_of(samples: Samples) -> torch.Tensor:
    if isinstance(samples, ImageSamples):
        return samples.images.contiguous()
    if isinstance(samples, TensorSamples):
        if isinstance(samples.inputs, Tree):
            raise ExportError("data of several inputs in memory cannot be written into a script")
        return samples.inputs.contiguous()
    if samples.random:
        raise ExportError("the data's own pipeline is random, so it cannot be written down")
    every = torch.arange(len(samples))
    if isinstance(samples, PictureSamples):
        return samples.pixels(every).contiguous()
    return torch.cat([samples.batch(part) for part in every.split(64)]).contiguous()


_TEXTS = '''TOKENIZER = Tokenizer.from_file(str(HERE / {tokenizer}))
TOKENIZER.no_padding()
TOKENIZER.enable_truncation(max_length={length})


def load_data():
    """Texts as tokens, and targets, to learn from and to measure on."""
    parts = {{"train": ([], []), "valid": ([], [])}}
    with open(HERE / {name}, newline="", encoding="utf-8") as file:
        for row in csv.reader(file):
            texts, targets = parts[row[0]]
            texts.append({text})
            targets.append({target})
    return tuple((TOKENIZER.encode_batch(texts), torch.tensor(targets)) for texts, targets in parts.values())


def inputs(texts, indices):
    """Network input for these samples, padded to the longest: int64 (B, tokens) each."""
    some = [texts[i] for i in indices]
    width = {width}

    def padded(rows, filling):
        return torch.tensor([[*row, *[filling] * (width - len(row))] for row in rows])

    return {{{parts}}}


def lengths_of(texts):
    """Tokens of each text."""
    return torch.tensor([len(text.ids) for text in texts])'''
_TOKEN_PARTS = {
    "input_ids": "padded([text.ids for text in some], {pad})",
    "attention_mask": "padded([[1] * len(text.ids) for text in some], 0)",
    "token_type_ids": "padded([text.type_ids for text in some], 0)",
}


def _texts(source: Source, imports: set[str]) -> str:
    """``load_data`` of texts: a table of them, and the tokenizer, lie beside the script."""
    name, tokenizer = f"{source.stem}.texts.csv", f"{source.stem}.tokenizer.json"
    preprocess, file = source.preprocess, io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    pairs = False
    for part, samples in zip(("train", "valid"), source.samples, strict=True):
        assert isinstance(samples, TextSamples)
        for text, target in zip(samples.texts, samples.targets.tolist(), strict=True):
            words = [text] if isinstance(text, str) else list(text)
            pairs = len(words) == 2
            writer.writerow([part, *words, *(target if isinstance(target, list) else [target])])
    source.files[name], source.files[tokenizer] = file.getvalue(), preprocess.tokenizer
    imports.update(("import csv", "from tokenizers import Tokenizer"))
    first = 3 if pairs else 2
    parts = [f'"{name}": {_TOKEN_PARTS[name].format(pad=preprocess.pad)}' for name in preprocess.names]
    return _TEXTS.format(
        tokenizer=literal(tokenizer), length=preprocess.length, name=literal(name),
        text="(row[1], row[2])" if pairs else "row[1]",
        target=f"int(row[{first}])" if source.kind == "classes" else f"[float(cell) for cell in row[{first}:]]",
        width=str(preprocess.length) if preprocess.fixed else "max(len(text.ids) for text in some)",
        parts=", ".join(parts),
    )  # fmt: skip


def _listed(source: Source, imports: set[str]) -> str:
    name, file = f"{source.stem}.files.csv", io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    train = source.data.train
    if source.data.balance == "samples":
        train = train.subset(repeated_to_balance(train.targets))
    for part, samples in (("train", train), ("valid", source.data.valid)):
        assert isinstance(samples, ReadPictures)
        broken = {problem.path for problem in source.data.problems}
        for index, target in enumerate(samples.targets.tolist()):
            path = samples.name(index)
            if path in broken:
                raise ExportError(f"{path} turned out broken in training; take it away and train anew")
            writer.writerow([part, no_formula(path), *(target if isinstance(target, list) else [target])])
    source.files[name] = file.getvalue()
    imports.update(("import csv", "import numpy as np", "from PIL import Image, ImageOps"))
    return _listed_code(source, name)


def _listed_code(source: Source, name: str) -> str:
    preprocess = source.preprocess
    target = "int(row[2])" if source.kind == "classes" else "[float(cell) for cell in row[2:]]"
    size, resize = _TO_SIZE if preprocess.resize is None else _TO_CROP
    words = {"resize": preprocess.resize, "filter": preprocess.interpolation.upper()}
    fill: Callable[[str], str] = lambda text: text.format(**words)  # noqa: E731
    changed = source.changed
    mode = literal("L" if preprocess.channels == 1 else "RGB")
    code = _LISTED.format(
        name=literal(name), target=target, mode=mode, target_size=fill(size),
        resize=fill(resize) if not changed else indent(fill(resize), "    "),
        argument=", whole=False" if changed else "",
        unless=", the crop left out where it is to be whole" if changed else "",
        whole=_WHOLE.format(filter=words["filter"]) if changed else "",
    )  # fmt: skip
    root = Path(source.data.train.reader.root).resolve()  # type: ignore[attr-defined]
    top = f"ROOT = Path({literal(str(root))})  # the folder of the pictures\nSIZE = {tuple(preprocess.size)}"
    return f"{top}\n\n\n{code}"
