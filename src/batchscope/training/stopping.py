"""When a run is over: the course of a run, and the rules that end it early. Numbers only, no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..fits.curves import first_passage
from ..store.metrics import is_loss, part_of
from ..store.records import RunStatus, Target

__all__ = [
    "BehindRule",
    "History",
    "NoGainRule",
    "PatienceRule",
    "PauseRule",
    "PlateauRule",
    "RoseRule",
    "StallRule",
    "StepLimitRule",
    "StopRule",
    "lag_behind",
]


@dataclass
class History:
    """The evaluations of one run so far, and what they say about its target."""

    target: Target
    steps: list[int] = field(default_factory=list)
    train_losses: list[float | None] = field(default_factory=list)
    metrics: list[Mapping[str, float]] = field(default_factory=list)
    best_index: int = 0

    def add(self, step: int, train_loss: float | None, metrics: Mapping[str, float]) -> None:
        """Append one evaluation."""
        self.steps.append(step)
        self.train_losses.append(train_loss)
        self.metrics.append(metrics)
        if self._better(self.values[-1], self.values[self.best_index]):
            self.best_index = len(self.steps) - 1

    def _better(self, value: float, other: float) -> bool:
        if not math.isfinite(other):
            return math.isfinite(value)
        return value < other if self.target.mode == "min" else value > other

    @property
    def values(self) -> list[float]:
        """The target metric at each evaluation; NaN where it is missing."""
        return [m.get(self.target.metric, math.nan) for m in self.metrics]

    @property
    def reached(self) -> bool:
        """Whether as many evaluations as confirm the target, the last ones, each after a step, are at it or beyond."""
        confirm = self.target.confirm
        return len(self.steps) > confirm and all(map(self.target.met_by, self.values[-confirm:]))

    @property
    def diverged(self) -> bool:
        """Whether the loss left the range of numbers."""
        loss = self.train_losses[-1]
        return (loss is not None and not math.isfinite(loss)) or not math.isfinite(self.values[-1])

    @property
    def steps_to_target(self) -> float | None:
        """Steps to the target, interpolated in log steps; `None` where it is not reached now."""
        if not self.reached:
            return None
        trained = [(float(step), value) for step, value in zip(self.steps, self.values, strict=True) if step > 0]
        steps, values = [step for step, _ in trained], [value for _, value in trained]
        target = self.target
        return first_passage(steps, values, target.value, rising=target.mode == "max", confirm=target.confirm)


StopRule = Callable[[History], RunStatus | None]
"""Asked after each evaluation; a status ends the run."""


@dataclass(frozen=True, kw_only=True)
class StallRule:
    """Ends a run whose metric has not improved for a share of its length.

    It is called overfitting when the training loss fell meanwhile, else stalling (Prechelt 1998 measures the same with
    fixed strips; a share of the run's length needs no unit). Many losses have a plateau at the start, which a run
    leaves faster the higher its learning rate (Saxe et al. 2014): one that has hardly begun its way to the target
    waits longer.
    """

    patience: float
    least_steps: int = 50
    least_steps_at_the_start: int = 200
    """Until the run has made `begun` of its way."""
    begun: float = 0.1
    """Share of the way from the metric of the fresh weights to the target."""
    evaluations: int = 3
    """How many without a better value, at least: one gap between evaluations that are far apart is no wait."""
    overfit_fall: float = 0.7

    def __call__(self, history: History) -> RunStatus | None:
        """`STALLED` or `OVERFIT`, once the wait is too long."""
        step, best = history.steps[-1], history.steps[history.best_index]
        since = len(history.steps) - 1 - history.best_index
        least = self.least_steps if self._has_begun(history) else max(self.least_steps, self.least_steps_at_the_start)
        if since < self.evaluations or step - best < max(least, self.patience * step):
            return None
        before, now = history.train_losses[history.best_index], history.train_losses[-1]
        fell = before is not None and now is not None and now < self.overfit_fall * before
        return RunStatus.OVERFIT if fell else RunStatus.STALLED

    def _has_begun(self, history: History) -> bool:
        first, best = history.values[0], history.values[history.best_index]
        way = abs(history.target.value - first)
        return not abs(best - first) < self.begun * way


@dataclass(frozen=True, kw_only=True)
class PauseRule:
    """Pauses a run once it has passed a milestone on the way to its target."""

    milestone: Target

    def __call__(self, history: History) -> RunStatus | None:
        """`PAUSED`, at the first evaluation at the milestone or beyond."""
        return RunStatus.PAUSED if self.milestone.met_by(history.values[-1]) else None


@dataclass(frozen=True, kw_only=True)
class StepLimitRule:
    """Pauses a run once it has made a number of steps."""

    steps: int

    def __call__(self, history: History) -> RunStatus | None:
        """`PAUSED`, at the first evaluation at that step or beyond."""
        return RunStatus.PAUSED if history.steps[-1] >= self.steps else None


@dataclass(frozen=True, kw_only=True)
class PlateauRule:
    """Ends a run that has no target once it gains little: in its last stretch less than `gain` of all it gained.

    What it gained counts from `start` where that is better than its first value: where targets lie far from zero, their
    mean alone is nearly all of what a run gains over fresh weights, and what there is to learn beyond would count as
    little.
    """

    stretch: float = 0.4
    gain: float = 0.02
    least_steps: int = 50
    start: float | None = None
    """Value of the best constant prediction; `None`: not known."""

    def __call__(self, history: History) -> RunStatus | None:
        """`LEVELLED_OFF`, once there is little to gain."""
        step = history.steps[-1]
        before = [v for s, v in zip(history.steps, history.values, strict=True) if s <= (1 - self.stretch) * step]
        if step < self.least_steps or len(before) < 2:
            return None
        first, now = history.values[0], history.values[history.best_index]
        best_before = min(before) if history.target.mode == "min" else max(before)
        gained = abs(now - first) if self.start is None else min(abs(now - first), abs(now - self.start))
        return RunStatus.LEVELLED_OFF if abs(now - best_before) <= self.gain * gained else None


@dataclass(frozen=True, kw_only=True)
class NoGainRule:
    """Ends a run that has never been better than with fresh weights, or never by a share of their value."""

    steps: int
    """After so many, and three evaluations."""
    evaluations: int = 3
    gain: float = 0.0

    def __call__(self, history: History) -> RunStatus | None:
        """`BEHIND`, once that is clear."""
        early = history.steps[-1] < self.steps or len(history.steps) <= self.evaluations
        if early:
            return None
        first, best = history.values[0], history.values[history.best_index]
        gained = history.best_index > 0 and abs(best - first) > self.gain * abs(first)
        return None if gained else RunStatus.BEHIND


@dataclass(frozen=True, kw_only=True)
class PatienceRule:
    """Early stopping: ends a run whose metric has not improved for so many epochs, however little that would be."""

    patience: float
    """In epochs."""
    steps_per_epoch: float

    def __call__(self, history: History) -> RunStatus | None:
        """`STOPPED_EARLY`, once the wait is over."""
        waited = (history.steps[-1] - history.steps[history.best_index]) / self.steps_per_epoch
        return RunStatus.STOPPED_EARLY if waited >= self.patience - 0.5 / self.steps_per_epoch else None


@dataclass(frozen=True, kw_only=True)
class RoseRule:
    """Ends a run that is lost although its loss stays a number: the training loss far above the loss at the start.

    That is the loss of the evaluation before the first step; where the task evaluates none that is known as one by its
    exact name, the training loss up to the first evaluation.
    """

    factor: float = 10.0
    """Times the loss at the start."""
    evaluations: int = 3
    """How many in a row; a spike is no divergence."""

    def __call__(self, history: History) -> RunStatus | None:
        """`DIVERGED`, once the training loss has stayed above."""
        losses = sorted(
            (name for name in history.metrics[0] if is_loss(name)), key=lambda n: part_of(n) != "validation"
        )
        late = history.train_losses[1:][-self.evaluations :]
        first = history.metrics[0][losses[0]] if losses else next(iter(history.train_losses[1:]), None)
        if first is None or not first > 0 or len(late) < self.evaluations:
            return None
        above = all(loss is not None and loss > self.factor * first for loss in late)
        return RunStatus.DIVERGED if above else None


@dataclass(frozen=True, kw_only=True)
class BehindRule:
    """Ends a run that lags behind a finished one in time.

    Both curves are compared on the same clock (steps times step time). The lag is this run's time divided by the time
    of the first evaluation at which the reference was as good as this run's best: evaluations are compared with
    evaluations, and nothing between them is estimated. Curves of different learning rates and batch sizes cross, so
    that a run may begin more slowly and end sooner: at a share s of the reference's length the lag may be
    lag / min(s, 1)^falls. The run ends when it stays above that for `patience` evaluations from `from_share` on, or
    when it has taken `end` times the reference's length.
    """

    reference: Sequence[tuple[float, float]]
    """Time and target metric of the finished run's evaluations, up to its target."""
    step_time: float
    end: float
    lag: float
    """That is allowed at the reference's length."""
    falls: float = 1.0
    """How fast the allowed lag falls until then: 0 where it is the same all along."""
    from_share: float = 0.2
    patience: int = 3

    def __call__(self, history: History) -> RunStatus | None:
        """`BEHIND`, once the lag is beyond recovery."""
        length = self.reference[-1][0]
        if history.steps[-1] * self.step_time >= self.end * length:
            return RunStatus.BEHIND
        recent = range(max(1, len(history.steps) - self.patience), len(history.steps))
        if len(recent) < self.patience:
            return None
        shares = [history.steps[index] * self.step_time / length for index in recent]
        if shares[0] < self.from_share:
            return None
        allowed = [self.lag / min(share, 1.0) ** self.falls for share in shares]
        lags = [lag_behind(self.reference, self.step_time, history, index) for index in recent]
        return RunStatus.BEHIND if all(lag > most for lag, most in zip(lags, allowed, strict=True)) else None


def lag_behind(reference: Sequence[tuple[float, float]], step_time: float, history: History, index: int = -1) -> float:
    """A run's time at an evaluation ÷ the time at which a reference was as good as the run had been by then."""
    values = [v for v in history.values[: index + 1 or None] if math.isfinite(v)]
    smaller = history.target.mode == "min"
    best = min(values) if smaller else max(values)
    as_good = next((t for t, v in reference if t > 0 and (v <= best if smaller else v >= best)), reference[-1][0])
    return history.steps[index] * step_time / as_good
