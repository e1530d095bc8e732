"""Number of threads of a step on a CPU: all of them, or one where that is clearly faster.

Threads of one step have to be woken and waited for, which costs a step of a small model more than they save. Where
other work takes their cores they wait for one another: many steps then take a hundred times as long.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median

__all__ = ["one_thread_is_faster"]

_CLEARLY = 1.05
"""A smaller gain is not worth a setting."""
_STANDARD_ERRORS = 3.0
"""A gain below so many is not clear: several sizes are compared, and none is to change by chance."""
_ERROR_OF_A_MEDIAN = 1.2533 * 1.4826
"""Standard error of the median of n normal values, in median absolute deviations divided by sqrt(n)."""
_FIGHT, _ENOUGH = 2.0, 5
"""Threads fight where the upper quartile of their steps, of five at least, is so many times that of one thread."""
_LEAST_SPREAD = 0.1
"""Relative spread of single steps below which few of them are not believed."""


def one_thread_is_faster(
    every: Sequence[float], one: Sequence[float], typical: Callable[[Sequence[float]], float] = median
) -> bool:
    """Whether steps of one thread are faster than those of all threads, beyond 5 % and the spread of both.

    The gain counts where it exceeds `exp(3 se)`, with `se` the standard error of the logarithm of the ratio of two
    medians; so where nothing is clear, the number of threads stays what it is. One is also faster where the threads of
    a step fight: a quarter of the steps then takes most of a training's time.

    Args:
        every: seconds of steps of all threads, at least one.
        one: seconds of steps of one thread; empty where they were not timed.
        typical: time of a step from those of many: their median, or on a busy machine a lower quantile.

    Example:
        >>> one_thread_is_faster([2.4e-4] * 10, [1.6e-4] * 10), one_thread_is_faster([1.6e-4] * 10, [1.58e-4] * 10)
        (True, False)
        >>> one_thread_is_faster([1.1e-4], [1.0e-4]), one_thread_is_faster([1.0], [])
        (False, False)
        >>> one_thread_is_faster([2e-4] * 6 + [0.1] * 4, [3e-4] * 10, min)
        True
    """
    if not one:
        return False
    if min(len(every), len(one)) >= _ENOUGH and _upper_quartile(every) >= _FIGHT * _upper_quartile(one):
        return True
    gain = typical(every) / typical(one) if typical(one) > 0 else 1.0
    return gain > max(_CLEARLY, math.exp(_STANDARD_ERRORS * math.hypot(_standard_error(every), _standard_error(one))))


def _upper_quartile(seconds: Sequence[float]) -> float:
    return sorted(seconds)[(3 * len(seconds)) // 4]


def _standard_error(seconds: Sequence[float]) -> float:
    """Standard error of the logarithm of their median."""
    middle = median(seconds)
    deviation = median(abs(each - middle) for each in seconds) / middle if middle > 0 else 0.0
    return max(_ERROR_OF_A_MEDIAN * deviation, _LEAST_SPREAD) / math.sqrt(len(seconds))
