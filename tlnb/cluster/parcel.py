"""What is sent to other machines, as bytes: by value where a notebook made it, and never bound to an accelerator."""

from __future__ import annotations

import io
from typing import Any

import torch

from tlnb.errors import NotReady


def pack(thing: Any) -> bytes:
    """The thing as bytes; tensors of an accelerator as those of main memory, classes of the notebook by value.

    Raises:
        NotReady: it holds something that exists in this process alone.
    """
    from ray import cloudpickle

    class Packer(cloudpickle.CloudPickler):  # type: ignore[misc,unused-ignore]
        def reducer_override(self, thing: Any) -> Any:
            if isinstance(thing, torch.storage.TypedStorage) and thing._untyped_storage.device.type != "cpu":
                here = thing._untyped_storage.cpu()
                return torch.storage.TypedStorage(here, dtype=thing.dtype, _internal=True).__reduce__()
            return super().reducer_override(thing)

    file = io.BytesIO()
    try:
        Packer(file, protocol=5).dump(thing)
    except Exception as error:  # another's object may refuse in its own way
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise NotReady(
            f"something here cannot be sent to other machines ({first}); %tl_cluster off, and it runs in this notebook"
        ) from None
    return file.getvalue()


def unpack(parcel: bytes) -> Any:
    """What :func:`pack` was given.

    The bytes come from this user's own processes, over a connection that asks for the cluster's token.
    """
    from ray import cloudpickle

    return cloudpickle.loads(parcel)
