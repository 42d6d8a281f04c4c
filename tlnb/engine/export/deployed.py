"""A network that takes pixels and gives probabilities: what is exported."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from tlnb.engine.core.modules import set_training
from tlnb.engine.core.objectives import Objective, Regression, kind_of, scores_of
from tlnb.engine.core.tree import IDS, MASK, TYPES, Batch, Tree, call
from tlnb.engine.data.dataset import Data
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.data.samples import PictureSamples, Samples
from tlnb.engine.data.sound.clips import FrameSamples
from tlnb.engine.data.text_samples import TextSamples
from tlnb.engine.models.loaded import LoadedModel
from tlnb.engine.results.conformal import needed
from tlnb.engine.results.judging import watched
from tlnb.engine.results.sure import Judged, Sure
from tlnb.engine.results.sureness import SURE
from tlnb.errors import ExportError, first_line

FORMAT = 1
KEY = "tlnb.json"
"""Under this name each exported file holds what has to be known: preprocessing, class names, shapes."""
TOKENIZER = "tokenizer.json"
"""What the tokenizer is called that lies beside an exported text network."""


class Deployed(nn.Module):
    """Normalisation, network, and what scores mean, in one module.

    Takes pictures (B, C, H, W) at the network's size, uint8 in 0..255 or float32 in 0..1, or inputs of
    another kind just as they are; gives probabilities (B, classes) or values (B, values), float32.

    Args:
        model: gives scores (B, outputs).
        preprocess: of its pictures; None for inputs of another kind.
        task: what scores mean.
        floating: whether pixels are in 0..1.
    """

    scale: Tensor
    shift: Tensor
    unit: Tensor
    zero: Tensor

    def __init__(self, model: nn.Module, preprocess: Preprocess | None, task: object, floating: bool):
        super().__init__()
        self.names: tuple[str, ...] = ()
        self.model, self.task_kind = model, kind_of(task)
        self.pictures = preprocess is not None
        if preprocess is not None:
            top = 1.0 if floating else 255.0
            std, mean = (torch.tensor(v).view(-1, 1, 1) for v in (preprocess.std, preprocess.mean))
            self.register_buffer("scale", 1.0 / (top * std))
            self.register_buffer("shift", mean / std)
        if isinstance(task, Regression):
            self.register_buffer("unit", torch.tensor(task.std))
            self.register_buffer("zero", torch.tensor(task.mean))

    def at_rest(self) -> Self:
        """This network on the CPU, in test mode and without gradients; itself."""
        self.to("cpu")
        set_training(self, False)
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        return self

    def scores(self, pixels: Tensor) -> Tensor:
        """What the network itself gives for these samples."""
        x = pixels.to(torch.float32) * self.scale - self.shift if self.pictures else pixels
        return scores_of(self.model(x))

    def forward(self, pixels: Tensor) -> Tensor:
        """Probabilities or values of these samples."""
        return self.meant(self.scores(pixels))

    def meant(self, scores: Tensor) -> Tensor:
        """Probabilities or values of scores (B, outputs)."""
        if self.task_kind == "classes":
            return scores.softmax(1)
        return scores.sigmoid() if self.task_kind == "labels" else scores * self.unit + self.zero


class DeployedTexts(Deployed):
    """Network, and what scores mean, in one module; takes token numbers and what else the network does.

    Args:
        model: gives scores (B, outputs).
        names: of its inputs.
        task: what scores mean.
    """

    def __init__(self, model: nn.Module, names: tuple[str, ...], task: object):
        super().__init__(model, None, task, False)
        self.names = names

    def scores(self, pixels: Batch) -> Tensor:
        """What the network itself gives for these texts."""
        return scores_of(call(self.model, pixels))

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Probabilities or values of these texts, (B, tokens) each."""
        given = {IDS: input_ids, MASK: attention_mask, TYPES: token_type_ids}
        return self.meant(scores_of(self.model(**{name: given[name] for name in self.names})))


def deployed(model: nn.Module, samples: Samples, task: object, inputs: Batch) -> Deployed:
    """The module that is exported, for samples of a network.

    Raises:
        ExportError: a network of several inputs that are no texts.
    """
    if isinstance(samples, PictureSamples):
        return Deployed(model, samples.preprocess, task, inputs.is_floating_point())
    if not isinstance(inputs, Tree):
        return Deployed(model, None, task, inputs.is_floating_point())
    if not set(inputs) <= {IDS, MASK, TYPES}:
        raise ExportError(
            f"a network with the inputs {', '.join(inputs)} cannot be exported; one input, or texts, can"
        )
    return DeployedTexts(model, tuple(inputs), task)


def judgement(sure: Sure, network: Deployed, inputs: Batch, task: Objective) -> Judged | None:
    """How these samples are judged at the usual shares; None where there are too few validation samples for them.

    Args:
        sure: what answers are judged by.
        network: on the CPU.
        inputs: what it takes.
        task: what its scores mean.
    """
    if sure.samples < needed(SURE):
        return None
    with torch.no_grad():
        features, scores = watched(network.model, sure.reads, lambda: network.scores(inputs))  # type: ignore[arg-type]
    return sure.judge(task, features, scores, SURE)


def raw_inputs(samples: Samples, indices: Tensor) -> Batch:
    """What :class:`Deployed` takes for these samples."""
    found: Batch = samples.pixels(indices) if isinstance(samples, PictureSamples) else samples.batch(indices)
    return found


def example(inputs: Batch) -> tuple[tuple[Tensor, ...], dict[str, Tensor], Any]:
    """Two samples as arguments in order and by name, and which of their dimensions may have any size."""
    free = torch.export.Dim.DYNAMIC
    if isinstance(inputs, Tree):
        return (), dict(inputs[:2].items()), {name: {0: free, 1: free} for name in inputs}
    return (inputs[:2],), {}, ({0: free},)


def program_of(network: Deployed, inputs: Batch) -> torch.export.ExportedProgram:
    """The graph of the network for any batch size, pixels in, probabilities out.

    Raises:
        ExportError: torch cannot write its forward as a graph.
    """
    try:
        args, named, shapes = example(inputs)
        return torch.export.export(network, args, named, dynamic_shapes=shapes)
    except Exception as error:  # torch.export meets others' code with almost any exception
        raise ExportError(f"torch.export cannot take this network: {first_line(error)[:160]}") from None


def about(loaded: LoadedModel, data: Data, samples: Samples, tlnb_version: str) -> dict[str, Any]:
    """All that has to be known to use the network, as plain values."""
    pictures = isinstance(samples, PictureSamples)
    preprocess = samples.preprocess.to_dict() if isinstance(samples, PictureSamples) else None
    heard = _heard(data, samples)
    if isinstance(samples, TextSamples):
        preprocess = samples.preprocess.to_dict() | {"tokenizer": TOKENIZER}
    first = raw_inputs(samples, torch.tensor([0]))
    task = data.task
    return {
        "format": FORMAT,
        "written_by": f"tlnb {tlnb_version}, torch {torch.__version__}",
        "network": loaded.name,
        "weights_from": loaded.weights,
        "head": loaded.head,
        "task": kind_of(task),
        "classes": list(data.classes),
        "data": data.name,
        "input": {
            "shape": ["batch", *(first.shape[1:] if isinstance(first, Tensor) else ("tokens",))],
            "dtype": str(first.dtype).removeprefix("torch.") if isinstance(first, Tensor) else "int64",
            **({"names": list(first)} if isinstance(first, Tree) else {}),
            "what": _what(first, pictures) + _scale(data) if heard is None else _of_sound(pictures),
        },
        "preprocess": preprocess,
        **({"sound": heard} if heard is not None else {}),
        "output": "probabilities, one a class"
        if kind_of(task) != "values"
        else "values in the unit of the data",
        **({"mean": list(task.mean), "std": list(task.std)} if isinstance(task, Regression) else {}),
    }


def _heard(data: Data, samples: Samples) -> dict[str, Any] | None:
    """How sounds become input, as plain values; None where there are none."""
    if data.sound is None:
        return None
    front = samples.preprocess if isinstance(samples, FrameSamples) else data.sound
    return front.to_dict()


def _of_sound(pictures: bool) -> str:
    shown = "log-mel pictures of pieces of sound, pixels in 0..255, drawn as sound says and resized as preprocess says"
    pieces = "the answers of a clip's pieces are averaged"
    return (
        f"{shown if pictures else 'frames of sound as sound says, mean 0 and standard deviation 1'}; {pieces}"
    )


def _scale(data: Data) -> str:
    """How pictures on another scale, or of more bands, become such pixels."""
    scale = data.scale
    bands = f"; of the bands {', '.join(map(str, scale.bands))}" if scale.bands else ""
    if scale.white is None:
        return bands
    return f"; of values from {scale.low:g} (black) to {scale.white:g} (white){bands}"


def _what(first: Batch, pictures: bool) -> str:
    if isinstance(first, Tree):
        return f"token numbers of {TOKENIZER}, cut to the length that preprocess says, padded to the longest text"
    if not pictures:
        return "inputs as the network takes them"
    span = "0..1" if first.is_floating_point() else "0..255"
    return (
        f"pixels in {span}, resized and cropped as preprocess says; the mean is taken off inside, not before"
    )
