"""What a monitor costs, measured, and which windows it may measure so that the cost stays a share of the training."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager

__all__ = ["Overhead"]

_FIRST = 2
"""Windows that are measured at once, to learn what it costs."""
_REMEMBERED = 16
_PAUSE = 4.0
"""A window that takes this many times as long as the typical one had a pause in it (an evaluation)."""


class Overhead:
    """Account of the monitor's time against the training's.

    The cost of a measured window is the time in the monitor's own code, its hooks in the backward passes included, and
    where that is more, what the median measured window takes over the median other one (work that an accelerator does
    later). A window may be measured when the cost so far and the typical cost of one more are at most `share` of the
    time of all windows; the first two always. Windows in which the training paused count as four typical ones.

    Args:
        share: of the training's time, at most; 1: every window is measured.
        clock: seconds.
        compare: whether measured and other windows are compared; for accelerators, where hooks only launch work.
    """

    def __init__(self, share: float, *, clock: Callable[[], float] = time.perf_counter, compare: bool = False) -> None:
        self._share, self._clock, self._compare = share, clock, compare
        self._began: float | None = None
        self._measured = self._windows = 0
        self._typical = self._cost = 0.0
        self._own = self._spent = self._trained = 0.0
        self._in: float | None = None
        self._costs: deque[float] = deque(maxlen=_REMEMBERED)
        self._plain: deque[float] = deque(maxlen=_REMEMBERED)
        self._with: deque[float] = deque(maxlen=_REMEMBERED)

    @property
    def ratio(self) -> float:
        """Share of the training's time that the monitor took; 0 before the first window has ended."""
        return (self._spent + self._own) / self._trained if self._trained else 0.0

    @contextmanager
    def own(self) -> Generator[None]:
        """Time inside is the monitor's; nested calls count once."""
        if self._in is not None:
            yield
            return
        self._in = self._clock()
        try:
            yield
        finally:
            self._own += self._clock() - self._in
            self._in = None

    def window_ended(self, *, measured: bool) -> None:
        """Book the window that ends now; it began when the one before ended."""
        now = self._clock()
        took = 0.0 if self._began is None else now - self._began
        self._began = now
        if took:
            (self._with if measured else self._plain).append(took)
            self._windows += 1
            if measured or not self._typical or self._windows % _REMEMBERED == 0:
                self._typical = statistics.median(self._plain or self._with)
            self._trained += min(took, _PAUSE * self._typical) if self._typical else took
        cost, self._own = self._own, 0.0
        if measured:
            self._measured += 1
            if self._compare and self._plain and self._with:
                cost = max(cost, statistics.median(self._with) - statistics.median(self._plain))
            self._costs.append(cost)
            self._cost = statistics.median(self._costs)
        self._spent += cost

    def may_measure(self) -> bool:
        """Whether the window that begins now may be measured."""
        if self._measured < _FIRST or self._share >= 1:
            return True
        return self._spent + self._own + self._cost <= self._share * self._trained

    def interval(self) -> int:
        """Every how many windows one may be measured, for ranks that agree ahead; twice that after overspending."""
        times = self._plain or self._with
        if self._share >= 1 or not self._costs or not times:
            return 1
        affordable = math.ceil(self._cost / (self._share * statistics.median(times)))
        return max(1, affordable) * (2 if self.ratio > self._share else 1)
