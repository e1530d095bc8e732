"""Travel of a study's weights: what the probe `DistanceFromInit` stored, by run and over the seeds.

Quantities are those of a `Travel`, in weight units and degrees, and `norm_change`, the norm over the initial norm less
1. They are read for all trained parameters, for weights and biases apart, or for one layer. Of the probe `UpdateSize`,
there is what one step and what the steps of an epoch add up to. Numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ..store.not_applicable import not_applicable
from ..store.ranges import ANY, NOT_NEGATIVE, SHARE, Range
from ..store.records import Estimate, Row
from .conclusions import runs_of
from .courses import Course, course_of
from .readings import over_seeds
from .records import Study, SummaryRow

if TYPE_CHECKING:
    from ..store.runs import StoredRun

__all__ = [
    "ALL",
    "HARDLY",
    "Group",
    "Moment",
    "Quantity",
    "Update",
    "groups_of",
    "metric_name",
    "travel_of",
    "travelled",
    "update_of",
    "update_range",
    "with_travel",
    "within",
]

HARDLY = 0.05
"""Up to this change of the norm, either way, it hardly changes; published is 0.002 over 3 epochs (Chang, Pathak)."""
Quantity = Literal["distance", "norm", "initial_norm", "norm_change", "angle_degrees", "turned_degrees"]
Update = Literal["mean_norm", "norm_of_sum", "straightness"]
"""The size of one update, the distance that the updates of an epoch carry together, and that over their path."""
Moment = Literal["end", "best"]
"""The last evaluation, or the best one by the metric that choices are made by."""


@dataclass(frozen=True)
class Group:
    """Parameters that are looked at together."""

    label: str
    path: tuple[str, ...]
    """Where a row of the probe has them."""

    @property
    def is_layer(self) -> bool:
        """Whether the group is one layer."""
        return self.path[0] == "layers"


ALL = Group("all parameters", ("all",))
_APART = (Group("weights", ("weights",)), Group("biases", ("biases",)))


def groups_of(runs: Sequence[StoredRun]) -> tuple[Group, ...]:
    """Groups of parameters: all; weights and biases, where the model has both; its layers, where it has several."""
    row = next((row for run in runs for row in run.rows if _is_travel(row)), None)
    if row is None:
        return ()
    apart = _APART if all("distance" in row[group.path[0]] for group in _APART) else ()
    layers = tuple(Group(f"layer {name}", ("layers", name)) for name in row["layers"])
    return (ALL, *apart, *(layers if len(layers) > 1 else ()))


def travel_of(run: StoredRun, group: Group = ALL, quantity: Quantity = "distance") -> dict[int, float]:
    """A quantity at each evaluation of a run, by step; without those at which it has no value."""
    found = ((row["step"], _value(row, group, quantity)) for row in run.rows if _is_travel(row))
    return {step: value for step, value in found if value is not None}


def travelled(
    study: Study,
    runs: Sequence[StoredRun],
    arm: SummaryRow,
    *,
    group: Group = ALL,
    quantity: Quantity = "distance",
    moment: Moment = "end",
) -> tuple[Estimate, dict[int, float]]:
    """A quantity at a moment of the runs of an arm that did not diverge: its mean with an interval, and by seed."""
    best = {row.run: row.values.get("best_step") for row in runs_of(study, arm)}

    def read(run: StoredRun) -> float | None:
        course = travel_of(run, group, quantity)
        step = max(course, default=None) if moment == "end" else best.get(run.id)
        return None if step is None else course.get(int(step))

    return over_seeds(study, runs, arm, read, within=ANY if quantity == "norm_change" else NOT_NEGATIVE)


def update_range(quantity: Update) -> Range:
    """Where it can lie: straightness between 0 and 1, norms above 0."""
    return SHARE if quantity == "straightness" else NOT_NEGATIVE


def update_of(run: StoredRun, quantity: Update) -> float | None:
    """Mean of an update's quantity over the whole epochs of a run; `None`: less than one epoch, or no probe."""
    found = [row.get(quantity) for row in run.rows if row.get("kind") == "epoch_updates"]
    measured = [value for value in found if value is not None]
    return _mean(measured) if measured else None


def within(estimate: Estimate, bound: float) -> bool | None:
    """Whether a value lies between minus and plus a bound; `None` where its interval leaves it open.

    >>> def e(low, high): return Estimate(value=(low + high) / 2, low=low, high=high, n=3, unit="", method="")
    >>> within(e(-0.1, 0.2), 0.5), within(e(0.6, 0.7), 0.5), within(e(0.4, 0.6), 0.5)
    (True, False, None)
    """
    if estimate.low is None or estimate.high is None:
        return None
    if -bound < estimate.low and estimate.high < bound:
        return True
    return False if estimate.low > bound or estimate.high < -bound else None


def metric_name(quantity: Quantity, group: Group = ALL) -> str:
    """Name under which `with_travel` adds a quantity to a course."""
    return f"{quantity} of {group.label}"


def with_travel(
    study: Study,
    runs: Sequence[StoredRun],
    arm: SummaryRow,
    groups: Sequence[Group] = (ALL,),
    quantities: Sequence[Quantity] = ("distance",),
) -> Course | None:
    """The mean course of an arm with its travel among the metrics, by `metric_name`.

    A quantity that a run does not have at every evaluation after the first is left out; one that has no value before
    the first step (an angle of no movement) stands at its first value there. `None`: every run of the arm diverged.
    """
    course = course_of(study, runs, arm)
    if course is None:
        return None
    ids = {row.run for row in runs_of(study, arm) if row.status != "diverged"}
    own = [run for run in runs if run.id in ids]
    added: dict[str, list[list[float]]] = {}
    for group in groups:
        for quantity in quantities:
            columns = [_column(travel_of(run, group, quantity), course.steps) for run in own]
            if all(columns):
                added[metric_name(quantity, group)] = [list(at) for at in zip(*columns, strict=True)]
    return replace(
        course,
        mean={**course.mean, **_over_seeds(added, _mean)},
        low={**course.low, **_over_seeds(added, min)},
        high={**course.high, **_over_seeds(added, max)},
    )


def _over_seeds(
    added: Mapping[str, list[list[float]]], take: Callable[[list[float]], float]
) -> dict[str, tuple[float, ...]]:
    return {name: tuple(take(at) for at in values) for name, values in added.items()}


def _column(course: Mapping[int, float], steps: Sequence[int]) -> list[float]:
    """Values at these steps; empty where there is none at one of them but the first."""
    measured = [step for step in steps if step in course]
    if not measured or any(step not in course for step in steps[1:]):
        return []
    return [course.get(step, course[measured[0]]) for step in steps]


def _is_travel(row: Row) -> bool:
    return row.get("kind") == "weights" and not_applicable(row) is None


def _value(row: Row, group: Group, quantity: Quantity) -> float | None:
    found: Any = row
    for part in group.path:
        found = found.get(part, {})
    if quantity == "norm_change":
        return found["norm"] / found["initial_norm"] - 1.0 if found.get("initial_norm") else None
    return found.get(quantity)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
