"""How far two series of numbers rise together, by their ranks alone. Numbers only."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["rank_correlation"]


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's coefficient, equal values sharing the mean of their ranks: 1 where one rises with the other, always.

    `None` for fewer than 3 pairs, or where one of the series does not vary.

    >>> rank_correlation([1.0, 2.0, 3.0], [10.0, 40.0, 90.0])
    1.0
    >>> round(rank_correlation([1.0, 2.0, 3.0, 4.0], [3.0, 3.0, 1.0, 1.0]), 3)
    -0.894
    """
    if len(x) < 3:
        return None
    a, b = _ranks(x), _ranks(y)
    middle = (len(x) - 1) / 2
    across = math.fsum((p - middle) * (q - middle) for p, q in zip(a, b, strict=True))
    spread = math.fsum((p - middle) ** 2 for p in a) * math.fsum((q - middle) ** 2 for q in b)
    return across / math.sqrt(spread) if spread else None


def _ranks(values: Sequence[float]) -> list[float]:
    below = [sum(other < value for other in values) for value in values]
    return [low + (values.count(value) - 1) / 2 for low, value in zip(below, values, strict=True)]
