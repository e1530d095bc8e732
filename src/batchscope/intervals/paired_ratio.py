"""The ratio of two means that are measured in pairs, with Fieller's interval. Numbers only."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.special import stdtrit

from ..records import Estimate

__all__ = ["paired_ratio"]

_LEVEL = 0.95


def paired_ratio(pairs: Sequence[tuple[float, float]], unit: str = "") -> Estimate:
    """`mean(a) / mean(b)` over pairs (a, b), with the 90 % interval of Fieller (1954).

    The interval holds every ratio r for which the mean of `a − r b` is within t(0.95, n − 1) standard errors of zero.
    With a mean of b that could be zero there is no such interval, and its ends stay open; so for fewer than two pairs.

    Args:
        pairs: one a seed.
        unit: of the ratio.

    Returns:
        No value where the mean of b is zero.

    Valid where pairs are independent of one another and roughly normal; a and b of one pair may depend on each other.

    >>> e = paired_ratio([(2.0, 4.0), (3.0, 6.0), (2.5, 5.0)])
    >>> e.value, round(e.low, 9), round(e.high, 9)
    (0.5, 0.5, 0.5)
    """
    n = len(pairs)
    method = f"ratio of means over {n} pairs, 90 % interval of Fieller"
    a, b = (math.fsum(column) / n for column in zip(*pairs, strict=True)) if n else (0.0, 0.0)
    if b == 0.0:
        return Estimate(value=None, low=None, high=None, n=n, unit=unit, method=method)
    low, high = _ends(pairs, a, b)
    return Estimate(value=a / b, low=low, high=high, n=n, unit=unit, method=method)


def _ends(pairs: Sequence[tuple[float, float]], a: float, b: float) -> tuple[float | None, float | None]:
    """The roots of `(a − r b)² = t² var(a − r b)` in r."""
    n = len(pairs)
    if n < 2:
        return None, None
    scale = float(stdtrit(n - 1, _LEVEL)) ** 2 / (n * (n - 1))
    aa = scale * math.fsum((x - a) ** 2 for x, _ in pairs)
    bb = scale * math.fsum((y - b) ** 2 for _, y in pairs)
    ab = scale * math.fsum((x - a) * (y - b) for x, y in pairs)
    square, middle, constant = b * b - bb, a * b - ab, a * a - aa
    if square <= 0.0:
        return None, None
    root = math.sqrt(max(0.0, middle * middle - square * constant))
    return (middle - root) / square, (middle + root) / square
