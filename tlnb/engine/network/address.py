"""From what a user types (``0:5``, ``-1:``, ``layer3``, ``features.*``, ``body``) to layer numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from itertools import islice
from typing import TYPE_CHECKING, Any

from tlnb.engine.core.arguments import others_code, shown
from tlnb.errors import AddressError, nearest

if TYPE_CHECKING:
    from tlnb.engine.network.layers import LayerMap

_LONGEST = 10_000  # characters of an address
WORDS = ("all", "body", "head", "none")
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}\Z")  # longer ones are no layers, and slow to read
_DASHED = re.compile(r"([0-9]{1,18})\s*(?:-|–|to|\.\.)\s*([0-9]{1,18})\Z")  # how people write a range
_END = r"([+-]?[0-9]{1,18})?"
_RANGE = re.compile(rf"{_END}\s*:\s*{_END}(?:\s*:\s*{_END})?\Z")


def select(text: Any, layers: LayerMap) -> tuple[int, ...]:
    """The layers that an address hits.

    Args:
        text: one or more of these with commas between: a number (``3``, ``-1``), a range as in Python
            (``0:5``, ``-1:``, ``:3``, ``::2``), the name of a layer or the first part of one up to a dot
            (``layer3``), a glob (``features.*``), ``body``, ``head``, ``all``, ``none``. Calls in Python may
            also give an int, a slice, a range or a sequence of these.
        layers: the layers of the model.

    Returns:
        Layer numbers from 0, sorted, each once. Only ``none`` gives an empty answer.

    Raises:
        AddressError: a part of the address hits nothing; one line, with the nearest right word and the
            layers.

    Example:
        >>> select("0:2, -1", layers)      # of eight layers
        (0, 1, 7)
    """
    if isinstance(text, str):
        if len(text) > _LONGEST:
            raise AddressError(f"an address of {len(text):,} characters names no layers{_listing(layers)}")
        parts = [part.strip() for part in text.split(",")]
        if not all(parts):
            raise AddressError(f"{text!r} has an empty place between its commas{_listing(layers)}")
        found = {index for part in parts for index in _select_word(part, layers)}
    else:
        found = set(_select_object(text, layers))
    return tuple(sorted(found))


def _select_object(value: Any, layers: LayerMap) -> Sequence[int]:
    if isinstance(value, bool) or value is None:
        raise AddressError(
            f"{shown(value)} is no layer address; write for example 'all' or 'none'{_listing(layers)}"
        )
    if isinstance(value, slice):
        ends = ("" if end is None else str(end) for end in (value.start, value.stop))
        step = "" if value.step is None else f":{value.step}"
        return _select_word(":".join(ends) + step, layers)
    with others_code(value, AddressError):
        if hasattr(value, "__index__") and getattr(value, "ndim", 0) == 0:
            return _select_word(str(value.__index__()), layers)
        if isinstance(value, Sequence) or hasattr(value, "__iter__"):
            items = list(islice(value, _LONGEST))
            if not any(item is value for item in items):
                return [index for item in items for index in select(item, layers)]
    raise AddressError(f"{shown(value)} is no layer address{_listing(layers)}")


def _select_word(word: str, layers: LayerMap) -> Sequence[int]:
    if word in WORDS:
        return {"all": range(len(layers)), "none": (), "body": layers.body, "head": layers.head}[word]
    if _NUMBER.match(word):
        index = int(word)
        if not -len(layers) <= index < len(layers):
            raise AddressError(f"no layer {word!r}{_listing(layers)}")
        return [index % len(layers)]
    if match := _RANGE.match(word):
        return _select_range(word, match, layers)
    return _select_name(word, layers)


def _select_range(word: str, match: re.Match[str], layers: LayerMap) -> Sequence[int]:
    start, stop, step = (None if end is None else int(end) for end in match.groups())
    size = len(layers)
    outside = (start is not None and not -size <= start < size) or (
        stop is not None and not -size <= stop <= size
    )
    found = range(size)[start:stop:step] if step != 0 else ()
    if outside or not found:
        raise AddressError(f"no layer {word!r}{_listing(layers)}")
    return found


def _select_name(word: str, layers: LayerMap) -> Sequence[int]:
    if any(mark in word for mark in "*?["):
        found = [i for i, name in enumerate(layers.names) if any(fnmatchcase(n, word) for n in _dotted(name))]
    else:
        found = [i for i, n in enumerate(layers.names) if n == word or n.startswith(word + ".")]
    if found:
        return found
    if dashes := _DASHED.match(word):
        low, high = int(dashes[1]), int(dashes[2])
        if low <= high < len(layers):
            raise AddressError(
                f"no layer {word!r}; did you mean '{low}:{high + 1}' (layers {low} to {high})?{_listing(layers)}"
            )
    holders = layers.holders(word)
    if holders:
        which = layers.describe(holders)
        raise AddressError(
            f"{word!r} lies inside {which}; layers are whole, so name {_whole(holders, layers)}"
        )
    options = [*WORDS, *layers.names, *_prefixes(layers.names)]
    near = nearest(word, options)
    meant = f" (nearest: {near!r})" if near else ""
    raise AddressError(f"no layer {word!r}{meant}{_listing(layers)}")


def _whole(indexes: Sequence[int], layers: LayerMap) -> str:
    return " or ".join(repr(layers[i].name) for i in indexes)


def _dotted(name: str) -> list[str]:
    """``layer1.0`` as ``["layer1", "layer1.0"]``."""
    parts = name.split(".")
    return [".".join(parts[:k]) for k in range(1, len(parts) + 1)]


def _prefixes(names: Sequence[str]) -> list[str]:
    """The first parts of all names, such as ``layer1`` of ``layer1.0``."""
    return sorted({prefix for name in names for prefix in _dotted(name)[:-1]})


def _listing(layers: LayerMap) -> str:
    """``; layers are 0-7: 0 features.0, 1 features.3, ...``; of many the middle is left out."""
    words = [f"{layer.index} {layer.name}" for layer in layers]
    if len(words) > 12:
        words = [*words[:6], "...", *words[-3:]]
    return f"; layers are 0-{len(layers) - 1}: {', '.join(words)}"
