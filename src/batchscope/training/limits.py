"""What ends a run by the clock: the budget of a whole command, or the run's own length in seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..store.records import Row, RunStatus

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from .stopping import History

__all__ = ["CutOff", "Deadline", "SecondsRule"]


class CutOff(Exception):
    """The budget is used up in the middle of a run, which is to be made again when there is more."""


class Deadline:
    """A moment after which nothing more is begun.

    As a stop rule it ends a run at the first evaluation after it; as an observer (`between_steps`) between two steps.

    Args:
        at: the moment, in seconds of the clock.
        clock: seconds since some moment; default: the monotonic clock of this process.

    >>> Deadline(10.0, clock=lambda: 7.0).left_s, Deadline(10.0, clock=lambda: 12.0).passed
    (3.0, True)
    """

    def __init__(self, at: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.at, self._clock = at, clock

    @classmethod
    def after(cls, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> Deadline:
        """The deadline so many seconds from now."""
        return cls(clock() + seconds, clock=clock)

    @property
    def passed(self) -> bool:
        """Whether it is too late."""
        return self._clock() >= self.at

    @property
    def left_s(self) -> float:
        """Seconds until then, at least 0."""
        return max(0.0, self.at - self._clock())

    def within(self, seconds: float) -> Deadline:
        """The deadline so many seconds from now, or this one where it comes first."""
        return Deadline(min(self.at, self._clock() + seconds), clock=self._clock)

    def __call__(self, history: History) -> RunStatus | None:
        """`OUT_OF_TIME`, once it is late."""
        return RunStatus.OUT_OF_TIME if self.passed else None

    def between_steps(self, last: int) -> _BetweenSteps:
        """An observer that raises `CutOff` after an update once it is late, but not after the step `last`."""
        return _BetweenSteps(self, last)


class _BetweenSteps:
    """Looks at the clock after every update."""

    def __init__(self, deadline: Deadline, last: int) -> None:
        self._deadline, self._last = deadline, last

    def begin(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Ignore it: only time between steps counts."""

    def after_update(self, step: int) -> Row | None:
        """Look at the clock."""
        if self._deadline.passed and step < self._last:
            raise CutOff

    def at_evaluation(self, step: int) -> Row | None:
        """Ignore it: only time between steps counts."""


class SecondsRule:
    """Ends a run at the first evaluation after so many seconds of training steps.

    Args:
        limit: seconds, evaluation excluded.
    """

    def __init__(self, *, limit: float) -> None:
        self.limit, self._spent = limit, 0.0

    def see(self, row: Row) -> None:
        """Read the clock of an evaluation."""
        if row["kind"] == "evaluation":
            self._spent = row["device_seconds"]

    def __call__(self, history: History) -> RunStatus | None:
        """`OUT_OF_TIME`, once it is late."""
        return RunStatus.OUT_OF_TIME if self._spent >= self.limit else None
