"""How sure a share of a sample is."""

from __future__ import annotations

import math

Z95 = 1.959963984540054
"""The 97.5 % point of the normal distribution."""


def wilson(hits: int, count: int, z: float = Z95) -> tuple[float, float]:
    """The score interval for a share (Wilson 1927); it is right for small samples and shares near 0 or 1 too.

    Args:
        hits: how many of the samples have it.
        count: how many samples there are.
        z: point of the normal distribution; the usual one gives 95 %.

    Returns:
        Lower and upper bound in 0..1; (0, 1) where there are no samples.
    """
    if not count:
        return 0.0, 1.0
    share, square = hits / count, z * z
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = z / (1 + square / count) * math.sqrt(share * (1 - share) / count + square / (4 * count * count))
    # At the ends the bounds are exact; rounding must not move them.
    return max(0.0, middle - half) if hits else 0.0, min(1.0, middle + half) if hits < count else 1.0
