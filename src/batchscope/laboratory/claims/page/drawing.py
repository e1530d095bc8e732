"""What the figures of the verdicts' page share: arms as curves, values of arms by batch size, and names in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ....fits import intervals
from ....report.blocks import Figure, Json, Switch
from ....report.charts import metric_axis
from ....store.records import Estimate
from ....wording import count, number
from ...courses import Course, course_of
from ...page.figures.against_size import Series
from ...page.figures.branch_curves import shades
from ...summary import range_in
from ..results import Setting, TaskResults

__all__ = [
    "BEST_COLOUR",
    "ONE_COLOUR",
    "by_size",
    "course_at",
    "estimate",
    "extent",
    "named",
    "over_seeds",
    "shade_of",
    "two_series",
    "with_shared_axis",
]

ONE_COLOUR, BEST_COLOUR = "var(--series-0)", "var(--series-1)"
"""At one learning rate, and each batch size at its best: the same in all figures."""


def named(arm: Setting | None) -> str:
    """An arm in words."""
    return "none" if arm is None else f"batch size {count(arm.batch_size)} at learning rate {number(arm.lr)}"


def shade_of(sizes: Sequence[int]) -> Mapping[int, str]:
    """The colour of each batch size."""
    return dict(zip(sizes, shades(len(sizes)), strict=True))


def course_at(e: TaskResults, arm: Setting | None) -> Course | None:
    """The mean course of an arm; `None` where it was not run, or all its runs diverged."""
    found = (s for s in e.study.summary if arm is not None and (s.batch_size, s.lr, s.variant) == arm)
    row = next(found, None)
    return None if row is None else course_of(e.study, tuple(e.runs.values()), row)


def over_seeds(e: TaskResults, arm: Setting | None, name: str) -> Estimate:
    """A value of an arm's rows: the mean over the seeds with its interval."""
    return intervals.mean(e.values(arm, name).values(), within=range_in(e.study.rows, name))


def by_size(sizes: Iterable[int], of: Callable[[int], Estimate]) -> dict[int, Estimate]:
    """Estimates by batch size, of those that are known."""
    found = {size: of(size) for size in sizes}
    return {size: estimate for size, estimate in found.items() if estimate.value is not None}


def two_series(e: TaskResults, of: Callable[[Setting | None], Estimate]) -> tuple[Series, Series]:
    """Something of every batch size at one learning rate, and of each at its best."""
    sizes = e.plan.batch_sizes
    one, best = by_size(sizes, lambda b: of(e.at_one_rate(b))), by_size(sizes, lambda b: of(e.at_best(b)))
    return (
        Series(label=f"at one learning rate, {number(e.one_rate)}", colour=ONE_COLOUR, values=one),
        Series(label="each at its best learning rate", colour=BEST_COLOUR, values=best, mark="open", dash="dash"),
    )


def estimate(record: Mapping[str, Any]) -> Estimate:
    """A measurement's number as it was noted."""
    return Estimate(**record)


def extent(values: Iterable[float | None]) -> Json:
    """An axis on which all values are in sight."""
    return metric_axis([[v] for v in values if v is not None])


def with_shared_axis(figure: Figure, labels: Sequence[str]) -> Figure:
    """A figure with one vertical axis for some positions of the switch, so that they can be compared."""
    switches: list[Switch] = []
    layout = dict(figure.layout)
    for switch in figure.switches:
        if switch.axis == "y":
            shared = [o for o in switch.options if o.label in labels]
            axis = metric_axis([values for o in shared for values in o.data if any(v is not None for v in values)])
            options = tuple(replace(o, layout={"yaxis": axis}) if o in shared else o for o in switch.options)
            switch = replace(switch, options=options)
            layout["yaxis"] = options[0].layout["yaxis"]
        switches.append(switch)
    return replace(figure, layout=layout, switches=tuple(switches))
