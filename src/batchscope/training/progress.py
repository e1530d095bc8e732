"""What a long search tells whoever watches it. The library never prints; the command line draws this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ..store.records import Row, RunConfig
from ..store.runs import StoredRun

__all__ = ["Prediction", "Progress", "Silent"]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """How long a command would take on this machine if its budget did not end it, before it starts.

    Attributes:
        seconds: a typical value.
        low: if everything is easy.
        high: if it is hard; like the others not cut at the budget.
        budget_s: no training run is begun or continued after it.
        assumption: what the value rests on.
    """

    seconds: float
    low: float
    high: float
    budget_s: float
    assumption: str


class Progress(Protocol):
    """Receives the course of a search, in this order; every method returns quickly."""

    def predicted(self, prediction: Prediction) -> None:
        """How long it will take."""
        ...

    def stage(self, text: str) -> None:
        """What begins now."""
        ...

    def run_started(self, config: RunConfig, why: str, left: str) -> None:
        """A training run begins: what for, and what is left after it."""
        ...

    def row(self, row: Row) -> None:
        """An evaluation or a probe's reading of the run at work."""
        ...

    def run_finished(self, run: StoredRun, best: str) -> None:
        """A run has ended; the best recipe so far in words."""
        ...


class Silent:
    """Watches nothing."""

    def predicted(self, prediction: Prediction) -> None:
        """Ignore the prediction."""

    def stage(self, text: str) -> None:
        """Ignore the stage."""

    def run_started(self, config: RunConfig, why: str, left: str) -> None:
        """Ignore the run that begins."""

    def row(self, row: Row) -> None:
        """Ignore the row."""

    def run_finished(self, run: StoredRun, best: str) -> None:
        """Ignore the run that ended."""
