"""How much results scatter, and which of two scatters more: standard deviations with intervals. Numbers only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import stdev

from scipy.special import chdtri, fdtri

from ..records import Estimate

__all__ = ["deviation_of", "deviation_ratio"]

_TAIL = 0.05


def deviation_of(values: Sequence[float], unit: str = "") -> Estimate:
    """The standard deviation `s` of independent values with its 90 % interval from the chi-square distribution.

    The ends are `s √((n − 1) / q)`, q being the upper and the lower 5 % point of chi-square with n − 1 degrees of
    freedom; for fewer than two values there is none. Valid where the values are normal: long tails make it too short.

    >>> e = deviation_of([1.0, 2.0, 3.0, 4.0, 5.0])
    >>> round(e.value, 4), round(e.low, 4), round(e.high, 4)
    (1.5811, 1.0266, 3.751)
    """
    n = len(values)
    if n < 2:
        return Estimate(value=None, low=None, high=None, n=n, unit=unit, method="no spread of fewer than two values")
    s = stdev(values)
    low, high = (s * math.sqrt((n - 1) / float(chdtri(n - 1, p))) for p in (_TAIL, 1 - _TAIL))
    return Estimate(
        value=s, low=low, high=high, n=n, unit=unit, method=f"deviation of {n} values, 90 % chi-square interval"
    )


def deviation_ratio(over: Sequence[float], under: Sequence[float]) -> Estimate:
    """The ratio of two standard deviations of independent values with its 90 % interval from the F distribution.

    With variances of n and m values the ends are `ratio / √F(0.95; n − 1, m − 1)` and `ratio √F(0.95; m − 1, n − 1)`.
    Valid where the values are normal. Without a value where there are fewer than two, or the latter do not vary.

    >>> e = deviation_ratio([2.0, 4.0, 6.0, 8.0, 10.0], [1.0, 2.0, 3.0, 4.0, 5.0])
    >>> round(e.value, 4), round(e.low, 4), round(e.high, 4)
    (2.0, 0.7913, 5.055)
    """
    n, m = len(over), len(under)
    method = f"ratio of the deviations of {n} and {m} values, 90 % F interval"
    below = stdev(under) if m > 1 else 0.0
    if n < 2 or below == 0.0:
        return Estimate(value=None, low=None, high=None, n=min(n, m), unit="", method=method)
    ratio = stdev(over) / below
    return Estimate(
        value=ratio,
        low=ratio / math.sqrt(float(fdtri(n - 1, m - 1, 1 - _TAIL))),
        high=ratio * math.sqrt(float(fdtri(m - 1, n - 1, 1 - _TAIL))),
        n=min(n, m),
        unit="",
        method=method,
    )
