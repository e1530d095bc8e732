"""What a long search tells whoever watches it. The library never prints; the command line draws this."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

from ..store.records import Estimate, Row, RunConfig
from ..store.runs import StoredRun

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

__all__ = ["Heartbeat", "Prediction", "Progress", "Silent"]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """How long a command would take on this machine, by the clock, if its budget did not end it.

    Attributes:
        seconds: a typical value, from the beginning of the command to its end with everything in it.
        low: 5 % quantile, like the others not cut at the budget.
        high: 95 % quantile.
        budget_s: no training run is begun or continued after it; earlier commands on the folder of a search count.
        assumption: what the value rests on.
        what: that the command makes.
        training_s: wall time of one training that reaches the target, evaluations included; `None`: not predicted.
        trainings: as long as how many of them the runs that are left take; `None`: not predicted.
        spent_s: of `seconds`, what had passed when this was predicted.
        earlier_s: what earlier commands on the folder took of the budget; not in `seconds`.
    """

    seconds: float
    low: float
    high: float
    budget_s: float
    assumption: str
    what: Literal["search", "study", "claims"] = "search"
    training_s: Estimate | None = None
    trainings: float | None = None
    spent_s: float = 0.0
    earlier_s: float = 0.0

    def after(self, seconds: float) -> Prediction:
        """The prediction of a command of which so many seconds have passed, which it did not hold."""
        held = {"seconds": self.seconds + seconds, "low": self.low + seconds, "high": self.high + seconds}
        return replace(self, **held, spent_s=self.spent_s + seconds)

    @property
    def budget_left_s(self) -> float:
        """Seconds of the budget that were left when this was predicted."""
        return max(0.0, self.budget_s - self.earlier_s - self.spent_s)

    @property
    def too_long(self) -> bool:
        """Whether the budget is likely to end the command before it is done."""
        return self.seconds + self.earlier_s > self.budget_s


class Progress(Protocol):
    """Receives the course of a search, in this order; every method returns quickly."""

    def predicted(self, prediction: Prediction) -> None:
        """How long it will take."""
        ...

    def renewed(self, prediction: Prediction) -> None:
        """How long it will take by what is known now."""
        ...

    def stage(self, text: str) -> None:
        """What begins now."""
        ...

    def run_started(self, config: RunConfig, why: str, left: str, expected_steps: float | None = None) -> None:
        """A training run begins, or goes on: what for, what is left after it, at which step it is expected to end."""
        ...

    def step(self, step: int) -> None:
        """The run at work has made so many steps; called after each, so it takes under a microsecond."""
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

    def renewed(self, prediction: Prediction) -> None:
        """Ignore the prediction."""

    def stage(self, text: str) -> None:
        """Ignore the stage."""

    def run_started(self, config: RunConfig, why: str, left: str, expected_steps: float | None = None) -> None:
        """Ignore the run that begins."""

    def step(self, step: int) -> None:
        """Ignore the step."""

    def row(self, row: Row) -> None:
        """Ignore the row."""

    def run_finished(self, run: StoredRun, best: str) -> None:
        """Ignore the run that ended."""


class Heartbeat:
    """Observer that tells each step of a run to whoever watches, between evaluations too.

    Args:
        progress: hears of the steps. It is called without anything between: 0.1 µs a step, and what `step` takes.
    """

    def __init__(self, progress: Progress) -> None:
        self.after_update = progress.step

    def begin(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Ignore it: only steps count."""

    def at_evaluation(self, step: int) -> Row | None:
        """Ignore it: only steps count."""
