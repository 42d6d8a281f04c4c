"""The two parts of a cut model as modules that share everything with it and own nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Self

import torch
from torch import fx, nn
from torch.nn.modules.dropout import _DropoutNd

from tlnb.engine.network.tracing import Holder, own_name


class Part(nn.Module):
    """A view of some layers of a model.

    ``parameters()`` and ``buffers()`` list the model's own tensors under the model's own names, as far as
    this part uses them. It holds none itself: ``state_dict()`` is empty, ``to()`` moves nothing, ``train()``
    and ``eval()`` set the flag of the part alone and leave the modules in it as they are. A module of the
    model that is moved, loaded or put in another mode is so here too.
    """

    def __init__(self, holder: Holder, graph: fx.Graph):
        super().__init__()
        self._holder = (holder,)  # in a tuple, so that it is not registered as a sub-module
        self.graph = graph
        self._run = _compile(graph)

    @property
    def model(self) -> nn.Module:
        """The whole model."""
        return self._holder[0].model

    def graph_module(self) -> fx.GraphModule:
        """The part in test mode as a ``GraphModule`` of the shared modules, for passes that rewrite it."""
        return fx.GraphModule(self._holder[0], self.graph)

    def shared_modules(self) -> dict[str, nn.Module]:
        """The modules of the model that this part calls, by their names in the model."""
        modules = dict(self._holder[0].named_modules())
        names = dict.fromkeys(str(n.target) for n in self.graph.nodes if n.op == "call_module")
        return {own_name(name): modules[name] for name in names}

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """The model's parameters that this part uses, under their names in the model."""
        return self._used("named_parameters", prefix)

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """The model's buffers that this part uses, under their names in the model."""
        return self._used("named_buffers", prefix)

    def _used(self, method: str, prefix: str) -> Iterator[Any]:
        loose = {own_name(str(n.target)) for n in self.graph.nodes if n.op == "get_attr"}
        inside = {id(t) for m in self.shared_modules().values() for _, t in getattr(m, method)()}
        for name, tensor in getattr(self._holder[0].model, method)():
            if id(tensor) in inside or name in loose:
                yield (f"{prefix}.{name}" if prefix else name), tensor

    def train(self, mode: bool = True) -> Self:
        """Set the flag of this part alone; the shared modules keep their modes."""
        self.training = mode
        return self


class Prefix(Part):
    """The frozen first part: always in test mode, whatever the modes of its modules are.

    ``prefix(x)`` takes a batch of input (B, ...) and gives the one tensor (B, ...) that crosses the cut.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What crosses the cut for the batch ``x``."""
        self._holder[0].move_constants(x.device)
        active = [m for part in self.shared_modules().values() for m in part.modules() if m.training]
        try:
            for module in active:
                module.training = False
            return self._run(self._holder[0], x)
        finally:
            for module in active:
                module.training = True


class Tail(Part):
    """The second part: takes what crosses the cut (B, ...) and gives what the model gives.

    In training it runs the graph of training, so functional dropout acts; in test mode the other one. Modules
    obey their own flags. The input is never changed, also where the first operation works in place. What an
    auxiliary head that lies before the cut would add to the answer is None.
    """

    def __init__(self, holder: Holder, test: fx.Graph, train: fx.Graph):
        super().__init__(holder, test)
        self.train_graph = train
        self._run_train = self._run if train is test else _compile(train)
        self._keeps_input: dict[bool, bool] = {}
        # Dropout that works in place writes in training alone, so no look at a single call can tell.
        parts = (part for module in self.shared_modules().values() for part in module.modules())
        self._always_copy = any(isinstance(part, _DropoutNd) and part.inplace for part in parts)

    def forward(self, x: torch.Tensor) -> Any:
        """The model's answer, from the tensor ``x`` that crosses the cut."""
        self._holder[0].move_constants(x.device)
        run = self._run_train if self.training else self._run
        # The first call works on a copy and looks whether anything wrote into it; the version counter of a
        # tensor tells. A tensor of inference mode has none, so it is always copied.
        if self._keeps_input.get(self.training):
            return self._holder[0].as_answered(run(self._holder[0], x))
        copy = x.clone()
        answer = run(self._holder[0], copy)
        if not (copy.is_inference() or self._always_copy):
            self._keeps_input[self.training] = copy._version == 0
        return self._holder[0].as_answered(answer)


def _compile(graph: fx.Graph) -> Callable[[nn.Module, torch.Tensor], Any]:
    """The graph as a function of (holder, input). Names are looked up in the holder at every call."""
    graph.lint()
    code = graph.python_code("self")
    names: dict[str, Any] = dict(code.globals)
    exec(compile(code.src, "<tlnb graph>", "exec"), names)  # source that torch.fx wrote from the graph
    run: Callable[[nn.Module, torch.Tensor], Any] = names["forward"]
    return run
