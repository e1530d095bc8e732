"""Validation against training loss along runs of several batch sizes, and the best value of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ....report.blocks import Figure, Json, Key
from ....report.charts import LINE, band, batch_axis, layout, line, log_axis, metric_axis, points, safe, vertical
from ....wording import count, joined, number, with_interval
from ...page.lines import Line, lines_of, marks_of
from ...records import Study, SummaryRow
from ...summary import Evaluation, evaluation_at
from .equal_training_loss import TRAINING_LOSS, levels_down_to

__all__ = ["Courses", "at_equal_loss", "best_by_size"]

Courses = Mapping[tuple[str, int, float], Mapping[int, Sequence[Evaluation]]]
"""By arm and seed."""


def at_equal_loss(study: Study, courses: Courses, level: float) -> Figure:
    """The metric against the training loss, mean over the seeds, each batch size at its best learning rate."""
    everything = [course for own in courses.values() for course in own.values()]
    at = levels_down_to(everything, level)
    traces: list[Json] = []
    drawn: list[list[float | None]] = []
    keys: list[Key] = []
    details: list[str] = []
    for one in (one for one in lines_of(study) if one.arm.key in courses):
        values = [_values(study, list(courses[one.arm.key].values()), loss) for loss in at]
        x = [loss for loss, v in zip(at, values, strict=True) if v]
        measured = [v for v in values if v]
        mean = [math.fsum(v) / len(v) for v in measured]
        drawn.append([*mean])
        spread = band(x, [min(v) for v in measured], [max(v) for v in measured], colour=one.colour)
        traces.append({**spread, "opacity": 0.15, "legendgroup": one.group})
        traces.append({**line(x, mean, colour=one.colour), "legendgroup": one.group})
        hover = [
            f"{safe(one.label)}<br>{safe(study.metric)} {number(m)}<br>at training loss {number(loss)}"
            for loss, m in zip(x, mean, strict=True)
        ]
        traces.append({**points(x, mean, hover, mark="small", colour=one.colour), "legendgroup": one.group})
        keys.append(Key("line", one.colour, one.label, one.group))
        details.append(f"{number(mean[-1])} at batch size {count(one.arm.batch_size)}")
    keys.append(Key("band", "var(--band)", "all seeds"))
    across = log_axis(at, title="training loss in evaluation mode (log scale); training goes to the left")
    frame = layout(across, metric_axis(drawn), shapes=vertical(level, LINE, dash="dot"), height=400)
    caption = (
        f"Where the training loss is {number(level)}, the lowest that all runs reach, {study.metric} is "
        f"{joined(details)}. Curves one above the other are a difference in generalisation; along one curve, in how "
        "long was trained."
    )
    return Figure("equal-loss", f"{study.metric}, mean over the seeds", tuple(traces), frame, caption, tuple(keys))


def _values(study: Study, courses: Sequence[Sequence[Evaluation]], loss: float) -> list[float]:
    """Mean over all seeds, or none: a mean over changing seeds would jump."""
    found = [
        at.metrics[study.metric] for course in courses if (at := evaluation_at(course, TRAINING_LOSS, loss)) is not None
    ]
    return found if len(found) == len(courses) else []


def best_by_size(study: Study, arms: Sequence[SummaryRow]) -> Figure:
    """The best value against batch size, each at its best learning rate."""
    lines = tuple(Line(arm, f"batch size {count(arm.batch_size)}", LINE, "") for arm in arms)
    name = f"best_{study.metric}"
    found = [arm.estimates[name] for arm in arms]
    inside = [v for e in found for v in (e.value, e.low, e.high) if v is not None]
    phrase = joined(
        [
            f"{with_interval(arm.estimates[name])} at {count(arm.batch_size)} (learning rate {number(arm.lr)})"
            for arm in arms
        ]
    )
    frame = layout(batch_axis([arm.batch_size for arm in arms]), metric_axis([inside]), height=320)
    caption = (
        f"At its best epoch and learning rate, {study.metric} by batch size is {phrase}. Bars are 90 % t intervals "
        "over the seeds."
    )
    return Figure("remaining", f"best {study.metric}", (marks_of(lines, name),), frame, caption)
