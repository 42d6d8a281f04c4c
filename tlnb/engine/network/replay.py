"""A cut without a traced graph: the model's own forward runs, and what is known already stands in for its modules.

Networks that take several inputs, and those of transformers, cannot be traced: their forwards ask for shapes and
masks, and decide by them. But they call their blocks one after another. So a part behind a cut runs the forward as it
stands; each module before the cut answers, without computing, an empty tensor of the right shape, and the last of them
answers what crosses. That this is all which crosses is tried out: with NaN in all empty tensors the answer is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from tlnb.engine.core.tree import CROSSING, Batch, Tree, call, repeated, width_of
from tlnb.engine.network.forms import tensors_in
from tlnb.engine.network.trace import flags, quiet
from tlnb.errors import ModelError

OTHER_ORDER = "the network calls its modules in another order than when it was loaded"
_MISSING = object()
_ROWS = (3, 5)  # samples in the two runs by which dimensions are told from one another
OnCall = Callable[[int, str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


class _Reached(BaseException):
    """Carries what a module answered past the rest of the forward; no handler of somebody else's takes it."""

    def __init__(self, answer: Any):
        super().__init__()
        self.answer = answer


@contextmanager
def intercepted(model: nn.Module, names: Collection[str], on_call: OnCall) -> Any:
    """Inside, calls of the named modules go to ``on_call(number, name, forward, args, named)``."""
    modules, counter = dict(model.named_modules()), iter(range(1 << 62))
    before: list[tuple[nn.Module, Any]] = []

    def called(name: str, forward: Callable[..., Any], *args: Any, **named: Any) -> Any:
        return on_call(next(counter), name, forward, args, named)

    try:
        for name in names:
            own = modules[name].__dict__
            before.append((modules[name], own.get("forward", _MISSING)))
            own["forward"] = partial(called, name, modules[name].forward)
        yield
    finally:
        for module, forward in reversed(before):
            if forward is _MISSING:
                vars(module).pop("forward", None)
            else:
                vars(module)["forward"] = forward


@dataclass(frozen=True)
class _Leaf:
    """A tensor of an answer: its dimensions as (numbers, samples, tokens), see :func:`_dimension`, and its type."""

    dims: tuple[tuple[int, bool, bool], ...]
    dtype: torch.dtype

    def empty(self, rows: int, width: int, device: torch.device, fill: float) -> Tensor:
        shape = [
            n * (rows if by_row else 1) * (width if by_width else 1) for n, by_row, by_width in self.dims
        ]
        value = fill if self.dtype.is_floating_point else 0
        return torch.full((), value, dtype=self.dtype, device=device).expand(shape)


class _Shapeless(Exception):
    """The shape of an answer does not follow from the number of samples and tokens."""


def _dimension(
    sizes: tuple[int, int], rows: tuple[int, int], widths: tuple[int, int]
) -> tuple[int, bool, bool]:
    """One dimension as a number times the samples, the tokens, or both, by its size in two runs."""
    for by_row in (False, True):
        for by_width in (False, True):
            units = [(r if by_row else 1) * (w if by_width else 1) for r, w in zip(rows, widths, strict=True)]
            if all(s % u == 0 for s, u in zip(sizes, units, strict=True)):
                counts = {s // u for s, u in zip(sizes, units, strict=True)}
                if len(counts) == 1:
                    return counts.pop(), by_row, by_width
    raise _Shapeless


class _Template:
    """The form of what a module answers, so that an empty one can be made.

    Args:
        answers: of the module in two runs.
        rows: samples in each.
        widths: tokens in each; 1 where there are none.
    """

    def __init__(self, answers: tuple[Any, Any], rows: tuple[int, int], widths: tuple[int, int]):
        self._rows, self._widths = rows, widths
        self.leaves: list[_Leaf] = []
        self._make = self._maker(*answers)

    def _maker(self, one: Any, other: Any) -> Callable[[Any], Any]:
        if isinstance(one, Tensor) and isinstance(other, Tensor) and one.dim() == other.dim():
            pairs = zip(one.shape, other.shape, strict=True)
            dims = tuple(_dimension(pair, self._rows, self._widths) for pair in pairs)
            self.leaves.append(_Leaf(dims, one.dtype))
            return partial(lambda number, made: made(number), len(self.leaves) - 1)
        if type(one) is not type(other):
            raise _Shapeless
        if isinstance(one, dict):
            if list(one) != list(other):
                raise _Shapeless
            parts = {key: self._maker(one[key], other[key]) for key in one}
            kind: Any = type(one)
            if kind is dict:
                return lambda made: {key: make(made) for key, make in parts.items()}
            return lambda made: kind(**{key: make(made) for key, make in parts.items()})
        if isinstance(one, tuple | list):
            if len(one) != len(other):
                raise _Shapeless
            makers = [self._maker(a, b) for a, b in zip(one, other, strict=True)]
            kind = type(one)
            if hasattr(one, "_fields"):
                return lambda made: kind(*(make(made) for make in makers))
            return lambda made: kind(make(made) for make in makers)
        try:
            if not (one is None or bool(one == other)):
                raise _Shapeless
        except (RuntimeError, ValueError, TypeError):
            raise _Shapeless from None
        return lambda made: one

    def filled(
        self, rows: int, width: int, device: torch.device, fill: float, crossing: Mapping[int, Tensor]
    ) -> Any:
        """An answer of that form: empty but for the tensors in ``crossing``, by number."""

        def made(number: int) -> Tensor:
            known = crossing.get(number)
            return self.leaves[number].empty(rows, width, device, fill) if known is None else known

        return self._make(made)


@dataclass(frozen=True)
class Crossing:
    """Where a model can be cut.

    Attributes:
        calls: how many calls of modules lie before the cut.
        source: number of the call whose answer holds what crosses: the last of them that computes something.
        leaf: number of the tensor in that answer.
        ragged: whether its second dimension is that of the tokens.
        live: numbers of calls before the cut that run all the same, since what they make of places and shapes alone
            (rotations, biases by distance) is needed behind it.
    """

    calls: int
    source: int
    leaf: int
    ragged: bool
    live: frozenset[int] = frozenset()


class Recording:
    """The calls of a model's modules in order, and where between them it can be cut.

    Args:
        model: any module.
        names: modules that are watched; none lies in another.
        x: a batch.

    Raises:
        ModelError: the calls are others in training, or with other samples.
    """

    def __init__(self, model: nn.Module, names: Collection[str], x: Batch):
        self.model = model
        batches = (repeated(x, _ROWS[0]), _narrower(repeated(x, _ROWS[1])))
        self._x = batches[0]
        runs = [_record(model, names, batch) for batch in batches]
        self.names = tuple(name for name, _ in runs[0][0])
        in_training = _record(model, names, batches[0], training=True)[0]
        if any(tuple(name for name, _ in calls) != self.names for calls in (runs[1][0], in_training)):
            raise ModelError(OTHER_ORDER)
        self._answers, self._answer = [answer for _, answer in runs[0][0]], runs[0][1]
        widths = width_of(batches[0]) or 1, width_of(batches[1]) or 1
        self.templates: list[_Template | None] = []
        for (_, one), (_, other) in zip(runs[0][0], runs[1][0], strict=True):
            try:
                self.templates.append(_Template((one, other), _ROWS, widths))
            except _Shapeless:
                self.templates.append(None)
        self.takes_tree = isinstance(x, Tree)
        # Pictures are not read again for a part that does not look at them.
        self.shape = () if isinstance(x, Tree) else tuple(x.shape[1:])
        self.dtype = torch.float32 if isinstance(x, Tree) else x.dtype
        self._found: dict[int, Crossing | None] = {}

    def shape_of(self, number: int) -> tuple[int, ...] | None:
        """Shape of the first tensor that a call answered, with the samples in front."""
        found = tensors_in(self._answers[number])
        return tuple(found[0].shape) if found else None

    def crossing(self, calls: int) -> Crossing | None:
        """The cut behind so many calls; None where more than one tensor crosses there."""
        if calls not in self._found:
            self._found[calls] = self._try(calls)
        return self._found[calls]

    def _try(self, calls: int) -> Crossing | None:
        modules = dict(self.model.named_modules())
        light = [number for number in range(calls) if _is_light(modules[self.names[number]])]
        heavy = max((number for number in range(calls) if number not in light), default=calls - 1)
        for source in dict.fromkeys((calls - 1, heavy)):
            for live in (frozenset[int](), frozenset(light) - {source}):
                found = self._try_source(calls, source, live)
                if found is not None:
                    return found
        return None

    def _try_source(self, calls: int, source: int, live: frozenset[int]) -> Crossing | None:
        template = self.templates[source]
        if template is None or any(t is None for n, t in enumerate(self.templates[:calls]) if n not in live):
            return None
        leaves = [
            number
            for number, leaf in enumerate(template.leaves)
            if leaf.dtype.is_floating_point and leaf.dims and leaf.dims[0] == (1, True, False)
        ]
        known = _tensors(self._answers[source])
        for number in leaves:
            ragged = template.leaves[number].dims[1:2] == ((1, False, True),)
            found = Crossing(calls, source, number, ragged, live)
            try:
                with quiet(self.model):
                    answer = self.play(found, None, self._behind(found, known[number]), fill=float("nan"))
            except Exception:  # whatever a forward raises on what it was not written for
                continue
            if _equal(answer, self._answer):
                return found
        return None

    def _behind(self, crossing: Crossing, value: Tensor) -> Batch:
        if isinstance(self._x, Tree):
            return self._x.with_part(CROSSING, value)
        return value

    def play(self, start: Crossing | None, stop: Crossing | None, x: Batch, fill: float = 0.0) -> Any:
        """Run the model's forward between two cuts.

        Args:
            start: the cut at which ``x`` enters; None for the model's own input.
            stop: the cut whose crossing tensor is the answer; None for the model's own answer.
            x: a batch; behind a cut a tree has the crossing tensor beside the inputs.
            fill: what empty tensors hold.

        Raises:
            ModelError: the modules are called in another order than before.
        """
        inputs, value = self._apart(start, x)
        first, last = (start.calls if start else 0), (stop.source + 1 if stop else 0)
        if not first and not last:
            return call(self.model, inputs)
        rows, width, device = len(x), width_of(x) or 1, x.device

        def on_call(
            number: int, name: str, forward: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]
        ) -> Any:
            if number >= max(first, last):
                return forward(*args, **named)  # a module that is called again behind the cut
            if self.names[number] != name:
                raise ModelError(OTHER_ORDER)
            template = self.templates[number]
            if number < first and start is not None and template is not None and number not in start.live:
                known = {start.leaf: value} if number == start.source and value is not None else {}
                return template.filled(rows, width, device, fill, known)
            answer = forward(*args, **named)
            if number == last - 1:
                raise _Reached(answer)
            return answer

        names = dict.fromkeys(self.names[: max(first, last)])
        try:
            with intercepted(self.model, names, on_call):
                answer = call(self.model, inputs)
        except _Reached as reached:
            assert stop is not None
            return _tensors(reached.answer)[stop.leaf]
        if stop is not None:
            raise ModelError(OTHER_ORDER)
        return answer

    def _apart(self, start: Crossing | None, x: Batch) -> tuple[Batch, Tensor | None]:
        if start is None:
            return x, None
        if isinstance(x, Tree):
            return x.without(CROSSING), x[CROSSING]
        return torch.zeros((), dtype=self.dtype, device=x.device).expand(len(x), *self.shape), x


def _is_light(module: nn.Module) -> bool:
    """Whether a module costs next to nothing: a table that is looked up, or no weights at all."""
    return isinstance(module, nn.Embedding) or not any(True for _ in module.parameters())


def _record(
    model: nn.Module, names: Collection[str], x: Batch, *, training: bool = False
) -> tuple[list[tuple[str, Any]], Any]:
    """The calls in order with their answers, and the answer of the model."""
    calls: list[tuple[str, Any]] = []

    def on_call(
        number: int, name: str, forward: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        calls.append((name, None))
        answer = forward(*args, **named)
        calls[number] = (name, answer)
        return answer

    with quiet(model), flags(model, training), intercepted(model, names, on_call):
        answer = call(model, x)
    return calls, answer


def _narrower(x: Any) -> Any:
    """The same texts with one token less; pictures as they are."""
    width = width_of(x)
    if width is None or width < 2:
        return x
    return x.map(lambda part: part[:, :-1] if part.dim() > 1 and part.shape[1] == width else part)


def _tensors(answer: Any) -> list[Tensor]:
    """The tensors of an answer in the order of its template."""
    if isinstance(answer, Tensor):
        return [answer]
    values = (
        answer.values() if isinstance(answer, dict) else answer if isinstance(answer, tuple | list) else ()
    )
    return [tensor for value in values for tensor in _tensors(value)]


def _equal(one: Any, other: Any) -> bool:
    pairs = tensors_in(one), tensors_in(other)
    return bool(pairs[0]) and len(pairs[0]) == len(pairs[1]) and all(map(torch.equal, *pairs))


class Replay:
    """A model that can be cut between layers by replaying its own forward; see :class:`graph.Graph` for the other way.

    Args:
        recording: of the model.
        starts: for each layer the number of the call in which it starts.
    """

    def __init__(self, recording: Recording, starts: Sequence[int]):
        self.recording, self.model, self.starts = recording, recording.model, tuple(starts)
        self._bounds: dict[int, Crossing | None] = {0: None}
        for cut in range(1, len(starts)):
            found = recording.crossing(starts[cut]) if starts[cut] > starts[cut - 1] else None
            if found is not None:
                self._bounds[cut] = found

    @property
    def cuts(self) -> tuple[int, ...]:
        """The possible cuts in rising order. Cut k has layers 0..k-1 before it; 0 is always one."""
        return tuple(self._bounds)

    def crossing(self, cut: int) -> Crossing | None:
        """What crosses at a cut; None at the input.

        Raises:
            ModelError: there is no clean cut at this place.
        """
        if cut not in self._bounds:
            places = ", ".join(str(k) for k in self.cuts)
            raise ModelError(f"the network has no clean cut before layer {cut}; cuts are {places}")
        return self._bounds[cut]

    def ragged(self, cut: int) -> bool:
        """Whether what crosses has a row for each token."""
        found = self.crossing(cut)
        return found is not None and found.ragged

    def outdated(self) -> str:
        """Empty: the model's own forward runs, whatever it has become."""
        return ""

    def only_in_training(self) -> list[tuple[str, int]]:
        """None: the calls are the same in training."""
        return []

    def mode_dependent_layers(self) -> set[int]:
        """None: each module obeys its own mode."""
        return set()

    def segment(self, start: int, cut: int) -> ReplayPrefix:
        """Layers start..cut-1 in test mode: takes what crosses at ``start``, gives what crosses at ``cut``."""
        return ReplayPrefix(self, start, cut)

    def tail(self, cut: int, frozen: Collection[int] = ()) -> ReplayTail:
        """The part from layer ``cut`` on; modules of frozen layers obey their own modes."""
        return ReplayTail(self, cut)

    def split(self, cut: int) -> tuple[ReplayPrefix, ReplayTail]:
        """The model in two parts."""
        return self.segment(0, cut), self.tail(cut)


class ReplayPart(nn.Module):
    """A part of a model; it owns nothing, and ``train()`` sets its own flag alone."""

    def __init__(self, replay: Replay, start: int, cut: int | None):
        super().__init__()
        self._replay = (replay,)  # in a tuple, so that nothing of the model is registered here
        self._ends = replay.crossing(start), None if cut is None else replay.crossing(cut)

    @property
    def model(self) -> nn.Module:
        """The whole model."""
        return self._replay[0].model

    def shared_modules(self) -> dict[str, nn.Module]:
        """The modules of the model that this part calls, by their names in the model."""
        names, (start, stop) = self._replay[0].recording.names, self._ends
        chosen = names[(start.calls if start else 0) : (stop.calls if stop else None)]
        return {name: self.model.get_submodule(name) for name in dict.fromkeys(chosen)}

    def train(self, mode: bool = True) -> Self:
        """Set the flag of this part alone; the modules of the model keep their modes."""
        self.training = mode
        return self

    def _play(self, x: Batch) -> Any:
        return self._replay[0].recording.play(*self._ends, x)


class ReplayPrefix(ReplayPart):
    """Some frozen layers: always in test mode and without gradients, whatever the modes of its modules are.

    It takes a batch as it enters there, and gives what crosses behind it: a tensor, or, for a network that takes a
    tree, the inputs with that tensor as ``crossing``.
    """

    def forward(self, x: Batch | None = None, **parts: Tensor) -> Batch:
        """What crosses the cut."""
        given: Batch = Tree(parts) if x is None else x
        with torch.no_grad(), flags(self.model, False):
            found: Tensor = self._play(given)
        return given.with_part(CROSSING, found) if isinstance(given, Tree) else found


class ReplayTail(ReplayPart):
    """The second part: takes what crosses the cut and gives what the model gives, in the modes of its modules."""

    def __init__(self, replay: Replay, start: int):
        super().__init__(replay, start, None)

    def forward(self, x: Batch | None = None, **parts: Tensor) -> Any:
        """The model's answer."""
        return self._play(Tree(parts) if x is None else x)
