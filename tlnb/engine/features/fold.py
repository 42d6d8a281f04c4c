"""A frozen part of a model on copies of its own, rewritten for inference: BatchNorm folded into convolutions.

In test mode BatchNorm is one multiplication and one addition a channel, which the weights of the layer before
it can take over (Jacob et al., arXiv 1712.05877, section 3.2).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import fusion

from tlnb.engine.core.modules import duplicate, exact
from tlnb.engine.core.tree import CROSSING, Batch, Tree
from tlnb.engine.network.forms import is_familiar
from tlnb.engine.network.parts import Prefix
from tlnb.engine.network.replay import ReplayPrefix
from tlnb.engine.network.trace import quiet
from tlnb.errors import ModelError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRIED_ON = 3  # samples
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def inference_copy(part: Prefix, *, folded: bool = True) -> fx.GraphModule:
    """The part on copies of its weights, in test mode and without gradients.

    The copy shares nothing with the model: what happens to one does not reach the other.

    Args:
        part: layers of a model.
        folded: put each BatchNorm into the convolution or linear layer before it, where it has one to itself.
    """
    own: fx.GraphModule = duplicate(part.graph_module())
    for module in own.modules():
        module.training = False
    for parameter in own.parameters():
        parameter.requires_grad_(False)
    if folded:
        _fold(own)
    return own


def _fold(graph_module: fx.GraphModule) -> None:
    modules = dict(graph_module.named_modules())
    calls = [node for node in graph_module.graph.nodes if node.op == "call_module"]
    for node in calls:
        inner = modules[str(node.target)]
        if any(inner.children()) and any(isinstance(m, _BatchNorm) for m in inner.modules()):
            graph_module.set_submodule(str(node.target), _opened(inner))
    counts: dict[int, int] = {}
    for node in calls:
        counts[id(modules[str(node.target)])] = counts.get(id(modules[str(node.target)]), 0) + 1
    for node in calls:
        pair = _pair(node, modules)
        if pair and all(counts[id(module)] == 1 for module in pair):
            _fuse(graph_module, node, *pair)
    graph_module.delete_all_unused_submodules()
    graph_module.graph.lint()
    graph_module.recompile()


def _opened(module: nn.Module) -> nn.Module:
    """The module with its own BatchNorms folded, or as it is where its forward cannot be traced."""
    try:
        opened = fx.symbolic_trace(module)
    except Exception:  # whatever its forward does with a stand-in for a tensor
        return module
    _fold(opened)
    return opened.eval()


def _pair(norm: fx.Node, modules: dict[str, nn.Module]) -> tuple[nn.Module, nn.Module] | None:
    """A layer and the BatchNorm behind it, where nothing else sees what is between them."""
    before = norm.args[0] if norm.args else None
    if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
        return None
    first, second = modules[str(before.target)], modules[str(norm.target)]
    fits = (type(first) in CONVOLUTIONS and type(second) in NORMS) or (
        type(first) is nn.Linear and type(second) is nn.BatchNorm1d
    )
    if not fits or second.running_mean is None or _hooked(first) or _hooked(second):
        return None
    return first, second


def _hooked(module: nn.Module) -> bool:
    # A hook may change what comes out between the two, or make the weights anew at each call.
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _fuse(graph_module: fx.GraphModule, norm: fx.Node, first: nn.Module, second: nn.Module) -> None:
    before = norm.args[0]
    assert isinstance(before, fx.Node)
    assert isinstance(second, _BatchNorm)
    if isinstance(first, nn.Linear):
        fused: nn.Module = fusion.fuse_linear_bn_eval(first, second)
    else:
        fused = fusion.fuse_conv_bn_eval(cast(nn.Conv2d, first), second)
    graph_module.set_submodule(str(before.target), fused.requires_grad_(False))
    norm.replace_all_uses_with(before)
    graph_module.graph.erase_node(norm)


FAR = 1e-3  # relative error of what crosses a cut, from which on a form computes something else


class FastPart:
    """A frozen part of a model that runs as inference on copies of its weights.

    A part with code that nobody here knows is first tried beside the part as it stands: with BatchNorm folded and
    images with channels last, then with images as usual, then with nothing folded. The first form that gives the
    same numbers is used from then on.

    Args:
        part: layers of a model.
        dtype: number format of its convolutions and linear layers, and of what it gives: float32 or bfloat16.
        channels_last: let images cross the cut as (B, H, W, C) in memory, which is how convolutions read them fastest.
    """

    def __init__(self, part: Prefix, dtype: torch.dtype = torch.float32, channels_last: bool = True):
        self.dtype, self.channels_last = torch.float32, channels_last
        self._part = part
        known = is_familiar(part.model)
        forms = (
            [(True, True), (True, False), (False, False)]
            if channels_last
            else [(True, False), (False, False)]
        )
        self._tried = known
        self._wanted = dtype
        while not self._made(*forms.pop(0)):
            if not forms:
                raise ModelError("the frozen layers hold something that cannot be copied")
        self._left = forms
        if known:
            self._convert(dtype)

    def _made(self, folded: bool, images_last: bool) -> bool:
        try:
            self._make(folded, images_last)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception:  # whatever an attribute of somebody else's raises when it is copied
            return False
        return True

    def _make(self, folded: bool, images_last: bool) -> None:
        """Copy the weights, in a form.

        Args:
            folded: put BatchNorm into the layer before it.
            images_last: give images and the weights of convolutions with channels last in memory.
        """
        self._form, self._run = (folded, images_last), inference_copy(self._part, folded=folded)
        if not images_last:
            return
        for module in self._run.modules():
            if isinstance(module, nn.Conv2d):
                module.to(memory_format=torch.channels_last)

    def to(self, device: torch.device) -> None:
        """Run on another device from now on."""
        self._run.to(device)

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs: the copies alone, once it is known that they compute what the part does."""
        return vars(self) | ({"_part": None} if self._tried else {})

    def in_bfloat16(self) -> FastPart:
        """The same part in bfloat16, on another copy of the weights."""
        other = FastPart(self._part, channels_last=self.channels_last)
        other._make(*self._form)
        other._left, other._tried, other._wanted = self._left, self._tried, torch.bfloat16
        if other._tried:
            other._convert(torch.bfloat16)
        return other

    def _convert(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        if dtype == torch.float32:
            return
        for module in self._run.modules():
            if type(module) in (*CONVOLUTIONS, nn.Linear):
                module.to(dtype)

    def _try(self, x: torch.Tensor) -> None:
        """Go over to the first form that gives what the part itself gives.

        Raises:
            ModelError: none does.
        """
        few = x[:_TRIED_ON]
        with quiet(self._part.model):
            wanted = self._part(few.clone(memory_format=torch.contiguous_format))
        while not self._agrees(few, wanted):
            if not (self._left and self._made(*self._left.pop(0))):
                raise ModelError("a copy of the frozen layers computes something else than they do")
        self._tried = True
        self._convert(self._wanted)

    def _agrees(self, x: torch.Tensor, wanted: torch.Tensor) -> bool:
        try:
            found = self._answer(x.clone())
        except Exception:  # whatever a forward raises on what it was not written for
            return False
        if found.shape != wanted.shape or found.dtype != wanted.dtype:
            return False
        true, other = exact(wanted.flatten(1)), exact(found.flatten(1))
        return bool(((other - true).norm(dim=1) <= FAR * true.norm(dim=1)).all()) or not true.isfinite().all()

    @torch.inference_mode()
    def __call__(self, x: Any) -> Any:
        """What crosses the cut behind the part for the batch ``x`` (B, ...), as an inference tensor."""
        if not self._tried:
            with torch.inference_mode(False):
                self._try(x.clone())
        return self._answer(x)

    @torch.inference_mode()
    def _answer(self, x: torch.Tensor) -> torch.Tensor:
        if self._form[1] and x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        elif x.dim() == 4:
            x = x.contiguous()
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            answer: torch.Tensor = self._run.forward(x)  # its call would print what it raises
        return answer.to(self.dtype) if answer.is_floating_point() else answer


class ReplayedPart:
    """A frozen part of a model that is replayed: the model's own modules as they stand, as inference.

    Args:
        part: layers of a model.
        dtype: float32, or bfloat16 for automatic precision.
    """

    channels_last = False

    def __init__(self, part: ReplayPrefix, dtype: torch.dtype = torch.float32):
        self._part, self.dtype = part, dtype

    def to(self, device: torch.device) -> None:
        """Run on another device from now on; the model goes there too."""
        self._part.model.to(device)

    def in_bfloat16(self) -> ReplayedPart:
        """The same part under automatic precision in bfloat16."""
        return ReplayedPart(self._part, torch.bfloat16)

    def __call__(self, x: Batch) -> Batch:
        """What crosses the cut behind the part for the batch ``x``."""
        short = self.dtype == torch.bfloat16
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=short):
            found: Batch = self._part(x)
        return _rounded(found) if short else found


def _rounded(x: Batch) -> Batch:
    if isinstance(x, Tree):
        return x.with_part(CROSSING, x[CROSSING].bfloat16())
    return x.bfloat16()


def fast_part(part: Prefix | ReplayPrefix, dtype: torch.dtype = torch.float32) -> FastPart | ReplayedPart:
    """The form of a frozen part in which it runs over samples."""
    return ReplayedPart(part, dtype) if isinstance(part, ReplayPrefix) else FastPart(part, dtype)
