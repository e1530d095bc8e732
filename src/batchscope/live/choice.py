"""Which source a monitor reads: the first in order that gives a number, and why those before it give none."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import UsageError
from ..store.records import Row
from .overhead import Overhead
from .sources import CANDIDATES, Candidate, Situation
from .window import Source, Window

__all__ = ["Choice"]

_PATIENCE = 3
"""Windows without a row before the next source is tried."""
_PATIENCE_AFTER_ROWS = 16
"""The same for a source that has given rows; then the choice begins anew."""


class Choice:
    """Source in use, of those that suit the situation.

    Args:
        sources: that may be tried, in order, with the names of their candidates.
        passed_over: why other candidates do not suit.
    """

    def __init__(self, sources: Sequence[tuple[str, Source]], passed_over: dict[str, str]) -> None:
        self._sources = list(sources)
        self.passed_over = passed_over
        self._at = 0
        self._empty, self._gave = 0, False
        self.reason = "" if sources else "; ".join(f"{name}: {reason}" for name, reason in passed_over.items())

    @classmethod
    def of(
        cls, situation: Situation, *, only: str | None = None, candidates: Sequence[Candidate] = CANDIDATES
    ) -> Choice:
        """Make the sources that suit.

        Raises:
            UsageError: no candidate is called `only`, or the one that is does not suit.
        """
        names = [candidate.name for candidate in candidates]
        if only is not None and only not in names:
            raise UsageError(f"source is {only!r}; there are {', '.join(names)}")
        chosen = [each for each in candidates if each.name == only or (only is None and not each.by_name_only)]
        against = {candidate.name: candidate.suits(situation) for candidate in chosen}
        if only is not None and against[only]:
            raise UsageError(f"the source {only!r} can give no number here: {against[only]}")
        sources = [(each.name, each.make(situation)) for each in chosen if not against[each.name]]
        return cls(sources, {name: reason for name, reason in against.items() if reason})

    @property
    def source(self) -> Source:
        """The source in use."""
        return self._sources[self._at][1]

    def micro_batch(self, batch: Any) -> None:
        """Hand a micro-batch to the source in use before its backward pass, if it takes any."""
        if self._sources and (hand := getattr(self.source, "micro_batch", None)) is not None:
            hand(batch)

    def may_measure(self, step: int, overhead: Overhead) -> bool:
        """Whether the window that begins now is measured: as the cost allows, or as the ranks have agreed."""
        agreed: Callable[[int, Callable[[], int]], bool] | None = getattr(self.source, "may_measure", None)
        return overhead.may_measure() if agreed is None else agreed(step, overhead.interval)

    def take(self, window: Window) -> Row | None:
        """Row of the source in use; after some windows without one the next source is in use."""
        name, source = self._sources[self._at]
        row = source.take(window)
        if row is not None:
            self._empty, self._gave, self.reason = 0, True, ""
            self.passed_over.pop(name, None)
            return row
        self.reason = source.reason
        self._empty += 1
        patience = _PATIENCE_AFTER_ROWS if self._gave else _PATIENCE
        if self._empty >= patience + getattr(source, "late", 0):  # windows by which its rows are late
            source.detach()
            self.passed_over[name] = source.reason
            self._at = 0 if self._gave else (self._at + 1) % len(self._sources)
            self._empty, self._gave = 0, False
        return None

    def detach(self) -> None:
        """Take off what the source in use has put on."""
        if self._sources:
            self.source.detach()

    def close(self) -> None:
        """Detach all."""
        sources, self._sources = self._sources, []
        for _, source in sources:
            with contextlib.suppress(Exception):  # what it raised before has switched the monitor off, and was said
                source.detach()
