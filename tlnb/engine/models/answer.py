"""What a module of the user's answers: whether those are scores, which layer makes them, and what closes them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tlnb.engine.core.objectives import Classification, MultiLabel, scores_of
from tlnb.engine.core.tree import Batch, Tree, call, named_parts, repeated
from tlnb.engine.models.loaded import LoadedModel
from tlnb.engine.network.forms import tensors_in
from tlnb.engine.network.reading import described_batch
from tlnb.engine.network.trace import quiet
from tlnb.errors import ModelError, first_line

_COUNTS = (3, 2, 5, 7, 4)  # samples to try with: as many as no other dimension of the input has
_SAME_NUMBERS = (
    "View", "Reshape", "Squeeze", "Unsqueeze", "Alias", "Clone", "Select", "ToCopy", "Permute", "Transpose", "Expand",
    "AsStrided", "Mul", "Div",
)  # fmt: skip
_CLOSING = {
    "SoftmaxBackward": "Softmax", "SigmoidBackward": "Sigmoid", "LogSoftmaxBackward": "LogSoftmax",
    "ReluBackward": "ReLU", "TanhBackward": "Tanh", "HardtanhBackward": "Hardtanh", "SoftplusBackward": "Softplus",
}  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """What a network answered to a few samples.

    Attributes:
        shape: of the scores, samples in front.
        samples: how many there were.
        layer: name of the layer whose output the scores are, or follow from by operations without weights; empty
            where there is not one alone.
        closing: the operation behind that layer which changes what scores mean, such as ``Softmax``; empty for none.
        others: shapes of further tensors in the answer.
    """

    shape: tuple[int, ...]
    samples: int
    layer: str
    closing: str
    others: tuple[tuple[int, ...], ...]

    @property
    def width(self) -> int | None:
        """Number of scores a sample; None where the answer has another form."""
        return self.shape[1] if len(self.shape) == 2 and self.shape[0] == self.samples else None


def answer_to(model: nn.Module, names: Collection[str], x: Batch) -> Answer:
    """Run a few samples and look at the answer; nothing of the model changes.

    Args:
        model: any module.
        names: of the layers that could make it.
        x: samples (B, ...).

    Raises:
        ModelError: the model does not run on them, or the answer holds no scores.
    """
    x = _distinct(x)
    made: list[tuple[str, Tensor, Any]] = []

    def watcher(name: str) -> Any:
        def after(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                made.append((name, output, output.grad_fn))

        return after

    modules, handles = dict(model.named_modules()), []
    try:
        for name in names:
            handles.append(modules[name].register_forward_hook(watcher(name)))
        output = _run(model, x, made)
    finally:
        for handle in handles:
            handle.remove()
    scores = scores_of(output)
    if scores.layout != torch.strided or not scores.dtype.is_floating_point:
        kind = str(scores.dtype if scores.layout == torch.strided else scores.layout).removeprefix("torch.")
        raise ModelError(f"the network answers scores of the kind {kind}; return a dense tensor in float32")
    others = tuple(tuple(t.shape) for t in tensors_in(output) if t is not scores)
    return Answer(tuple(scores.shape), len(x), _maker(scores, made), _closing(scores), others)


def _run(model: nn.Module, x: Batch, made: list[Any]) -> Any:
    """The answer, with the steps of autograd that led to it where the model takes an input with a gradient."""
    try:
        with quiet(model), torch.enable_grad():
            # A clone, since a forward may write to its input.
            if isinstance(x, Tree):
                return call(model, x.clone())
            return model(x.clone().requires_grad_().clone() if x.is_floating_point() else x)
    except Exception:  # such as one that makes an array of its input
        made.clear()
    try:
        with quiet(model):
            return call(model, x)
    except Exception as error:
        line = first_line(error)
        raise ModelError(f"the model cannot run on a batch of {described_batch(x)}: {line}") from error


def _distinct(x: Any) -> Any:
    """As many samples as no other dimension has, so that the one of the samples can be told."""
    sizes = {size for _, part in named_parts(x) for size in part.shape[1:]}
    count = next((count for count in _COUNTS if count not in sizes), _COUNTS[0])
    return repeated(x, count).detach().clone()


def _maker(scores: Tensor, made: list[tuple[str, Tensor, Any]]) -> str:
    for name, output, _ in reversed(made):
        if output is scores or (output.numel() == scores.numel() and output.data_ptr() == scores.data_ptr()):
            return name
    by_step = {step: (name, output) for name, output, step in made if step is not None}
    found: dict[str, Tensor] = {}
    for step in _steps_back(scores.grad_fn, by_step):
        weight = getattr(step, "variable", None)
        if isinstance(weight, nn.Parameter) and weight.dim() > 1:
            return ""  # a weight behind every such layer makes the scores, as in a cosine head
        if step in by_step:
            name, output = by_step[step]
            found[name] = output
    if not found and scores.grad_fn is None:
        return made[-1][0] if made else ""
    wide = [name for name, output in found.items() if scores.shape[-1:] == output.shape[-1:]]
    one = list(found) if len(found) == 1 else wide
    return one[0] if len(one) == 1 else ""


def _steps_back(start: Any, stop: Collection[Any]) -> Iterator[Any]:
    """The steps of autograd's graph from ``start`` back to those of ``stop``, which are not gone beyond."""
    ahead, seen = [start], set()
    while ahead:
        step = ahead.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        yield step
        if step not in stop:
            ahead += [before for before, _ in step.next_functions]


def _closing(scores: Tensor) -> str:
    step = scores.grad_fn
    while step is not None:
        name = type(step).__name__.rstrip("0123456789")
        if name in _CLOSING:
            return _CLOSING[name]
        if not any(name.startswith(same) for same in _SAME_NUMBERS) or not step.next_functions:
            break
        step = step.next_functions[0][0]
    shares = scores.detach()
    sums = shares.sum(-1) if shares.dim() == 2 and shares.shape[1] > 1 else None
    whole = (
        sums is not None
        and bool((shares >= 0).all())
        and torch.allclose(sums, torch.ones_like(sums), atol=1e-4)
    )
    return "Softmax" if whole else ""


def check_answer(loaded: LoadedModel, x: Batch, outputs: int) -> None:
    """See that the answer of a module of the user's is a row of scores for each sample.

    Args:
        loaded: the network.
        x: samples (B, ...) of the data, on the device of the network.
        outputs: how many scores the data asks for.

    Raises:
        ModelError: it is something else, and what.
    """
    if not loaded.own:
        return
    answer = answer_to(loaded.model, (), x)
    shape, name = answer.shape, loaded.name
    if not shape or shape[0] != answer.samples:
        recurrent = any(isinstance(m, nn.RNNBase) and not m.batch_first for m in loaded.model.modules())
        cure = "give its recurrent layer batch_first=True" if recurrent else "put the samples in front"
        raise ModelError(
            f"{name} answers {_written(shape)} to {answer.samples} samples, so its first dimension is not the samples; "
            f"{cure}"
        )
    if len(shape) == 1 and loaded.outputs in (None, outputs):
        raise ModelError(
            f"{name} answers one number for each sample without a dimension for it; return (B, 1)"
        )
    if len(shape) > 2:
        what = "a map" if len(shape) == 4 else "several rows"
        raise ModelError(
            f"{name} answers {what}, {_written(shape[1:])}, for each sample, and the data has one answer for each; "
            "take the mean over the other dimensions in its forward"
        )
    if loaded.outputs == outputs and len(shape) == 2 and shape[1] != outputs:
        raise ModelError(
            f"the head {loaded.head or name} has {outputs} outputs, but {name} answers {shape[1]} numbers for each "
            "sample; return the scores alone, or put them first"
        )


def notes_on_answer(loaded: LoadedModel, x: Batch, task: object) -> list[str]:
    """What to say of the answer of a module of the user's, now that its head fits the data; a line each.

    Args:
        loaded: the network.
        x: samples (B, ...), on the device of the network.
        task: what is learned.
    """
    if not loaded.own:
        return []
    answer, notes = answer_to(loaded.model, (), x), []
    if answer.others:
        rest = ", ".join(_written(shape[1:]) for shape in answer.others[:3])
        notes.append(
            f"{loaded.name} answers several tensors: the scores are the first (or what is called logits), "
            f"{_written(answer.shape[1:])}; not used: {rest}"
        )
    end = answer.closing
    if isinstance(task, Classification):
        harmful = end not in ("", "LogSoftmax")
        why = "cross-entropy takes scores as they are before it, so training is slow and its probabilities are flat"
    elif isinstance(task, MultiLabel):
        harmful = end != ""
        why = "the loss takes scores as they are before a sigmoid"
    else:
        harmful = end != ""
        why = "values are learned with mean 0 and deviation 1, which it cannot answer all"
    if harmful:
        notes.append(
            f"{loaded.name} ends in {end}: {why}; leave it out of the module, or, where it is a module of its own "
            "behind the head, %tl_head linear makes a head without it"
        )
    if loaded.behind and isinstance(loaded.model.get_submodule(loaded.behind), nn.Identity):
        notes.append(
            f"the activation behind the head ({loaded.behind}) is left out, since scores are learned before it"
        )
    return notes


def _written(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "one number"
