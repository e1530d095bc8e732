"""Two numbers of every run against each other: one point a run, in the colour of its batch size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ....report.blocks import Figure, Json, Key, Option, Switch
from ....report.charts import PointMark, finite, layout, points, safe
from .whole_axis import whole_axis

__all__ = ["Choice", "RunGroup", "run_scatter"]


@dataclass(frozen=True, kw_only=True)
class RunGroup:
    """Runs that look alike: those of one arm."""

    label: str
    colour: str
    mark: PointMark
    runs: tuple[str, ...]
    """What is said of each when it is pointed at."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What an axis can show: for each group, a number of each of its runs."""

    label: str
    values: tuple[tuple[float | None, ...], ...]


def run_scatter(
    name: str,
    title: str,
    groups: Sequence[RunGroup],
    *,
    across: Choice,
    up: Sequence[Choice],
    caption: str,
    height: int = 360,
) -> Figure:
    """The figure; the vertical axis can be exchanged where there are several choices."""
    traces: list[Json] = []
    for i, group in enumerate(groups):
        texts = [f"{safe(group.label)}<br>{safe(run)}" for run in group.runs]
        marks = points([0.0] * len(texts), up[0].values[i], texts, mark=group.mark, colour=group.colour)
        traces.append({**marks, "x": finite(across.values[i]), "legendgroup": f"{name}-{i}"})
    keys = tuple(Key(g.mark, g.colour, g.label, f"{name}-{i}") for i, g in enumerate(groups))
    options = tuple(
        Option(one.label, tuple(tuple(finite(v)) for v in one.values), {"yaxis": whole_axis(one.values)}) for one in up
    )
    frame = layout(whole_axis(across.values, across.label), whole_axis(up[0].values), height=height)
    return Figure(
        name,
        title if len(up) > 1 else f"{title}: {up[0].label}",
        tuple(traces),
        frame,
        caption,
        keys,
        (Switch("y", "of", options),) if len(up) > 1 else (),
    )
