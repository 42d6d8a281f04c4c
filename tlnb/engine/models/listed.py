"""The networks that have a name, read out of torchvision's files: importing torch takes seconds, too long for a Tab."""

from __future__ import annotations

import re
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_REGISTERED = re.compile(
    r"^@register_model\((?:name=)?[\"']?(?P<given>\w*)[\"']?\)\n(?:@.*(?:\n[ )].*)*\n)*def (?P<own>\w+)",
    re.MULTILINE,
)


@cache
def listed_names() -> tuple[str, ...]:
    """What ``catalogue.names()`` gives, and ``timm/`` where timm is installed, without importing either or torch."""
    spec = None if "torchvision" in sys.modules else find_spec("torchvision")
    found: list[str] = []
    if spec is not None and spec.origin is not None:
        for file in Path(spec.origin).with_name("models").glob("*.py"):
            matches = _REGISTERED.finditer(file.read_text(encoding="utf-8"))
            found += [match["given"] or match["own"] for match in matches]
    timm = ("timm/",) if find_spec("timm") is not None else ()
    if found:
        return ("convnet5", *sorted(found), *timm)
    from tlnb.engine.models.catalogue import names

    return (*names(), *timm)
