"""Delays of steps by other work on the machine: the low quantile of their times, and when they count as delayed.

A step that is interrupted takes longer, never less. So the low quantile of many steps tells their time undisturbed, and
mean over low quantile (the delay) how much other work there was; processor time over wall time tells it too, for a step
that waits for nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["is_delayed", "is_starved", "low_quantile"]

_LOW = 0.2
_DELAYED = 2.0
"""Mean of steps in units of their low quantile, from which on they count as delayed."""
_FEW_PROCESSORS = 0.75
"""Processor time over wall time of a step that only computes, below which others had the processors."""
_UNEVEN = 1.25
"""Mean over low quantile, below which steps are as good as equal: a task may wait of itself."""


def low_quantile(values: Sequence[float], weights: Sequence[float] | None = None) -> float:
    """20th percentile: the smallest value that a fifth of the values, or of their weight, do not exceed.

    >>> low_quantile([5.0, 1.0, 2.0, 3.0, 4.0]), low_quantile([2.0, 3.0]), low_quantile([1.0] * 2 + [9.0] * 8)
    (1.0, 2.0, 1.0)
    >>> low_quantile([1.0, 2.0, 3.0], weights=[1.0, 8.0, 1.0])
    2.0
    """
    if weights is None:
        return sorted(values)[math.ceil(_LOW * len(values)) - 1]
    total, passed = sum(weights), 0.0
    ordered = sorted(zip(values, weights, strict=True))
    for value, weight in ordered:
        passed += weight
        if passed >= _LOW * total:
            return value
    return ordered[-1][0]


def is_delayed(delay: float) -> bool:
    """Whether steps waited as long as they computed: mean over low quantile is 2 or more."""
    return delay >= _DELAYED


def is_starved(delay: float, processors: float | None) -> bool:
    """Whether others had the processors: less than 0.75 of one for steps that are not all equal.

    Args:
        delay: mean of the steps over their low quantile.
        processors: processor time over wall time of steps that wait for nothing else; `None`: not known.
    """
    return processors is not None and processors < _FEW_PROCESSORS and delay >= _UNEVEN
