"""A stand-in accelerator: importing this makes the PyTorch device ``sim``, which computes on the CPU.

A tensor on ``sim`` holds one on the CPU and passes every operation to it, so values are those of the CPU, bit for
bit. What mixes the two devices raises, as it does on a GPU; what CUDA takes from the CPU is taken here too: tensors
without dimensions, and the indices of ``x[indices]``. Autocast does nothing, and there are no streams and no figures
of memory. A process can have one such device, for good: import this in a process of its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils import backend_registration

aten = torch.ops.aten
COPIES = ("aten::_to_copy", "aten::copy_")  # between devices, which is what they are for
INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")


class Backend(backend_registration._DummyBackendModule):
    """What torch asks of ``torch.sim``; random numbers are those of the CPU."""

    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def synchronize(self, device: object = None) -> None:
        pass

    def manual_seed(self, seed: int) -> None:
        pass

    def manual_seed_all(self, seed: int) -> None:
        pass

    def get_rng_state(self, device: object = None) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: object = None) -> None:
        torch.set_rng_state(state)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


backend_registration._setup_privateuseone_for_python_backend("sim", backend_module=Backend())
DEVICE = torch.device("sim:0")


class SimTensor(Tensor):
    """A tensor on ``sim``; ``held`` is the tensor on the CPU that has its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> SimTensor:
        assert type(held) is Tensor, type(held)
        assert held.device.type == "cpu", held.device
        if (
            held.dtype == torch.float64 and held.dim()
        ):  # Apple's GPUs have none; torch's GradScaler knows that of them
            raise TypeError("Cannot convert a sim tensor to float64: the device has none")
        return Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(),
            dtype=held.dtype, layout=held.layout, device=DEVICE,
        )  # fmt: skip

    def __init__(self, held: Tensor):
        self.held = held

    @property
    def data(self) -> Tensor:  # type: ignore[override]
        return self.detach()

    @data.setter
    def data(self, new: SimTensor) -> None:  # how a module changes format in ``to``
        self.held = new.held
        Tensor.data.__set__(self, new)  # type: ignore[attr-defined]

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"SimTensor({self.held})"

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(function, args, kwargs or {})


def compute(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run one operation on the CPU.

    Raises:
        RuntimeError: some of its tensors are on ``sim`` and some are not.
    """
    here, name = any(isinstance(t, SimTensor) for t in _tensors(args, kwargs)), function._schema.name
    checked = (args[0], *args[2:]) if name in INDEXING else args
    elsewhere = [
        tuple(t.shape) for t in _tensors(checked, kwargs) if not isinstance(t, SimTensor) and t.dim() > 0
    ]
    if here and elsewhere and name not in COPIES:
        raise RuntimeError(f"all tensors have to be on one device: {name} got {elsewhere} of the CPU")
    target = kwargs.get("device")
    on_sim = here if target is None else torch.device(target).type == "sim"
    args_, kwargs_ = pytree.tree_map(lambda leaf: getattr(leaf, "held", leaf), (args, kwargs))
    if target is not None:
        kwargs_["device"] = torch.device("cpu")
    if kwargs_.get("pin_memory"):
        kwargs_["pin_memory"] = False
    answer = function(*args_, **kwargs_)
    if function is aten._local_scalar_dense.default or not function._schema.returns:
        return answer
    if function is aten.copy_.default or (_writes_first(function) and "batch_norm" not in name):
        return args[0]
    return pytree.tree_map(lambda leaf: _wrapped(leaf) if on_sim else leaf, answer)


def _tensors(args: Any, kwargs: dict[str, Any]) -> list[Tensor]:
    return [leaf for leaf in pytree.arg_tree_leaves(*args, **kwargs) if isinstance(leaf, Tensor)]


def _writes_first(function: Any) -> bool:
    arguments = function._schema.arguments
    return bool(arguments) and arguments[0].alias_info is not None and arguments[0].alias_info.is_write


def _wrapped(leaf: object) -> object:
    return SimTensor(leaf) if isinstance(leaf, Tensor) and not isinstance(leaf, SimTensor) else leaf


_library = torch.library.Library("_", "IMPL")  # the registrations live as long as it does
_library.fallback(lambda function, *args, **kwargs: compute(function, args, kwargs), "PrivateUse1")
_library.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
