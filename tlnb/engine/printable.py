"""Names from outside (folders, files, columns), safe to show in a terminal, a page or a picture."""

from __future__ import annotations

import unicodedata

# Joiners that Indic and Arabic words and many emoji are written with; harmless, unlike the other formatters.
_KEPT = {"\u200c", "\u200d"}


def printable(name: str) -> str:
    """The name with control characters, direction marks and undecodable bytes shown as their codes.

    A folder may be called ``\\x1b[2J``, which clears a terminal, or hold U+202E, which turns text around.
    """
    return "".join(c if _harmless(c) else c.encode("unicode_escape").decode() for c in name)


def few(names: tuple[str, ...], most: int = 8) -> str:
    """The names in a line, the middle left out where there are many."""
    if len(names) <= most:
        return ", ".join(names)
    return ", ".join(names[: most - 1]) + f", … {names[-1]}"


def _harmless(character: str) -> bool:
    return character in _KEPT or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
