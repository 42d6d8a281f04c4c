"""Views of a session in a notebook: layers, learning rate, training, a map of samples, and a panel."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Where each view is; the modules need torch, so they are imported when a view is asked for.
_MODULES = {
    "LRPicker": "lr_picker",
    "LayerToggles": "layer_toggles",
    "Map": "map",
    "Panel": "panel",
    "Suspects": "suspects",
    "TrainingView": "training_part",
}
__all__ = ["LRPicker", "LayerToggles", "Map", "Panel", "Suspects", "TrainingView"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__  # what Tab offers
