"""The course of an arm over its seeds: the mean of every metric against epoch, step and second, and its phases.

An epoch is *well trained* where the mean of the metric that choices are made by is as good as its best, up to one
standard error over the seeds at the best epoch (the rule of Breiman et al. 1984), and no less than a hundredth of all
that was gained since the start. Before the first such epoch training is *under-trained*, after the last *over-trained*.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..fits import intervals
from ..store.records import RunStatus
from ..store.runs import StoredRun
from .records import Study, SummaryRow
from .summary import Evaluation, evaluations

__all__ = ["Course", "Phases", "course_of", "phases"]

_MINIMUM_SHARE = 0.01


@dataclass(frozen=True, kw_only=True)
class Course:
    """Means over the runs of an arm that did not diverge, as long as all of them went on; one value an evaluation."""

    runs: int
    steps: tuple[int, ...]
    epochs: tuple[float, ...]
    seconds: tuple[float, ...]
    mean: Mapping[str, tuple[float, ...]]
    low: Mapping[str, tuple[float, ...]]
    """The minimum over the seeds."""
    high: Mapping[str, tuple[float, ...]]
    """The maximum over the seeds."""
    standard_error: Mapping[str, tuple[float, ...]]
    """0 for a single seed."""


@dataclass(frozen=True, kw_only=True)
class Phases:
    """Epochs at which an arm is well trained, and where its best lies."""

    best_epoch: float
    well_from: float
    well_until: float
    end: float

    @property
    def still_improving(self) -> bool:
        """Whether the best is the last evaluation: more epochs may be better."""
        return self.best_epoch >= self.end

    @property
    def over_trained(self) -> bool:
        """Whether the run went on after the last well-trained epoch."""
        return self.well_until < self.end


def course_of(study: Study, runs: Sequence[StoredRun], arm: SummaryRow) -> Course | None:
    """The mean course of an arm; `None` where every run of it diverged."""
    lost = RunStatus.DIVERGED.value
    wanted = {r.run for r in study.rows if (r.variant, r.batch_size, r.lr) == arm.key and r.status != lost}
    courses = [evaluations(run, study.examples_of(run)) for run in runs if run.id in wanted]
    if not courses:
        return None
    stretch = [at for at in zip(*courses, strict=False) if len({e.step for e in at}) == 1]
    names = [name for name in _names(courses[0]) if all(name in e.metrics for c in courses for e in c)]
    values = {name: [[e.metrics[name] for e in at] for at in stretch] for name in names}
    return Course(
        runs=len(courses),
        steps=tuple(at[0].step for at in stretch),
        epochs=tuple(at[0].epoch for at in stretch),
        seconds=tuple(_mean([e.seconds for e in at]) for at in stretch),
        mean={name: tuple(map(_mean, found)) for name, found in values.items()},
        low={name: tuple(map(min, found)) for name, found in values.items()},
        high={name: tuple(map(max, found)) for name, found in values.items()},
        standard_error={name: tuple(map(_standard_error, found)) for name, found in values.items()},
    )


def phases(course: Course, metric: str, *, larger_is_better: bool = False) -> Phases | None:
    """Phases in which a course is under-, well- and over-trained; `None` where its metric is not known.

    >>> values = (5.0, 3.0, 1.02, 1.0, 1.02, 2.0)
    >>> flat = {"val_loss": (0.0,) * 6}
    >>> course = Course(runs=1, steps=tuple(range(6)), epochs=tuple(map(float, range(6))), seconds=(0.0,) * 6,
    ...     mean={"val_loss": values}, low={}, high={}, standard_error=flat)
    >>> phases(course, "val_loss")
    Phases(best_epoch=3.0, well_from=2.0, well_until=4.0, end=5.0)
    """
    if metric not in course.mean or not course.epochs:
        return None
    sign = -1.0 if larger_is_better else 1.0
    values = [sign * v for v in course.mean[metric]]
    best = min(range(len(values)), key=lambda i: values[i])
    allowed = max(course.standard_error[metric][best], _MINIMUM_SHARE * (values[0] - values[best]))
    well = [epoch for epoch, v in zip(course.epochs, values, strict=True) if v <= values[best] + allowed]
    return Phases(best_epoch=course.epochs[best], well_from=well[0], well_until=well[-1], end=course.epochs[-1])


def _names(course: Sequence[Evaluation]) -> list[str]:
    return list(course[0].metrics)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _standard_error(values: Sequence[float]) -> float:
    """Standard error of a mean, `s / √n`; 0 for a single value."""
    return (intervals.standard_deviation(values).value or 0.0) / math.sqrt(len(values))
