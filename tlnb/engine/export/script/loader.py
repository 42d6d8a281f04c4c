"""A small file that loads an exported network and predicts, for people who have no tlnb."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tlnb.engine.core.objectives import Classification, MultiLabel, Objective, Regression
from tlnb.engine.core.tree import IDS, MASK, TYPES, call
from tlnb.engine.data.images.scale import PLAIN
from tlnb.engine.data.samples import PictureSamples, Samples
from tlnb.engine.data.sound.clips import PieceReader
from tlnb.engine.data.text_samples import TextSamples
from tlnb.engine.data.tokens import TextPreprocess
from tlnb.engine.export.deployed import TOKENIZER
from tlnb.engine.export.script.network import build_code
from tlnb.engine.export.script.sounds import loader_parts, reader_of
from tlnb.engine.export.script.text import literal, wrapped
from tlnb.engine.export.script.writer import sorted_imports
from tlnb.engine.models.loaded import LoadedModel
from tlnb.engine.network.trace import quiet
from tlnb.engine.results import judging
from tlnb.engine.results.conformal import needed
from tlnb.engine.results.sure import Sure
from tlnb.engine.results.sureness import SURE
from tlnb.engine.training.fit_head import as_vectors

_LOAD = '''def load():
    """The network with its weights, in test mode."""
{build}
    model.load_state_dict(load_file(HERE / {file}))
    return model.eval()'''

_PICTURES = '''MEAN = torch.tensor({mean}).view(-1, 1, 1)
STD = torch.tensor({std}).view(-1, 1, 1)


def scores_of(model, pixels):
    """What the network gives for pictures (B, {shape}), {span}."""
    return {scores}


def predict(model, pixels):
    """{what} of pictures (B, {shape}), {span}."""
    return {answer}{judge}


def read_picture(path):
    """A picture file as :func:`predict` takes it: uint8 (1, C, H, W)."""
    picture = ImageOps.exif_transpose({opened}){deep}.convert({mode})
{resize}
    return picture.unsqueeze(0)


if __name__ == "__main__":
    network = load()
    for name in sys.argv[1:]:
        with torch.inference_mode():
            answers = predict(network, read_picture(name))[0].tolist()
        best = max(range(len(CLASSES)), key=answers.__getitem__)
        print(f"{{name}}: {{CLASSES[best]}} ({{answers[best]:.3f}})"){said}'''

_SAID = """
        sets, none = judge(network, read_picture(name))
        print("    90 % sure:", "none of these" if none[0] else ", ".join(sets[0]) or "no class")"""

_OPENED = """def opened(path):
    \"\"\"A picture file; of 16 bits a colour Pillow reads but eight, which are other pixels.\"\"\"
    picture = Image.open(path)
    if not picture.mode.startswith(("I", "F")) and ";16" in str(picture.tile):
        raise ValueError(f"{{path}} has 16 bits a colour: give its pixels, {low:g} as 0, {white:g} as 255")
    return picture


"""

_BANDS = """
    values = np.atleast_3d(np.asarray(picture))
    if max({bands}) > values.shape[2]:
        raise ValueError(f"{{path}}: Pillow reads {{values.shape[2]}} bands, and band {{max({bands})}} is used")
    values = values[..., [band - 1 for band in {bands}]]  # numbered from 1
    values = np.clip(((values - {low:g}) * (255 / {span:g})).round(), 0, 255).astype(np.uint8)
    picture = Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)
    picture = picture"""

_DEEP = """
    if picture.mode.startswith(("I", "F")):  # more than eight bits: {low:g} is black, {white:g} white
        values = (np.asarray(picture, np.float64) - {low:g}) * (255 / {span:g})
        picture = Image.fromarray(np.clip(values.round(), 0, 255).astype(np.uint8))
    picture = picture"""

_OTHERS = '''def scores_of(model, inputs):
    """What the network gives for inputs (B, {shape})."""
    return model(inputs){logits}


def predict(model, inputs):
    """{what} of inputs (B, {shape})."""
    return {answer}{judge}'''

_CALIBRATED = '''


TEMPERATURE = {temperature!r}  # by which scores are divided so that probabilities mean what they say


def calibrated(model, {inputs}):
    """Probabilities as :func:`predict`, at the temperature that fits the validation samples."""
    return (scores_of(model, {inputs}).float() / TEMPERATURE){activation}'''

_CLASSES = '''


READS = {reads}  # the module whose input is compared with that of what was learned


@torch.no_grad()
def judge(model, {inputs}, sure=0.9, false_alarms=0.05):
    """The classes that each sample may be of, the likeliest first, and which samples are none of these.

    Of samples like those of the validation part, the share ``sure`` of the sets holds the right class; the share
    ``false_alarms`` of samples of the classes is taken for none of them.
    """
    known = load_file(HERE / {file})
    features, scores = watched(model, READS, lambda: scores_of(model, {inputs}))
    if bound_of(known["margins"], sure) == -math.inf:
        raise ValueError(f"there were too few validation samples to be {{100 * sure:g}} % sure")
    member, order = sets_of(scores, known["margins"], sure), (-scores).argsort(dim=1, stable=True)
    sets = [tuple(CLASSES[i] for i in row.tolist() if own[i]) for row, own in zip(order, member)]
    if "references" not in known:
        return sets, [False] * len(sets)
    return sets, none_of_these(strangeness(features, scores, known), known["ordinary"], false_alarms).tolist()'''

_VALUES = '''


@torch.no_grad()
def judge(model, {inputs}, sure=0.9):
    """From and to of each value, (B, values, 2): of samples like those of the validation part, ``sure`` lie within."""
    bound = bound_of(load_file(HERE / {file})["margins"], sure)
    if bound == -math.inf:
        raise ValueError(f"there were too few validation samples to be {{100 * sure:g}} % sure")
    answers, width = predict(model, {inputs}), -bound * torch.tensor({std})
    return torch.stack([answers - width, answers + width], 2)'''


_TEXTS = '''TOKENIZER = Tokenizer.from_file(str(HERE / {tokenizer}))
TOKENIZER.enable_truncation(max_length={length})
TOKENIZER.enable_padding(pad_id={pad}{width})


def tokens(texts):
    """What :func:`predict` takes, of texts or pairs of sentences."""
    found = TOKENIZER.encode_batch(list(texts))
    return {{{inputs}}}


def scores_of(model, inputs):
    """What the network gives for texts as :func:`tokens` gives them."""
    return model(**inputs){logits}


def predict(model, inputs):
    """{what} of texts as :func:`tokens` gives them."""
    return {answer}{judge}


if __name__ == "__main__":
    network = load()
    for text in sys.argv[1:]:
        with torch.inference_mode():
            answers = predict(network, tokens([text]))[0].tolist()
        best = max(range(len(CLASSES)), key=answers.__getitem__)
        print(f"{{text}}: {{CLASSES[best]}} ({{answers[best]:.3f}})"){said}'''


def loader_code(
    loaded: LoadedModel,
    classes: tuple[str, ...],
    samples: Samples,
    task: Objective,
    file: str,
    sure: Sure | None = None,
) -> str:
    """The text of the file that lies beside exported weights.

    Args:
        loaded: the network.
        classes: names of its outputs.
        samples: what it takes.
        task: what its scores mean.
        file: name of the weights; what answers are judged by lies beside it, see :func:`beside`.
        sure: what answers are judged by; None where that is not known.

    Raises:
        ExportError: a module of the user's that cannot be built from code.
    """
    imports = {"from pathlib import Path", "import torch", "from torch import nn",
               "from safetensors.torch import load_file"}  # fmt: skip
    before, build = build_code(loaded, imports)
    load = _LOAD.format(
        build="\n".join(f"    {line}" for line in "\n".join(build).splitlines()), file=literal(file)
    )
    logits = ".logits" if isinstance(scores_in(loaded.model, samples), dict) else ""
    judge = _judge(task, sure, file, "pixels" if isinstance(samples, PictureSamples) else "inputs", imports)
    judging = [] if sure is None or sure.conformal is None else [_judging(sure)]
    parts = [
        *before, wrapped("CLASSES", classes), load, *judging,
        _predict(samples, task, imports, judge, sure, logits),
    ]  # fmt: skip
    # Names from outside end no docstring.
    plain = str.maketrans({"\\": "/", '"': "'"})
    title = f"{loaded.name} for {len(classes)} classes: loads {file} beside it, and predicts.".translate(
        plain
    )
    about = f'"""{title}'
    usage = f"\n\n    python {Path(file).stem.translate(plain)}.py picture.jpg ...\n"
    if isinstance(samples, TextSamples):
        usage = usage.replace("picture.jpg", "'a text'")
    elif reader_of(samples) is not None:
        usage = usage.replace("picture.jpg", "sound.wav")
    elif not isinstance(samples, PictureSamples):
        usage = ""
    code = "\n\n\n".join(part.strip("\n") for part in parts)
    top = f'{about}{usage}"""\n\n{sorted_imports(imports)}\n\nHERE = Path(__file__).resolve().parent'
    return f"{top}\n\n\n{code}\n"


def beside(file: str) -> str:
    """Name of the file that holds what answers are judged by."""
    return f"{Path(file).stem}.sure.safetensors"


def _judging(sure: Sure) -> str:
    """The code by which the session judges, as far as it is needed."""
    if sure.kind == "values":
        return inspect.getsource(judging.bound_of).rstrip()
    source = inspect.getsource(judging)
    vectors = inspect.getsource(as_vectors).rstrip()
    return f"{source[source.index('ROUNDING = ') :].rstrip()}\n\n\n{vectors}"


def _judge(task: Objective, sure: Sure | None, file: str, inputs: str, imports: set[str]) -> str:
    """The functions that say how sure an answer is."""
    if sure is None:
        return ""
    parts, name = [], literal(beside(file))
    if sure.temperature is not None:
        activation = ".softmax(1)" if sure.kind == "classes" else ".sigmoid()"
        value = sure.temperature.value
        parts.append(_CALIBRATED.format(temperature=value, inputs=inputs, activation=activation))
    if sure.conformal is None:
        return "".join(parts)
    imports.update(("import math", "from torch import Tensor"))
    if isinstance(task, Regression):
        return _VALUES.format(inputs=inputs, file=name, std=list(task.std))
    imports.update(("from collections.abc import Callable", "from torch.nn import functional"))
    return "".join([*parts, _CLASSES.format(inputs=inputs, file=name, reads=literal(sure.reads))])


def _said(sure: Sure | None) -> str:
    """What the loader prints beside the class."""
    return _SAID if sure is not None and sure.kind == "classes" and sure.samples >= needed(SURE) else ""


@torch.no_grad()
def scores_in(model: nn.Module, samples: Samples) -> Any:
    """What the network itself answers to a sample: scores, or an object of transformers that has them."""
    with quiet(model):
        return call(model, samples.batch(torch.tensor([0])).to(next(model.parameters()).device))


def _predict(
    samples: Samples, task: Objective, imports: set[str], judge: str, sure: Sure | None, logits: str
) -> str:
    scores = "model(pixels.float() * (1.0 / ({top} * STD)) - MEAN / STD)" + logits
    if isinstance(samples, TextSamples):
        return _texts(samples.preprocess, task, imports, judge, sure, logits)
    sounds = reader_of(samples)
    if sounds is not None:
        return _of_sounds(samples, sounds, task, imports, judge, logits)
    if not isinstance(samples, PictureSamples):
        shape = ", ".join(map(str, samples.batch(torch.tensor([0])).shape[1:]))
        return _OTHERS.format(
            what=_what(task),
            shape=shape,
            answer=_answer(task, "scores_of(model, inputs)"),
            judge=judge,
            logits=logits,
        )
    imports.update(("import sys", "from PIL import Image, ImageOps"))
    imports.add("from torchvision.transforms.v2 import functional as TF")
    floating = samples.pixels(torch.tensor([0])).is_floating_point()
    preprocess = samples.preprocess
    top, span = ("1.0", "floating point in 0..1") if floating else ("255.0", "uint8 in 0..255")
    shape = ", ".join(map(str, (preprocess.channels, *preprocess.size)))
    mode = literal("L" if preprocess.channels == 1 else "RGB")
    scale, deep = getattr(samples, "scale", PLAIN), ""
    if scale.white is not None:
        deep = _DEEP.format(low=scale.low, white=scale.white, span=scale.white - scale.low)
        imports.add("import numpy as np")
    if scale.bands:
        white = 255.0 if scale.white is None else scale.white
        deep = _BANDS.format(bands=list(scale.bands), low=scale.low, span=white - scale.low)
        imports.add("import numpy as np")
    before = ""
    if not scale.is_plain:
        before = _OPENED.format(low=scale.low, white=255.0 if scale.white is None else scale.white)
    return before + _PICTURES.format(
        deep=deep, opened="opened(path)" if before else "Image.open(path)",
        mean=list(preprocess.mean), std=list(preprocess.std), what=_what(task), shape=shape, span=span,
        scores=scores.format(top=top), answer=_answer(task, "scores_of(model, pixels)"), mode=mode,
        judge=judge, said=_said(sure),
        resize=_resize(samples, floating),
    )  # fmt: skip


def _texts(
    preprocess: TextPreprocess, task: Objective, imports: set[str], judge: str, sure: Sure | None, logits: str
) -> str:
    imports.update(("import sys", "from tokenizers import Tokenizer"))
    parts = {
        IDS: "[one.ids for one in found]", MASK: "[one.attention_mask for one in found]",
        TYPES: "[one.type_ids for one in found]",
    }  # fmt: skip
    width = f", length={preprocess.length}" if preprocess.fixed else ""
    return _TEXTS.format(
        tokenizer=literal(TOKENIZER), length=preprocess.length, pad=preprocess.pad, width=width, what=_what(task),
        inputs=", ".join(f'"{name}": torch.tensor({parts[name]})' for name in preprocess.names),
        logits=logits, answer=_answer(task, "scores_of(model, inputs)"), judge=judge,
        said=_said(sure).replace("read_picture(name)", "tokens([text])"),
    )  # fmt: skip


_SOUNDS = '''MEAN = torch.tensor({mean}).view(-1, 1, 1)
STD = torch.tensor({std}).view(-1, 1, 1)


def scores_of(model, pixels):
    """What the network gives for pieces of sounds as :func:`read_sound` draws them: uint8 (P, {shape})."""
    return {scores}


def predict(model, pixels):
    """{what} of pieces of sounds as :func:`read_sound` draws them: uint8 (P, {shape})."""
    return {answer}{judge}'''


def _of_sounds(
    samples: Samples, reader: PieceReader, task: Objective, imports: set[str], judge: str, logits: str
) -> str:
    top, *parts = loader_parts(samples, reader, imports)
    if isinstance(samples, PictureSamples):
        preprocess = samples.preprocess
        predict = _SOUNDS.format(
            mean=list(preprocess.mean), std=list(preprocess.std), what=_what(task),
            shape=", ".join(map(str, (preprocess.channels, *preprocess.size))),
            scores="model(pixels.float() * (1.0 / (255.0 * STD)) - MEAN / STD)" + logits,
            answer=_answer(task, "scores_of(model, pixels)"), judge=judge,
        )  # fmt: skip
    else:
        shape = ", ".join(map(str, samples.batch(torch.tensor([0])).shape[1:]))
        predict = _OTHERS.format(
            what=_what(task), shape=shape, answer=_answer(task, "scores_of(model, inputs)"), judge=judge
        )
    return "\n\n\n".join([top, predict, *parts])


def _resize(samples: PictureSamples, floating: bool) -> str:
    preprocess = samples.preprocess
    how = f"interpolation=TF.InterpolationMode({literal(preprocess.interpolation)}), antialias=True"
    size = list(preprocess.size)
    lines = ["picture = TF.pil_to_tensor(picture)"]
    if preprocess.resize is None:
        lines.append(f"picture = TF.resize(picture, {size}, {how})")
    else:
        lines.append(f"picture = TF.center_crop(TF.resize(picture, [{preprocess.resize}], {how}), {size})")
    if floating:
        lines.append("picture = picture / 255")
    return "\n".join(f"    {line}" for line in lines)


def _answer(task: Objective, scores: str) -> str:
    if isinstance(task, Classification):
        return f"{scores}.softmax(1)"
    if isinstance(task, MultiLabel):
        return f"{scores}.sigmoid()"
    assert isinstance(task, Regression)
    return f"{scores} * torch.tensor({list(task.std)}) + torch.tensor({list(task.mean)})"


def _what(task: Objective) -> str:
    return "Values" if isinstance(task, Regression) else "Probabilities"
