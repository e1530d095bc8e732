"""Time limit: when a command's budget ends, asked by all that measures or trains, and what the time went on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Self

from ..errors import OutOfTime

__all__ = ["NO_LIMIT", "TimeLimit"]


class TimeLimit:
    """A moment after which nothing more is begun.

    Limits that are made from one (`within`, `before`) share its clock, and its account of what the time went on.

    Args:
        at: the moment, in seconds of the clock.
        clock: seconds since some moment; default: the monotonic clock of this process.

    >>> limit = TimeLimit(10.0, clock=lambda: 7.0)
    >>> limit.left_s, limit.passed, limit.within(2.0).left_s, limit.within(9.0).left_s, limit.before(4.0).passed
    (3.0, False, 2.0, 3.0, True)
    """

    def __init__(self, at: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.at, self._clock = at, clock
        self.spent: dict[str, float] = {}
        """Seconds by what they went on, in that order."""

    @classmethod
    def after(cls, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> Self:
        """The limit so many seconds from now."""
        return cls(clock() + seconds, clock=clock)

    @property
    def now(self) -> float:
        """Seconds of the clock."""
        return self._clock()

    @property
    def passed(self) -> bool:
        """Whether it is too late."""
        return self.now >= self.at

    @property
    def left_s(self) -> float:
        """Seconds until then, at least 0."""
        return max(0.0, self.at - self.now)

    def within(self, seconds: float) -> Self:
        """The limit so many seconds from now, or this one where it comes first."""
        return self._at(min(self.at, self.now + seconds))

    def share(self, share: float, most_s: float = math.inf) -> Self:
        """The limit of a part of the time that is left, and of so many seconds at most."""
        return self.within(min(share * self.left_s, most_s))

    def before(self, seconds: float) -> Self:
        """The limit so many seconds before this one: what follows needs them."""
        return self._at(self.at - seconds)

    def require(self, seconds: float = 0.0) -> None:
        """Refuse to begin what cannot be left out, where no time is left for it.

        Args:
            seconds: that it is expected to take.

        Raises:
            OutOfTime: it is too late.
        """
        if self.passed or seconds > self.left_s:
            raise OutOfTime(needs_s=seconds)

    @contextmanager
    def spending(self, what: str) -> Generator[None]:
        """Put the time of the work inside to the account, where there is an end to it."""
        if math.isinf(self.at):
            yield
            return
        began = self.now
        try:
            yield
        finally:
            self.spent[what] = self.spent.get(what, 0.0) + self.now - began

    def _at(self, at: float) -> Self:
        made = type(self)(at, clock=self._clock)
        made.spent = self.spent
        return made


NO_LIMIT = TimeLimit(math.inf)
"""What a measurement by itself has."""
