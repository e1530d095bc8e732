"""The t interval of a mean whose values cannot leave a range: taken on a scale on which the range has no ends.

With the range [a, b] and u = (x̄ − a) / (b − a), the scale is the logit of u; with a lower bound alone it is the
logarithm of x̄ − a. The standard error on that scale follows by the delta method, so that the interval is

    logit(u) ± t s / (√n (b − a) u (1 − u))        or        log(x̄ − a) ± t s / (√n (x̄ − a))

carried back. It is about the arithmetic mean, needs no value strictly inside, and is the plain t interval where that is
short against the distance from the ends. Over skewed values and values close to an end it holds the mean more often
than the plain interval, cut at the ends or not (docs/log.md has the simulation).
"""

from __future__ import annotations

import math

from ...store.ranges import Range

__all__ = ["TOO_FEW", "ends_within"]

TOO_FEW = 2
"""So many values, or fewer, give no interval where it would span about all that is possible."""

_ABOUT_ALL = 0.9
_FACTOR = 10.0
"""On either side, beyond which an interval of a quantity without an upper end says nothing."""
_STEEPEST = 700.0


def ends_within(middle: float, half: float, n: int, within: Range) -> tuple[float | None, float | None]:
    """Ends of the interval of a mean.

    Args:
        middle: the mean, in the range.
        half: half-width of the plain t interval.
        n: number of values.
        within: the range, with a lower end at least.

    Returns:
        Low and high end inside the range; both `None` where so few values say nothing: with two, where the interval
        would span nine tenths of the range, or a factor of 10 on either side.

    Example:
        >>> from ...store.ranges import NOT_NEGATIVE, SHARE
        >>> [round(end, 3) for end in ends_within(0.961, 0.105, 3, SHARE)]
        [0.599, 0.998]
        >>> [round(end, 3) for end in ends_within(0.137, 0.309, 3, NOT_NEGATIVE)]
        [0.014, 1.307]
        >>> ends_within(0.137, 0.9, 2, NOT_NEGATIVE)
        (None, None)
    """
    assert within.low is not None
    above = middle - within.low
    if half == 0.0 or above <= 0.0 or (within.high is not None and middle >= within.high):
        return middle, middle
    if within.high is None:
        far = half / above
        if n <= TOO_FEW and far > math.log(_FACTOR):
            return None, None
        factor = math.exp(min(far, _STEEPEST))
        return within.low + above / factor, within.low + above * factor
    width = within.high - within.low
    share = above / width
    centre, far = math.log(share / (1.0 - share)), half / (width * share * (1.0 - share))
    low, high = (1.0 / (1.0 + math.exp(-max(-_STEEPEST, min(_STEEPEST, x)))) for x in (centre - far, centre + far))
    if n <= TOO_FEW and high - low > _ABOUT_ALL:
        return None, None
    return within.low + width * low, within.low + width * high
