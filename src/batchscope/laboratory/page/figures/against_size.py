"""Estimates against batch size, one series or several, each point with its interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ....report.blocks import Figure, Json, Key
from ....report.charts import (
    batch_axis,
    finite,
    layout,
    line,
    log_axis,
    metric_axis,
    points,
    safe,
    value_axis,
    with_errors,
)
from ....store.records import Estimate
from ....wording import count, number, with_interval

__all__ = ["Series", "against_size"]

_FURTHEST = 4.0
"""An interval that reaches further below the minimum than by this factor leaves a log chart at the bottom."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points that belong together."""

    label: str
    colour: str
    """A name of the page's style."""
    values: Mapping[int, Estimate]
    """By batch size; what has no value is left out."""
    mark: Literal["disc", "open"] = "disc"
    dash: Literal["solid", "dash", "dot"] = "solid"


Scale = Literal["log", "from zero", "spread"]
"""Of the vertical axis; `spread` is from the minimum to the maximum, and so is `log` where one is not positive."""


def against_size(
    name: str,
    title: str,
    series: Sequence[Series],
    *,
    caption: str,
    scale: Scale,
    format: Callable[[float], str] = number,
    height: int = 320,
) -> Figure:
    """A figure of values against batch size.

    Args:
        name: unique on the page.
        title: what the vertical axis shows.
        series: what is drawn.
        caption: what to conclude.
        scale: of the vertical axis.
        format: of its values.
        height: in pixels.
    """
    drawn = [trace for one in series for trace in _traces(one, format)]
    sizes = sorted({size for one in series for size in one.values})
    estimates = [e for one in series for e in one.values.values()]
    frame = layout(batch_axis(sizes, labels=6), _axis(estimates, scale, format), height=height)
    keys = tuple(Key(one.mark, one.colour, one.label) for one in series if len(series) > 1)
    return Figure(name, title, tuple(drawn), frame, caption, keys)


def _axis(estimates: Sequence[Estimate], scale: Scale, format: Callable[[float], str]) -> Json:
    values = [e.value for e in estimates if e.value is not None]
    ends = [v for e in estimates for v in (e.value, e.low, e.high) if v is not None]
    if scale == "from zero":
        return value_axis(ends, format)
    if scale == "log" and min(values, default=1.0) > 0:
        return log_axis([max(v, min(values) / _FURTHEST) for v in ends], format, labels=6)
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    pad = 0.08 * (high - low) or 0.5
    return {**metric_axis([]), "range": [low - pad, high + pad]}


def _traces(one: Series, format: Callable[[float], str]) -> tuple[Json, Json]:
    found = [(size, e, e.value) for size, e in sorted(one.values.items()) if e.value is not None]
    sizes, values = [size for size, *_ in found], [value for *_, value in found]
    texts = [safe(f"batch size {count(size)}, {one.label}: {with_interval(e, format)}") for size, e, _ in found]
    marks = points(sizes, values, texts, mark=one.mark, colour=one.colour)
    below = [value - e.low if e.low is not None else 0.0 for _, e, value in found]
    above = [e.high - value if e.high is not None else 0.0 for _, e, value in found]
    if any(below) or any(above):
        marks = with_errors(marks, below, above)
    curve = line(sizes, finite(values), colour=one.colour)
    return {**curve, "line": {**curve["line"], "dash": one.dash}}, marks
