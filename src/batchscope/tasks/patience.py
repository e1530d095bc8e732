"""How long a call of the user's code may take before it counts as hanging: one rule, and what is waited for now.

Every such call stands in a block with a name (`waiting_for`; `user_code.explained` opens one). A block that begins or
ends is a sign of life. What is measured is the time since the last one, while a block is open: by the watchdog of
`step_timeout`, or, where no watchdog can be (outside the main thread), by torch's own timeout of a loader.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["FIRST_S", "GENEROUS", "LEAST_S", "Patience", "patience", "waiting_for"]

GENEROUS = 20.0
"""Times the longest that a call of its kind has taken, or is expected to take."""
LEAST_S = 300.0
"""Seconds that a call of a kind that was measured may take in any case."""
FIRST_S = 1800.0
"""Seconds that the first call of its kind may take in any case, where nobody knows how long it should."""


@dataclass(kw_only=True)
class Patience:
    """What a thread waits for, and how long it may.

    Attributes:
        asked_s: seconds that any call may take, `--step-timeout`; `None`: what follows from the calls before.
        watched: whether a watchdog looks at it.
        signs: of life so far.
        waited_for: names of the open blocks, the outermost first, with the seconds that each is expected to take.
        longest_s: the longest that calls of a kind took without a sign of life, as far as a watchdog saw it.
        done: kinds of calls that came to an end.

    Example:
        >>> patience = Patience()
        >>> patience.limit_s("loss(model, batch)")
        1800.0
        >>> patience.done.add("loss(model, batch)")
        >>> patience.limit_s("loss(model, batch)")
        300.0
        >>> patience.limit_s("loss(model, batch)", expected_s=60.0)
        1200.0
    """

    asked_s: float | None = None
    watched: bool = False
    signs: int = 0
    waited_for: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])
    longest_s: dict[str, float] = field(default_factory=dict[str, float])
    done: set[str] = field(default_factory=set[str])

    def limit_s(self, what: str, expected_s: float = 0.0) -> float:
        """Seconds that a call of a kind may take without a sign of life."""
        if self.asked_s is not None:
            return max(self.asked_s, expected_s)
        least = LEAST_S if expected_s or what in self.done else FIRST_S
        return max(least, GENEROUS * max(expected_s, self.longest_s.get(what, 0.0)))

    def took(self, what: str, seconds: float) -> None:
        """Keep how long a call of a kind was seen without a sign of life."""
        self.longest_s[what] = max(seconds, self.longest_s.get(what, 0.0))


class _OfThread(threading.local):
    def __init__(self) -> None:
        self.patience = Patience()


_threads = _OfThread()


def patience() -> Patience:
    """The patience of the thread that asks."""
    return _threads.patience


@contextmanager
def waiting_for(what: str, expected_s: float = 0.0) -> Generator[None]:
    """Context of one call of the user's code.

    Args:
        what: is called, for messages; calls of one name are of one kind.
        expected_s: seconds that it is expected to take.
    """
    mine = _threads.patience
    mine.waited_for.append((what, expected_s))
    mine.signs += 1
    try:
        yield
        mine.done.add(what)
    finally:
        mine.waited_for.pop()
        mine.signs += 1
