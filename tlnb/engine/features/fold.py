"""A frozen part of a model on copies of its own, rewritten for inference: BatchNorm folded into convolutions.

In test mode BatchNorm is one multiplication and one addition a channel, which the weights of the layer before
it can take over (Jacob et al., arXiv 1712.05877, section 3.2).
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import fusion

from tlnb.engine.network.parts import Prefix

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def inference_copy(part: Prefix, *, folded: bool = True) -> fx.GraphModule:
    """The part on copies of its weights, in test mode and without gradients.

    The copy shares nothing with the model: what happens to one does not reach the other.

    Args:
        part: layers of a model.
        folded: put each BatchNorm into the convolution or linear layer before it, where it has one to itself.
    """
    own = copy.deepcopy(part.graph_module()).eval().requires_grad_(False)
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


class FastPart:
    """A frozen part of a model that runs as inference on copies of its weights.

    Args:
        part: layers of a model.
        dtype: number format of its convolutions and linear layers, and of what it gives: float32 or bfloat16.
        channels_last: keep images as (B, H, W, C) in memory, which is how convolutions read them fastest.
    """

    def __init__(self, part: Prefix, dtype: torch.dtype = torch.float32, channels_last: bool = True):
        self.dtype, self.channels_last = torch.float32, channels_last
        self._run = inference_copy(part)
        if channels_last:
            self._run.to(memory_format=torch.channels_last)
        if dtype != torch.float32:
            self._convert(dtype)

    def in_bfloat16(self) -> FastPart:
        """The same part in bfloat16, on another copy of the weights."""
        part = copy.deepcopy(self)
        part._convert(torch.bfloat16)
        return part

    def _convert(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        for module in self._run.modules():
            if type(module) in (*CONVOLUTIONS, nn.Linear):
                module.to(dtype)

    @torch.inference_mode()
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """What crosses the cut behind the part for the batch ``x`` (B, ...), as an inference tensor."""
        if self.channels_last and x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            answer: torch.Tensor = self._run(x)
        return answer.to(self.dtype) if answer.is_floating_point() else answer
