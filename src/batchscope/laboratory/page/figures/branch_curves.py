"""Courses of a named study's own choice in one figure, with switches for what is drawn against what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from ....report.blocks import Figure, Json, Key, Option, Switch
from ....report.charts import CURRENT, finite, horizontal, layout, log_axis, metric_axis, safe, value_axis
from ....wording import duration, metric_in_words, number, plural
from ...courses import Course
from ...readings import EndMetric
from ...records import Study

__all__ = ["Across", "Branch", "Dash", "Up", "branch_curves", "metrics_up", "outcome_axis", "shades"]

Dash = Literal["solid", "dash", "dot"]

_COLOURS = 8


@dataclass(frozen=True, kw_only=True)
class Branch:
    """One curve: the mean course of an arm."""

    label: str
    course: Course
    colour: str
    """A name of the page's style."""
    dash: Dash = "solid"
    begins: float = 0.0
    """Epochs, that were trained before the course begins."""


@dataclass(frozen=True, kw_only=True)
class Up:
    """One position of the switch for the vertical axis."""

    label: str
    metric: str
    rising: bool = False
    """Whether it grows where training succeeds: then from the minimum to the maximum, not logarithmic."""
    level: float | None = None
    """A value to draw a line at."""


def metrics_up(study: Study, outcome: EndMetric, courses: Sequence[Course]) -> tuple[Up, ...]:
    """Positions of the vertical axis: the compared metric, its loss, the chosen one, the training part's."""
    loss = f"{outcome.name.partition('_')[0]}_loss"
    names = dict.fromkeys((outcome.name, loss, study.metric, "train_accuracy_eval", "train_loss_eval"))
    rising = {outcome.name: outcome.larger_is_better, study.metric: study.larger_is_better}
    return tuple(
        Up(label=metric_in_words(name), metric=name, rising=rising.get(name, "accuracy" in name))
        for name in names
        if any(name in course.mean for course in courses)
    )


Across = Literal["epoch", "step", "example", "second"]

_TAKES: dict[Across, tuple[str, Callable[[Branch, int], list[float]], Callable[[float], str]]] = {
    "epoch": ("epochs", lambda b, _: [b.begins + epoch for epoch in b.course.epochs], number),
    "step": ("steps", lambda b, _: [float(step) for step in b.course.steps], number),
    "example": ("examples seen", lambda b, n: [(b.begins + epoch) * n for epoch in b.course.epochs], number),
    "second": ("seconds of training steps", lambda b, _: list(b.course.seconds), duration),
}


def branch_curves(
    name: str,
    branches: Sequence[Branch],
    *,
    across: Sequence[Across],
    up: Sequence[Up],
    examples: int,
    caption: str,
    logarithmic: bool = False,
    height: int = 400,
) -> Figure:
    """A figure of branches along their training.

    Args:
        name: unique on the page.
        branches: what is drawn.
        across: what it can be drawn against; the first is shown.
        up: what can be drawn vertically; a branch without that metric has no curve there.
        examples: in the training set.
        caption: what to conclude.
        logarithmic: the horizontal axis, which then leaves out the start.
        height: in pixels.
    """
    first = 1 if logarithmic else 0
    across_ = _horizontal(branches, across, examples, first)
    vertical = _vertical(branches, up, first)
    first_up = vertical.options[0].layout
    frame = layout(across_.options[0].layout["xaxis"], first_up["yaxis"], shapes=first_up["shapes"], height=height)
    keys = tuple(
        Key("line" if b.dash == "solid" else b.dash, b.colour, b.label, f"branch-{i}") for i, b in enumerate(branches)
    )
    switches = tuple(switch for switch in (across_, vertical) if len(switch.options) > 1)
    traces = tuple(
        {**_trace(b, i), "x": across_.options[0].data[i], "y": vertical.options[0].data[i]}
        for i, b in enumerate(branches)
    )
    return Figure(name, "mean over the seeds", traces, frame, caption, keys, switches)


def _trace(branch: Branch, index: int) -> Json:
    return {
        "type": "scatter",
        "mode": "lines" if len(branch.course.steps) > 2 else "lines+markers",
        "name": f"{safe(branch.label)}<br>mean of {plural(branch.course.runs, 'seed')}",
        "legendgroup": f"branch-{index}",
        "line": {"color": branch.colour, "width": 2, "dash": branch.dash},
        "marker": {"color": branch.colour},
        "hovertemplate": "%{fullData.name}<br>%{y:.4g}<extra></extra>",
    }


def _horizontal(branches: Sequence[Branch], across: Sequence[Across], examples: int, first: int) -> Switch:
    options: list[Option] = []
    for label in across:
        title, take, format = _TAKES[label]
        values = [tuple(finite(take(branch, examples)[first:])) for branch in branches]
        all_values = [v for x in values for v in x]
        axis = (
            log_axis(all_values, format, f"{title} (log scale)", 6) if first else value_axis(all_values, format, title)
        )
        options.append(Option(label, tuple(values), {"xaxis": axis}))
    return Switch("x", "against", tuple(options))


def _vertical(branches: Sequence[Branch], up: Sequence[Up], first: int) -> Switch:
    options: list[Option] = []
    for one in up:
        values = [tuple(finite(branch.course.mean.get(one.metric, ())[first:])) for branch in branches]
        measured = [v for v in values if v]
        lines = [] if one.level is None else [horizontal(one.level, CURRENT)]
        axis = outcome_axis(measured, rising=one.rising)
        options.append(Option(one.label, tuple(values), {"yaxis": axis, "shapes": lines}))
    return Switch("y", "of", tuple(options))


def outcome_axis(values: Sequence[Sequence[float | None]], *, rising: bool) -> Json:
    """Axis from the minimum to the maximum where it grows in training, else as losses are drawn."""
    if not rising:
        return metric_axis(values)
    inside = [v for run in values for v in run if v is not None]
    low, high = min(inside, default=0.0), max(inside, default=1.0)
    pad = 0.05 * (high - low) or 0.5
    linear = {"type": "linear", "tickmode": "auto", "tickvals": None, "ticktext": None}
    return {**log_axis([1.0]), **linear, "range": [low - pad, high + pad]}


def shades(of: int) -> list[str]:
    """Colours for an ordered scale, the same as of batch sizes elsewhere on the page: light first.

    >>> shades(3)
    ['var(--size-0)', 'var(--size-4)', 'var(--size-7)']
    """
    last = _COLOURS - 1
    return [f"var(--size-{round(i * last / (of - 1)) if of > 1 else _COLOURS // 2})" for i in range(of)]
