"""What was measured on a task, as the rules that decide statements ask for it. Numbers only, no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from typing import Any, NamedTuple

from ...fits import intervals
from ...fits.curves import first_passage
from ...fits.step_time import StepTime, fit_step_time
from ...store.metrics import is_loss, known_mode
from ...store.not_applicable import not_applicable
from ...store.ranges import ANY, Range
from ...store.records import Estimate, RunStatus
from ...store.runs import StoredRun
from ..records import Study, StudyRow, SummaryRow
from ..summary import Evaluation, evaluations, range_in
from .plan import ClaimsPlan, is_trial, norm_variant

__all__ = ["RATES", "Quality", "Setting", "TaskResults", "step_time_of_rounds"]

RATES = "rates"
"""The measurement that holds the best learning rates as they were chosen with the first seeds: by variant and size."""

_RUNNING = "train_loss"
"""The training loss as training saw it: a mean over the steps since the last evaluation."""


class Setting(NamedTuple):
    """What runs of different seeds have in common."""

    batch_size: int
    lr: float
    variant: str = ""


class Quality(NamedTuple):
    """A metric, and which way it is better."""

    metric: str
    sign: int
    """1 where larger is better, -1 where smaller is."""


def chosen_rate(summary: Iterable[SummaryRow], variant: str, batch_size: int) -> float | None:
    """The best learning rate of a batch size; `None` where it has none at which no seed diverged."""
    found = (s.lr for s in summary if s.best_lr and (s.variant, s.batch_size) == (variant, batch_size))
    return next(found, None)


def step_time_of_rounds(timing: Mapping[str, Any]) -> StepTime:
    """Step-time model of the median seconds at each size, over the rounds of a timing."""
    columns = zip(*timing["seconds"], strict=True)
    return fit_step_time([(size, median(seconds)) for size, seconds in zip(timing["sizes"], columns, strict=True)])


_DISTURBED = 2.0
"""By which a step takes longer than the median of its size where something else was at work meanwhile."""
_ABOVE_COMMON = 1.02
"""By how much a level that all runs reach lies above the worst of their best values."""


@dataclass(frozen=True, kw_only=True)
class TaskResults:
    """Runs and measurements of one task.

    Attributes:
        study: rows, summary and measurements.
        runs: with their courses, by id.
        plan: what was to be run.
        memory: peak bytes of a step, by batch size.
    """

    study: Study
    runs: Mapping[str, StoredRun]
    plan: ClaimsPlan
    _courses: dict[str, list[Evaluation]] = field(default_factory=dict, repr=False)

    # --- which arms -----------------------------------------------------------------------------------------------

    @cached_property
    def one_rate(self) -> float:
        """The best learning rate of the smallest batch size: what texts mean that speak of one learning rate."""
        return self._best_rate("", self.plan.smallest) or self.plan.lrs[0]

    def at_one_rate(self, batch_size: int, variant: str = "") -> Setting:
        """A batch size at that learning rate."""
        return Setting(batch_size, self.one_rate, variant)

    def at_best(self, batch_size: int, variant: str = "") -> Setting | None:
        """A batch size at its own best learning rate."""
        lr = self._best_rate(variant, batch_size)
        return None if lr is None else Setting(batch_size, lr, variant)

    def _best_rate(self, variant: str, batch_size: int) -> float | None:
        """As it was chosen when the runs that rest on it were made, else over all seeds."""
        chosen = (self.read_note(RATES) or {}).get(variant)
        if chosen is not None:
            return chosen.get(str(batch_size))
        return chosen_rate(self.study.summary, variant, batch_size)

    @property
    def ends(self) -> tuple[int, int]:
        """The smallest and the largest batch size."""
        return self.plan.smallest, self.plan.largest

    @cached_property
    def without(self) -> str:
        """The variant that has no batch normalisation: the task as it came, unless its model has some."""
        return norm_variant("none") if self.read_note("has-norm") else ""

    @property
    def ends_at_one_rate(self) -> tuple[Setting, Setting]:
        """The smallest and the largest batch, both at the one learning rate."""
        return self.at_one_rate(self.plan.smallest), self.at_one_rate(self.plan.largest)

    @property
    def ends_at_best(self) -> tuple[Setting | None, Setting | None]:
        """The smallest and the largest batch, each at its own best learning rate."""
        return self.at_best(self.plan.smallest), self.at_best(self.plan.largest)

    # --- rows -----------------------------------------------------------------------------------------------------

    @cached_property
    def _rows(self) -> dict[Setting, list[StudyRow]]:
        found: dict[Setting, list[StudyRow]] = {}
        for row in sorted(self.study.rows, key=lambda r: r.seed):
            found.setdefault(Setting(row.batch_size, row.lr, row.variant), []).append(row)
        return found

    def rows(self, arm: Setting | None) -> list[StudyRow]:
        """Rows of an arm by seed; none where there is no such arm."""
        return [] if arm is None else self._rows.get(arm, [])

    def kept(self, arm: Setting | None) -> list[StudyRow]:
        """Rows of an arm that did not diverge."""
        return [row for row in self.rows(arm) if row.status != RunStatus.DIVERGED.value]

    def arms(self, variant: str) -> list[Setting]:
        """All arms of a variant, by batch size and learning rate."""
        return sorted(arm for arm in self._rows if arm.variant == variant)

    def trials(self) -> list[Setting]:
        """All arms of the trials, by batch size and learning rate."""
        return sorted(arm for arm in self._rows if is_trial(arm.variant))

    def ids(self, *arms: Setting | None) -> tuple[str, ...]:
        """Ids of the runs of some arms."""
        return tuple(row.run for arm in arms for row in self.rows(arm))

    def values(self, arm: Setting | None, name: str) -> dict[int, float]:
        """A value of the rows by seed, where it is known."""
        return {row.seed: v for row in self.rows(arm) if (v := row.values.get(name)) is not None}

    def course(self, row: StudyRow) -> list[Evaluation]:
        """The evaluations of a run."""
        if row.run not in self._courses:
            run = self.runs[row.run]
            self._courses[row.run] = evaluations(run, self.study.examples_of(run))
        return self._courses[row.run]

    def lost(self, row: StudyRow) -> bool:
        """Whether a run diverged, or ended no better than it began."""
        if row.status == RunStatus.DIVERGED.value:
            return True
        course = self.course(row)
        available = [v for e in course if math.isfinite(v := e.metrics.get(self.train_loss, math.nan))]
        first, last = (
            (available[0], course[-1].metrics.get(self.train_loss, math.nan)) if available else (math.nan, math.nan)
        )
        return not last < first

    # --- metrics --------------------------------------------------------------------------------------------------

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """Names of all metrics of the runs, the training part's among them."""
        run = next(iter(self.runs.values()), None)
        course = evaluations(run, self.study.examples) if run else []
        return tuple(course[0].metrics) if course else ()

    @property
    def metric(self) -> Quality:
        """The metric that choices are made by."""
        return Quality(self.study.metric, 1 if self.study.larger_is_better else -1)

    @cached_property
    def train_loss(self) -> str:
        """The training loss: in evaluation mode if that could be taken, else as training saw it."""
        return "train_loss_eval" if "train_loss_eval" in self.metrics else _RUNNING

    @cached_property
    def loss(self) -> str | None:
        """The validation loss, or another loss that is not the test part's."""
        available = [m for m in self.metrics if is_loss(m) and not m.startswith(("test_", "train_"))]
        return next((m for m in available if m.startswith("val")), available[0] if available else None)

    @cached_property
    def score(self) -> Quality:
        """A validation metric that is better when larger; where there is none, what choices are made by."""
        available = (m for m in self.metrics if not m.startswith(("test_", "train_")) and known_mode(m) == "max")
        name = next(available, None)
        return Quality(name, 1) if name else self.metric

    @cached_property
    def test(self) -> Quality | None:
        """The test metric that belongs to the metric that choices are made by; else any."""
        name = self.metric.metric.replace("val_", "test_", 1)
        if name in self.metrics and name.startswith("test_"):
            return Quality(name, self.metric.sign)
        available = [m for m in self.metrics if m.startswith("test_") and known_mode(m) is not None]
        return next((Quality(m, 1 if known_mode(m) == "max" else -1) for m in available), None)

    @property
    def gap(self) -> str | None:
        """The generalisation gap: training minus validation accuracy, else validation minus training loss."""
        train = self.score.metric.replace("val_", "train_", 1) + "_eval"
        return train if train in self.metrics and self.score.metric.startswith("val_") else None

    def gap_at(self, e: Evaluation) -> float | None:
        """Gap of a run: how much better it is on its training data, by the score, else by the loss."""
        if self.gap is not None:
            return self.score.sign * (e.metrics[self.gap] - e.metrics[self.score.metric])
        if self.loss is None or self.train_loss == _RUNNING:
            return None
        return e.metrics[self.loss] - e.metrics[self.train_loss]

    def range_of(self, metric: str) -> Range:
        """Where a metric can lie, by its name and by all runs."""
        return range_in(self.study.rows, f"final_{metric}")

    # --- comparisons, seed by seed: a seed draws the same weights and order in both -----------------------------------

    def difference(self, name: str, arm: Setting | None, other: Setting | None) -> Estimate:
        """Paired difference over the seeds, the value of `other` minus that of `arm`."""
        return self.compared(arm, other, lambda row: row.values.get(name), within=range_in(self.study.rows, name))

    def ratio(self, name: str, arm: Setting | None, other: Setting | None) -> Estimate:
        """Ratio over the seeds of the value of `other` to that of `arm`."""
        return self.compared(arm, other, lambda row: row.values.get(name), ratio=True)

    def compared(
        self,
        arm: Setting | None,
        other: Setting | None,
        of: Callable[[StudyRow], float | None],
        *,
        ratio: bool = False,
        within: Range = ANY,
    ) -> Estimate:
        """Differences, or ratios, of anything that a run has and that lies within a range."""
        first = {row.seed: of(row) for row in self.rows(arm)}
        second = {row.seed: of(row) for row in self.rows(other)}
        pairs = [(a, b) for seed, a in first.items() if a is not None and (b := second.get(seed)) is not None]
        if ratio:
            return intervals.geometric_ratio((b, a) for a, b in pairs)
        return intervals.paired_difference(((b, a) for a, b in pairs), within=within)

    def passages(
        self, arm: Setting | None, level: float, of: Callable[[Evaluation], float], metric: str | None = None
    ) -> dict[int, float]:
        """First passage of each seed's run to a level of the training loss, or of another metric that falls."""
        name = metric or self.train_loss
        found: dict[int, float | None] = {}
        for row in self.rows(arm):
            course = self.course(row)
            values = [e.metrics.get(name, math.nan) for e in course]
            found[row.seed] = first_passage([of(e) for e in course], values, level, rising=False)
        return {seed: at for seed, at in found.items() if at is not None}

    def common_level(self, arms: Iterable[Setting | None], metric: str | None = None) -> float | None:
        """A value of a falling metric that every run of some arms reaches: the worst of their best, a little above."""
        name = metric or self.train_loss
        best = [
            min((v for e in self.course(row) if math.isfinite(v := e.metrics.get(name, math.nan))), default=math.inf)
            for arm in arms
            for row in self.rows(arm)
        ]
        return _ABOVE_COMMON * max(best) if best and math.isfinite(max(best)) and max(best) > 0 else None

    def per_seed(self, arms: Sequence[Setting | None], name: str) -> dict[int, list[float]]:
        """Values of several arms in order, for each seed that all have."""
        available = [self.values(arm, name) for arm in arms]
        seeds = [seed for seed in (available[0] if available else {}) if all(seed in values for values in available)]
        return {seed: [values[seed] for values in available] for seed in seeds}

    # --- measurements ---------------------------------------------------------------------------------------------

    def read_note(self, name: str) -> Any:
        """The record of a measurement, which may be why there is none; `None`: it was not made."""
        return self.study.measurements.get(name)

    def measured(self, name: str) -> Any:
        """A measurement; `None`: it was not made, or does not apply to the task."""
        found = self.read_note(name)
        return None if not_applicable(found) is not None else found

    def why_not(self, name: str) -> str | None:
        """Why there is nothing to decide by: not measured in time, or not applicable."""
        found = self.read_note(name)
        return "it was not measured before the budget was used up" if found is None else not_applicable(found)

    def step_ratios(self, size: int, other: int) -> list[float]:
        """Seconds of a step at `other` over those at `size`, in each round of the timing that has both."""
        return [seconds[other] / seconds[size] for seconds in self.rounds if size in seconds and other in seconds]

    @cached_property
    def rounds(self) -> list[dict[int, float]]:
        """Seconds of a step by batch size in each round of the timing, without those that something else disturbed."""
        timing = self.measured("timing")
        if timing is None:
            return []
        usual = [median(seconds) for seconds in zip(*timing["seconds"], strict=True)]
        sizes: list[int] = timing["sizes"]
        return [
            {b: s for b, s, m in zip(sizes, found, usual, strict=True) if s <= _DISTURBED * m}
            for found in timing["seconds"]
        ]

    @cached_property
    def step_time(self) -> StepTime | None:
        """Step-time model of the task; `None`: steps were not timed."""
        timing = self.measured("timing")
        return None if timing is None else step_time_of_rounds(timing)

    def step_time_s(self, size: int) -> float | None:
        """Seconds of a step at a batch size that was timed; `None`: it was not."""
        timing = self.measured("timing")
        if timing is None or self.step_time is None or size not in timing["sizes"]:
            return None
        return self.step_time.of_batch(size)

    @cached_property
    def memory(self) -> dict[int, float]:
        """Peak bytes of a training step by batch size."""
        rows = ((row.batch_size, row.values.get("peak_memory_bytes")) for row in self.study.rows if not row.variant)
        return {size: peak for size, peak in rows if peak is not None}
