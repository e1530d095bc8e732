"""Searches replayed against a table: curves are played back, and the time that they would have taken is added up.

A trial at a batch size and a rate plays the table's curve at the nearest measured rate (they are spaced by a factor
of 2) with one of the three seeds, and costs its steps times the profile's step time. The same stopping rule holds for
every search: the target is reached, training diverged, or 2.5 times the best number of steps at that batch size have
gone by. No tool could know the last number: it is generous to all of them. A rate clearly below the lowest measured
one never reaches the target: its curve is that of the lowest, stretched in time by the ratio of the rates (so it is
where steps are small: only rate times steps counts). One above the highest does as the highest does, which is past
the best.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tables import CENSOR, Table
from yardstick import Yardstick

__all__ = ["COSTS", "DEFAULT_BATCH_SIZE", "REPORTS", "Game", "Trial", "default_lr", "rate_bounds", "report_times"]

COSTS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 14.0, 20.0, 30.0, 50.0)
"""Search costs, in best runs, at which regret is read."""
DEFAULT_BATCH_SIZE = 32
REPORTS = 243
"""The longest trial in units of the reports that pruners see."""
_REPORT_GROWTH = 1.25
_MOST_TRIALS = 1000
_FAR = 1e9

Array = NDArray[np.float64]


def default_lr(optimizer: str) -> float:
    """What people start from: 0.001 with AdamW, 0.01 with SGD."""
    return {"adamw": 1e-3, "sgd": 0.01}[optimizer]


def rate_bounds(optimizer: str) -> tuple[float, float]:
    """The rates that a user of a search tool would span, log-uniform; the best ones of all tables lie inside."""
    return {"adamw": (1e-4, 0.1), "sgd": (1e-3, 3.0)}[optimizer]


def report_times(most: int = REPORTS, growth: float = _REPORT_GROWTH) -> tuple[int, ...]:
    """The times at which a trial reports to its pruner, in units of the longest trial ÷ `most`.

    Example:
        >>> report_times(20)
        (1, 2, 3, 4, 5, 7, 9, 12, 15, 19, 20)
    """
    times = [1]
    while times[-1] < most:
        times.append(min(most, max(times[-1] + 1, math.ceil(times[-1] * growth))))
    return tuple(times)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A training that a search asks for, as it would go if nothing but the common rule stopped it.

    Attributes:
        batch_size: examples a step.
        lr: the rate asked for.
        cell_lr: the measured rate that is played.
        seconds: what it takes, on the profile, until it ends.
        reached_s: seconds to target; `None`: not reached.
        times: of the evaluations, in seconds.
        values: the target metric there, with the sign that makes less better; what is no number is very large.
    """

    batch_size: int
    lr: float
    cell_lr: float
    seconds: float
    reached_s: float | None
    times: Array
    values: Array

    def value_at(self, seconds: float) -> float:
        """The last evaluation up to then."""
        return float(self.values[max(0, int(np.searchsorted(self.times, seconds, side="right")) - 1)])

    @property
    def objective(self) -> float:
        """What a search minimises: seconds to target; those that do not reach it come after all others, by metric."""
        return self.reached_s if self.reached_s is not None else _FAR * (2.0 + math.tanh(float(self.values[-1])))


@dataclass(frozen=True, kw_only=True)
class _Found:
    spent_s: float
    batch_size: int
    lr: float
    seconds: float


@dataclass
class Game:
    """One search on one table and profile, with its clock.

    Attributes:
        table: the truth.
        yardstick: what the recipes are measured by.
        profile: whose step times are paid.
        seed: of everything drawn at random.
        budget: where the search must end, in best runs.
    """

    table: Table
    yardstick: Yardstick
    profile: str
    seed: int
    budget: float = COSTS[-1]
    spent_s: float = 0.0
    trials: int = 0
    _found: list[_Found] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(f"{self.table.task.name} {self.profile} {self.seed}")
        self.best_s = self.table.best(self.profile).time_s
        self.optimizer = self.table.task.optimizer
        self.unit_s = max(self._limit(b) * self.step_time(b) for b in self.table.batch_sizes) / REPORTS

    @property
    def open(self) -> bool:
        """Whether there is budget for another trial."""
        return self.spent_s < self.budget * self.best_s and self.trials < _MOST_TRIALS

    def step_time(self, batch_size: int) -> float:
        """Seconds of a step."""
        return self.table.step_time(self.profile, batch_size)

    def trial(self, batch_size: int, lr: float) -> Trial:
        """How a training would go; nothing is paid yet."""
        rates = self.table.rates(batch_size)
        cell_lr = min(rates, key=lambda rate: abs(math.log(rate / lr)))
        curve = self.table.curve(batch_size, cell_lr, self.random.randrange(3))
        limit = self._limit(batch_size)
        stretch = rates[0] / lr if rates[0] / lr > math.sqrt(2.0) else 1.0
        reached = curve.steps_to_target if stretch == 1.0 else None
        steps = curve.steps.astype(float) * stretch
        inside = steps <= limit
        if reached is not None and (reached <= limit or not inside.any()):
            inside[:] = True
        else:
            reached = None
        diverged = curve.status == "diverged" and bool(inside.all())
        ended = float(steps[-1]) if reached is not None or diverged else float(limit)
        step_s, sign = self.step_time(batch_size), 1.0 if self.table.task.goal.mode == "min" else -1.0
        values = np.nan_to_num(sign * curve.values.astype(float), nan=_FAR, posinf=_FAR, neginf=-_FAR)
        return Trial(
            batch_size=batch_size,
            lr=lr,
            cell_lr=cell_lr,
            seconds=ended * step_s,
            reached_s=None if reached is None else reached * step_s,
            times=steps[inside] * step_s,
            values=values[inside],
        )

    def reports(self, trial: Trial) -> list[tuple[int, float, float]]:
        """What a pruner is told, all at the same times whatever the batch size: unit, seconds, metric."""
        times = [(unit, unit * self.unit_s) for unit in report_times()]
        return [(unit, seconds, trial.value_at(seconds)) for unit, seconds in times if seconds < trial.seconds]

    def pay(self, trial: Trial, stopped_s: float | None = None) -> None:
        """The trial was run to its end, or up to where a pruner stopped it."""
        self.trials += 1
        self.spend(trial.seconds if stopped_s is None else stopped_s)
        if stopped_s is None and trial.reached_s is not None:
            self._add(trial.batch_size, trial.cell_lr, trial.reached_s)

    def spend(self, seconds: float) -> None:
        """Time that goes into something other than a trial."""
        self.spent_s += seconds

    def recommend(self, batch_size: int, lr: float) -> None:
        """A recipe that no trial of the search stands behind."""
        self._add(batch_size, lr, 0.0)

    @property
    def recipes(self) -> list[tuple[int, float]]:
        """Batch size and rate of everything that could have been given, in the order in which it was found."""
        return [(each.batch_size, each.lr) for each in self._found]

    def regret(self, costs: Sequence[float] = COSTS) -> list[float]:
        """Time to target of the recipe that would be given after each cost ÷ that of the table's best cell.

        The recipe is the one with the fastest trial so far; its regret is infinite before there is one.
        """
        return [self._regret_after(cost * self.best_s) for cost in costs]

    def _regret_after(self, seconds: float) -> float:
        found = [each for each in self._found if each.spent_s <= seconds * (1 + 1e-9)]
        if not found:
            return math.inf
        best = min(found, key=lambda each: each.seconds)
        return self.yardstick.seconds(self.table, self.profile, best.batch_size, best.lr) / self.best_s

    def _add(self, batch_size: int, lr: float, seconds: float) -> None:
        self._found.append(_Found(spent_s=self.spent_s, batch_size=batch_size, lr=lr, seconds=seconds))

    def _limit(self, batch_size: int) -> int:
        return math.ceil(CENSOR * self.table.best_rate(batch_size)[1])
