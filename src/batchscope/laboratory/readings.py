"""What is read off the course of a run, and by what a run is judged. Numbers only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from ..fits import intervals
from ..store.not_applicable import not_applicable
from ..store.ranges import ANY, Range
from ..store.records import Estimate
from .conclusions import runs_of
from .courses import Course, course_of
from .records import Study, SummaryRow
from .summary import evaluations

if TYPE_CHECKING:
    from ..store.runs import StoredRun

__all__ = [
    "DISTANCE",
    "EndMetric",
    "Reading",
    "arm_of",
    "end_metric_of",
    "over_seeds",
    "readings",
    "with_distance",
]

DISTANCE = "distance_from_init"
"""The Euclidean distance of all trained weights from their initial values, as the probe `distance` wrote it."""

_ONE_POINT = 0.01
_SHARE_OF_VALUE = 0.1


class Reading(NamedTuple):
    """One value of a run's course."""

    step: int
    epoch: float
    seconds: float
    value: float


@dataclass(frozen=True, kw_only=True)
class EndMetric:
    """The metric that a study compares runs by at their end; it chooses nothing."""

    name: str
    larger_is_better: bool

    @property
    def margin(self) -> str:
        """Margin within which two values count as equally good, in words; fixed here, whatever the data."""
        return "0.01" if self._is_accuracy else "a tenth of it"

    def margin_at(self, value: float) -> float:
        """Margin as a number: one point of an accuracy, else a tenth of the value compared with.

        >>> EndMetric(name="test_accuracy", larger_is_better=True).margin_at(0.9)
        0.01
        >>> EndMetric(name="val_loss", larger_is_better=False).margin_at(0.5)
        0.05
        """
        return _ONE_POINT if self._is_accuracy else _SHARE_OF_VALUE * abs(value)

    def as_good(self, change: Estimate, value: float | None) -> bool | None:
        """Whether what changed by `change` is no worse than `value` by more than the margin; `None`: it is open.

        >>> def by(low, high): return Estimate(value=(low + high) / 2, low=low, high=high, n=3, unit="", method="")
        >>> accuracy = EndMetric(name="test_accuracy", larger_is_better=True)
        >>> [accuracy.as_good(by(*ends), 0.9) for ends in ((-0.005, 0.02), (-0.3, -0.2), (-0.05, 0.02))]
        [True, False, None]
        """
        if change.low is None or change.high is None or value is None:
            return None
        margin = self.margin_at(value)
        worst, best = (change.low, change.high) if self.larger_is_better else (-change.high, -change.low)
        if worst > -margin:
            return True
        return False if best < -margin else None

    @property
    def _is_accuracy(self) -> bool:
        return "accuracy" in self.name


def end_metric_of(study: Study) -> EndMetric:
    """Test accuracy, as the publications have it; else accuracy on validation data, else what choices are made by."""
    names = {name for row in study.rows for name in row.values}
    for name in ("test_accuracy", "val_accuracy"):
        if f"final_{name}" in names:
            return EndMetric(name=name, larger_is_better=True)
    test = study.metric.replace("val_", "test_", 1)
    return EndMetric(name=test if f"final_{test}" in names else study.metric, larger_is_better=study.larger_is_better)


def arm_of(study: Study, batch_size: int, lr: float, variant: str = "") -> SummaryRow | None:
    """The arm of that batch size, learning rate and variant, where runs of it are finished."""
    return next((s for s in study.summary if s.key == (variant, batch_size, lr)), None)


def readings(study: Study, run: StoredRun, name: str) -> tuple[Reading, ...]:
    """The course of a metric, or of `DISTANCE`, in a run; empty where it was not measured."""
    distances: dict[int, float] = {
        row["step"]: row["all"]["distance"]
        for row in run.rows
        if row.get("kind") == "weights" and not_applicable(row) is None
    }
    course = evaluations(run, study.examples_of(run))
    found = ((e, distances.get(e.step) if name == DISTANCE else e.metrics.get(name)) for e in course)
    return tuple(Reading(e.step, e.epoch, e.seconds, value) for e, value in found if value is not None)


def over_seeds(
    study: Study,
    runs: Sequence[StoredRun],
    arm: SummaryRow,
    read: Callable[[StoredRun], float | None],
    unit: str = "",
    *,
    within: Range = ANY,
) -> tuple[Estimate, dict[int, float]]:
    """A number read off each run of an arm that did not diverge: its mean with an interval, and its value by seed."""
    found = {run.id: run for run in runs}
    rows = [row for row in runs_of(study, arm) if row.run in found and row.status != "diverged"]
    values = {row.seed: value for row in rows if (value := read(found[row.run])) is not None}
    return intervals.mean(values.values(), unit, within=within), values


def with_distance(study: Study, runs: Sequence[StoredRun], arm: SummaryRow) -> Course | None:
    """The mean course of an arm with the distance from the initial weights among its metrics, where it was measured."""
    course = course_of(study, runs, arm)
    if course is None:
        return None
    ids = {row.run for row in runs_of(study, arm) if row.status != "diverged"}
    found = [{r.step: r.value for r in readings(study, run, DISTANCE)} for run in runs if run.id in ids]
    if not all(set(course.steps) <= set(distances) for distances in found):
        return course
    columns = [[distances[step] for distances in found] for step in course.steps]
    return replace(
        course,
        mean={**course.mean, DISTANCE: tuple(sum(values) / len(values) for values in columns)},
        low={**course.low, DISTANCE: tuple(min(values) for values in columns)},
        high={**course.high, DISTANCE: tuple(max(values) for values in columns)},
    )
