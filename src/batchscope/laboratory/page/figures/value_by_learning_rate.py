"""Values of arms against their learning rate, a line for each series, with a switch for which value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ....report.blocks import Figure, Json, Key, Option, Switch
from ....report.charts import PointMark, finite, layout, line, log_axis, points, safe
from ....store.records import Estimate
from ....wording import number
from .branch_curves import outcome_axis
from .whole_axis import whole_axis

__all__ = ["LearningRateSeries", "ValueChoice", "value_by_learning_rate"]


@dataclass(frozen=True, kw_only=True)
class LearningRateSeries:
    """Arms that differ in their learning rate alone."""

    label: str
    colour: str
    mark: PointMark
    lrs: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ValueChoice:
    """What the vertical axis can show: for each series, a value at each of its learning rates."""

    label: str
    values: tuple[tuple[Estimate, ...], ...]
    rising: bool = False
    """Drawn from the minimum to the maximum, not logarithmic."""


def value_by_learning_rate(
    name: str, title: str, series: Sequence[LearningRateSeries], choices: Sequence[ValueChoice], caption: str
) -> Figure:
    """The figure: means over the seeds, without intervals, which a table beside it has."""
    traces: list[Json] = []
    for i, (one, found) in enumerate(zip(series, choices[0].values, strict=True)):
        group, values = f"{name}-{i}", [e.value for e in found]
        texts = [f"{safe(one.label)}, learning rate {number(lr)}" for lr in one.lrs]
        marks = points(one.lrs, values, texts, mark=one.mark, colour=one.colour)
        marks["hovertemplate"] = "%{text}<br>%{y:.4g}<extra></extra>"
        traces += [
            {**line(one.lrs, values, colour=one.colour), "legendgroup": group},
            {**marks, "legendgroup": group},
        ]
    options = tuple(
        Option(
            choice.label,
            tuple(tuple(finite(e.value for e in found)) for found in choice.values for _ in ("line", "marks")),
            {"yaxis": _axis(choice)},
        )
        for choice in choices
    )
    keys = tuple(Key("line", one.colour, one.label, f"{name}-{i}") for i, one in enumerate(series))
    across = log_axis([lr for one in series for lr in one.lrs], title="learning rate (log scale)")
    return Figure(
        name,
        title,
        tuple(traces),
        layout(across, options[0].layout["yaxis"], height=360),
        caption,
        keys,
        (Switch("y", "of", options),) if len(options) > 1 else (),
    )


def _axis(choice: ValueChoice) -> Json:
    values = [[e.value for e in found] for found in choice.values]
    return outcome_axis(values, rising=True) if choice.rising else whole_axis(values)
