"""What a person is told where data is refused, for tests that try many odd sources."""

from __future__ import annotations

from typing import Any

from tlnb.engine.data.load import load_data
from tlnb.errors import DataError


def refusal(source: object, **options: Any) -> str:
    """What is said where the data is refused; nothing where it is taken."""
    try:
        repr(load_data(source, **options))
    except DataError as error:
        return str(error)
    return ""
