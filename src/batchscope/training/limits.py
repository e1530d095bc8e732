"""What ends a run by the clock: the budget of a whole command, or the run's own length in seconds."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import OutOfTime
from ..hardware.time_limit import TimeLimit
from ..store.records import Row, RunStatus
from ..wording import about, duration, joined

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from ..hardware.device import Device
    from .stopping import History

__all__ = [
    "CutOff",
    "Deadline",
    "SecondsRule",
    "deadline_of",
    "named_out_of_time",
    "out_of_time_in_words",
    "spent_in_words",
]

_LEAST, _MARGIN = 5.0, 1.2
"""Times what was spent before anything was trained, that a budget needs to come to something, and at least what is
known to come next."""


class CutOff(Exception):
    """The budget is used up in the middle of a run, which is to be made again when there is more."""


class Deadline(TimeLimit):
    """The time limit of a command, as its runs ask it.

    As a stop rule it ends a run at the first evaluation after it; as an observer (`between_steps`) between two steps.

    >>> Deadline(10.0, clock=lambda: 7.0).left_s, Deadline(10.0, clock=lambda: 12.0).passed
    (3.0, True)
    """

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


def deadline_of(device: Device, budget_s: float, started: float | None = None) -> Deadline:
    """The deadline of a command that began at a moment of the device's wall clock; default: now."""
    deadline = Deadline(device.begun(started) + budget_s, clock=device.wall_clock)
    if started is not None:
        deadline.spent["loading the task"] = deadline.now - started
    return deadline


@contextmanager
def named_out_of_time(deadline: TimeLimit, budget_s: float) -> Generator[None]:
    """Say of a lack of time inside what the budget was spent on, and which one would do."""
    try:
        yield
    except OutOfTime as error:
        raise OutOfTime(out_of_time_in_words(deadline, budget_s, error.needs_s), needs_s=error.needs_s) from error


def out_of_time_in_words(
    deadline: TimeLimit, budget_s: float, needs_s: float = 0.0, would_do: str | None = None
) -> str:
    """Message of a command that came to nothing within its budget.

    Args:
        deadline: of the command, with its account.
        budget_s: of the command.
        needs_s: that the next thing would have taken.
        would_do: the budget that would do; default: a multiple of what was spent.
    """
    spent = budget_s + deadline.now - deadline.at
    given = about(budget_s) if budget_s >= 1.0 else duration(budget_s)
    least = max(_LEAST * max(budget_s, spent), _MARGIN * (spent + needs_s))
    needed = f", and what comes next takes about {about(needs_s)}" if needs_s > 0.0 else ""
    return (
        f"the budget of {given} ended before anything was trained: {spent_in_words(deadline)}{needed}. "
        f"Repeat the command with --budget {would_do or f'{math.ceil(least)}s'} or more"
    )


def spent_in_words(limit: TimeLimit) -> str:
    """What time went on, longest first: "checking the task took 3.1 s and ..."."""
    spent = sorted(limit.spent.items(), key=lambda pair: -pair[1])
    said = [f"{what} took {duration(seconds)}" for what, seconds in spent]
    return joined(said) or "nothing was begun"
