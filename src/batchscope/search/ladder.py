"""The first learning rates of a search for a given length: up and down by large factors, until training is found.

The range test may break too early or too late, by orders of magnitude. So the runs at the first batch size climb: lower
by a factor of 4, then by 8, until one ended clearly better than fresh weights and the next lower one is no better; and
where the lower one is clearly worse, higher likewise while that gets better. A law of ends has a say only then: it
knows nothing of a region in which nothing trains. Runs that gain nothing are ended early by the rules of the search, so
that a rung costs little. Numbers only, no torch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..fits.end_values import End

__all__ = ["Climb", "Rung"]

_FIRST, _THEN = 4.0, 8.0
_MOST_LOWER, _MOST_HIGHER, _MOST_UNMOVED = 5, 6, 3
_CLEAR = 0.05
"""Share of the gain over fresh weights by which one end is clearly better than another."""
_SLIGHT = 0.1
"""Gain over fresh weights, in logarithms, up to which runs that ended alike may all be at chance."""

_NONE_YET = "no run was better than fresh weights yet"


@dataclass(frozen=True)
class Rung:
    """The next learning rate of the climb.

    Attributes:
        lr: learning rate.
        why: in words.
    """

    lr: float
    why: str


@dataclass(frozen=True, kw_only=True)
class Climb:
    """Runs at one batch size, from which the next learning rate follows.

    Attributes:
        first: the learning rate that the climb began at.
        ends: of the runs at the batch size that it goes on.
        fresh: what is left with fresh weights, by `Left.log`; `None`: not known.
        least: gain over fresh weights, in those logarithms, from which a run has trained.
    """

    first: float
    ends: Sequence[End]
    fresh: float | None
    least: float

    @property
    def next(self) -> Rung | None:
        """The next learning rate to try; `None` where the climb has come to its end."""
        if self.fresh is None or not self.ends:
            return None
        rungs = sorted(self.ends, key=lambda end: end.lr)
        best = max(rungs, key=lambda end: self._gain(end))
        trained = self._gain(best) >= self.least
        if self._goes_lower(rungs, best):
            return self._lower(rungs[0].lr, "does a lower learning rate end better?" if trained else _NONE_YET)
        if self._goes_higher(rungs, best):
            higher = sum(end.lr > self.first for end in rungs)
            lr = rungs[-1].lr * (_THEN if higher else _FIRST)
            return Rung(float(f"{lr:.3g}"), "does a higher learning rate end better?" if trained else _NONE_YET)
        return None

    def _lower(self, lowest: float, why: str) -> Rung:
        factor = _FIRST if lowest >= self.first else _THEN
        return Rung(float(f"{lowest / factor:.3g}"), why)

    def _goes_lower(self, rungs: Sequence[End], best: End) -> bool:
        """Whether a lower learning rate may be better: none is at the bottom yet, or the lowest is no worse."""
        below, lowest = sum(end.lr < self.first for end in rungs), rungs[0]
        if below == 0:
            return True
        if below >= _MOST_LOWER:
            return False
        if self._gain(best) < self.least:
            return not self._rises(rungs)
        alike = not self._clearly_better(best, lowest)
        return lowest is best or (alike and self._gain(best) <= _SLIGHT)

    def _rises(self, rungs: Sequence[End]) -> bool:
        """Whether the runs, none of which trained, are the closer to it the higher their learning rate."""
        gains = [self._gain(end) for end in rungs]
        return all(0.0 < low < high for low, high in itertools.pairwise(gains))

    def _goes_higher(self, rungs: Sequence[End], best: End) -> bool:
        """Whether a higher learning rate may be better: the highest is the best, clearly above the next lower one.

        Where nothing has trained, it may be as well.
        """
        higher, highest = sum(end.lr > self.first for end in rungs), rungs[-1]
        if higher >= _MOST_HIGHER or highest.left is None:
            return False
        if self._gain(best) < self.least:
            return higher < _MOST_UNMOVED or self._rises(rungs)
        if highest is not best:
            return False
        return len(rungs) > 1 and self._clearly_better(highest, rungs[-2])

    def _clearly_better(self, one: End, other: End) -> bool:
        gap = self._gain(one) - self._gain(other)
        noise = 0.0 if other.left is None else math.hypot(one.sd, other.sd)
        return gap > max(_CLEAR * abs(self._gain(one)), noise)

    def _gain(self, end: End) -> float:
        """How much less is left than with fresh weights, in logarithms."""
        assert self.fresh is not None
        return -math.inf if end.left is None else self.fresh - end.left
