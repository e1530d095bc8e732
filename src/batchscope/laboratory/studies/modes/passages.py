"""Batch sizes at their best learning rates against a target that all of their runs come to. Numbers only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ....fits import intervals
from ....fits.curves import first_passage
from ....store.records import Estimate
from ...conclusions import best_rates, runs_of
from ...readings import over_seeds, readings
from ...records import Study, SummaryRow

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = ["Axis", "Passages", "common_target", "passages_of"]

Axis = Literal["epoch", "step", "seconds"]


@dataclass(frozen=True, kw_only=True)
class Passages:
    """When the runs of each batch size come to the common target, at the best learning rate of each.

    Attributes:
        target: of the metric that choices are made by.
        arms: by batch size, the smallest first.
        times: by axis and batch size, the value of each seed.
    """

    target: float
    arms: Mapping[int, SummaryRow]
    times: Mapping[Axis, Mapping[int, Mapping[int, float]]]

    def mean(self, axis: Axis, size: int) -> Estimate:
        """Geometric mean over the seeds of when a batch size comes to the target."""
        return intervals.geometric_mean(self.times[axis].get(size, {}).values(), axis)

    def ratio(self, axis: Axis, above: int, below: int) -> Estimate:
        """Ratio over the seeds of when two batch sizes come to the target."""
        over, under = self.times[axis].get(above, {}), self.times[axis].get(below, {})
        return intervals.geometric_ratio(intervals.matched(over, under))


def common_target(study: Study, variant: str = "") -> float | None:
    """The best value of the metric that every run at a best learning rate came to; `None` where there is none."""
    name = f"best_{study.metric}"
    values = [
        value
        for arm in best_rates(study, variant)
        for row in runs_of(study, arm)
        if (value := row.values.get(name)) is not None
    ]
    if not values:
        return None
    return min(values) if study.larger_is_better else max(values)


def passages_of(study: Study, runs: Sequence[StoredRun]) -> Passages | None:
    """First passages of the common target; `None` where no run has a value."""
    target = common_target(study)
    if target is None:
        return None
    arms = {arm.batch_size: arm for arm in best_rates(study, "")}
    times: dict[Axis, dict[int, dict[int, float]]] = {
        axis: {size: _times(study, runs, arm, target, axis) for size, arm in arms.items()} for axis in _AXES
    }
    return Passages(target=target, arms=arms, times=times)


_AXES: tuple[Axis, ...] = ("epoch", "step", "seconds")


def _times(study: Study, runs: Sequence[StoredRun], arm: SummaryRow, target: float, axis: Axis) -> dict[int, float]:
    def read(run: StoredRun) -> float | None:
        course = readings(study, run, study.metric)
        steps, values = [float(r.step) for r in course], [r.value for r in course]
        clock = [float(getattr(reading, axis)) for reading in course]
        return first_passage(steps, values, target, rising=study.larger_is_better, clock=clock)

    return over_seeds(study, runs, arm, read)[1]
