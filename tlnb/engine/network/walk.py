"""Which modules are opened, and which of them start a layer.

The walk goes from the root down through containers, through any module that holds more than half of the
weights, and through any module around a stack of like blocks (a stage). What it does not open (a block, a
convolution, an attention layer) is whole: it stays one node of the graph, so it goes on obeying ``train()``
and ``eval()`` of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter

from tlnb.engine.network.all_layers import AllLayers
from tlnb.engine.network.forms import has_hooks
from tlnb.errors import ModelError

# Their insides are fused kernels or dynamic code, so the graph never goes in.
WHOLE = (
    nn.MultiheadAttention,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
    nn.RNNBase,
    nn.RNNCellBase,
)
# A map from features to features by a matrix, also where that matrix has one row or one entry.
MAPS = (_ConvNd, nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag, nn.RNNBase, nn.RNNCellBase)
# Weights that only scale and shift what a map has made.
SCALES = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.PReLU)


def is_container(module: nn.Module) -> bool:
    """Whether the module is a Sequential, ModuleList or ModuleDict without a forward of its own.

    A subclass of Sequential around one weight-bearing module (torchvision's ``Conv2dNormActivation``) is a
    named unit, not a container; a subclass with another forward is a block.
    """
    if isinstance(module, nn.Sequential):
        if type(module).forward is not nn.Sequential.forward:
            return False
        starters = [child for child in module.children() if starts_layer(child)]
        return type(module) is nn.Sequential or len(starters) != 1 or any(starters[0].children())
    if isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        return type(module).forward is nn.Module.forward
    return False


def starts_layer(module: nn.Module) -> bool:
    """Whether the module has a weight matrix: it is more than a norm, an activation or a scale."""
    if isinstance(module, SCALES):
        return False
    if any(isinstance(part, MAPS) for part in module.modules()):
        return True
    scaled = {id(p) for part in module.modules() if isinstance(part, SCALES) for p in part.parameters()}
    return any(p.numel() > max(p.shape, default=1) for p in module.parameters() if id(p) not in scaled)


def holds_stack(module: nn.Module) -> bool:
    """Whether the module wraps a stack: a container of two or more composite blocks of one class."""
    return any(is_container(child) and _is_stack(child) for child in module.children())


def _is_stack(container: nn.Module) -> bool:
    blocks = [child for child in container.children() if starts_layer(child)]
    composite = all(any(b.children()) and not isinstance(b, nn.Sequential) for b in blocks)
    return len(blocks) > 1 and len({type(b) for b in blocks}) == 1 and composite


def opened_modules(model: nn.Module) -> set[str]:
    """Qualified names of the modules that the walk opens; the root (``""``) is always one of them.

    Raises:
        ModelError: a lazy module has not made its weights yet.
    """
    for name, parameter in model.named_parameters():
        if isinstance(parameter, UninitializedParameter):
            raise ModelError(f"the weight {name!r} is not made yet; run one batch through the model first")
    half = sum(p.numel() for p in model.parameters()) / 2

    def opens(module: nn.Module) -> bool:
        if isinstance(module, (*WHOLE, AllLayers)) or not any(module.children()) or _is_scripted(module):
            return False
        if has_hooks(module):  # they would see stand-ins for tensors, once, in place of every batch
            return False
        heavy = sum(p.numel() for p in module.parameters()) > half
        return heavy or is_container(module) or holds_stack(module)

    opened: set[str] = set()

    def visit(name: str, module: nn.Module) -> None:
        opened.add(name)
        for child_name, child in module.named_children():
            if opens(child):
                visit(f"{name}.{child_name}" if name else child_name, child)

    visit("", model)
    return opened


def whole_modules(model: nn.Module, opened: set[str]) -> Iterator[tuple[str, nn.Module]]:
    """Name and module of each module that the walk meets and does not open, in the order of registration."""

    def visit(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        if name not in opened:
            yield name, module
            return
        for child_name, child in module.named_children():
            yield from visit(f"{name}.{child_name}" if name else child_name, child)

    yield from visit("", model)


def _is_scripted(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.jit")
