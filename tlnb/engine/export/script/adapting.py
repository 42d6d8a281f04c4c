"""The part of a script that adds adapters to weights: the very code that the session did it with."""

from __future__ import annotations

import inspect

from tlnb.engine.export.script.job import Job
from tlnb.engine.network import adapters

_CARRIED = (
    adapters.adapter_names, adapters.effective, adapters.adapted_class, adapters.adapted_again, adapters.words_in,
    adapters.set_adapted, adapters.attach, adapters.detach, adapters.attached, adapters.merge,
)  # fmt: skip
_IS_ADAPTER = '''def is_adapter(name):
    """Whether the parameter of this name is added to a weight."""
    return name.rpartition(".")[2].startswith("adapt_")'''


def adapters_code(job: Job, imports: set[str]) -> str:
    """What adapters need; empty where there are none.

    Args:
        job: what was done.
        imports: more are added.
    """
    if not job.adapts:
        return ""
    imports |= {
        "import math", "from collections.abc import Iterable, Mapping", "from torch import Tensor",
        "from typing import Any",
    }  # fmt: skip
    code = "\n\n\n".join(inspect.getsource(function).rstrip() for function in _CARRIED)
    rule = "# Adapters: what is learned beside weights that stay (LoRA, Hu et al. 2022)"
    constants = f"SCALE = {adapters.SCALE}\n_classes = {{}}"
    return "\n\n\n".join([f"{rule}\n\n{constants}", code, _IS_ADAPTER])
