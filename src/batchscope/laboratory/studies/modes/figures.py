"""Figures of one optimizer in three modes: its paths, when each comes to a common target, and how its steps vary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ....report.blocks import Column, Figure, Row, Table
from ....report.charts import CURRENT, LINE
from ....store.ranges import SHARE
from ....wording import count, duration, joined, number, with_interval
from ...conclusions import best_rates
from ...courses import course_of
from ...page.figures.against_size import Series, against_size
from ...page.figures.branch_curves import Branch, branch_curves, metrics_up, shades
from ...readings import end_metric_of, over_seeds
from ...records import Study
from .gradient_spread import MOMENTS, spread_of
from .passages import Axis, Passages

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = ["mode_name", "noise_figure", "paths_figure", "straightness_figure", "target_row", "target_table"]

_TITLES: tuple[tuple[Axis, str], ...] = (
    ("epoch", "epochs"),
    ("step", "steps"),
    ("seconds", "seconds of training steps"),
)


def mode_name(study: Study, size: int) -> str:
    """A batch size as a mode."""
    if size == study.examples:
        return f"the full batch ({count(size)})"
    return "one example" if size == 1 else f"batch size {count(size)}"


def paths_figure(study: Study, runs: Sequence[StoredRun], passages: Passages, more: int) -> Figure:
    """The course of each mode at its best learning rate; the full batch was trained for `more` times the epochs."""
    branches = [
        Branch(label=f"{mode_name(study, size)}, learning rate {number(arm.lr)}", course=course, colour=colour)
        for (size, arm), colour in zip(passages.arms.items(), shades(len(passages.arms)), strict=True)
        if (course := course_of(study, runs, arm)) is not None
    ]
    up = metrics_up(study, end_metric_of(study), [branch.course for branch in branches])
    marked = [replace(one, level=passages.target) if one.metric == study.metric else one for one in up]
    name = f"best_{study.metric}"
    ends = joined(
        [f"{number(arm.estimates[name].value)} for {mode_name(study, s)}" for s, arm in passages.arms.items()]
    )
    return branch_curves(
        "paths",
        branches,
        across=("epoch", "step", "second"),
        up=sorted(marked, key=lambda one: one.metric != study.metric),
        examples=study.examples,
        caption=f"The best {study.metric} is {ends}. The full batch was given {more} times the epochs; the broken line "
        "is the best value that all of these runs came to.",
        logarithmic=True,
    )


def target_row(study: Study, passages: Passages) -> Row:
    """Epochs, steps and seconds to the common target."""
    figures: list[Figure] = []
    for axis, title in _TITLES:
        values = {size: passages.mean(axis, size) for size in passages.arms}
        format = duration if axis == "seconds" else number
        measured = [(e.value, size) for size, e in values.items() if e.value is not None]
        phrase = "No run came there."
        if measured:
            fewest, at = min(measured)
            phrase = f"The fewest: {format(fewest)} for {mode_name(study, at)}."
        series = (Series(label=title, colour=LINE, values=values),)
        figures.append(
            against_size(f"to-{axis}", title, series, caption=phrase, scale="log", format=format, height=280)
        )
    return Row(tuple(figures))


def target_table(study: Study, passages: Passages) -> Table:
    """What a step and an epoch take in each mode, and what it takes to the target."""
    rows: list[tuple[str, ...]] = []
    for size, arm in passages.arms.items():
        times = [arm.estimates[name].value for name in ("step_time_s", "epoch_time_s")]
        until = with_interval(passages.mean("epoch", size)), with_interval(passages.mean("seconds", size), duration)
        name = f"{mode_name(study, size)} at learning rate {number(arm.lr)}"
        rows.append((name, count(study.examples / size), *map(duration, times), *until))
    heads = ("steps an epoch", "a step", "an epoch", f"epochs until {number(passages.target)}", "time until then")
    return Table((Column("mode"), *(Column(head, numeric=True) for head in heads)), tuple(rows))


def noise_figure(study: Study) -> Figure | None:
    """Standard deviation of a batch's gradient over the norm of the full one, at both moments."""
    series = [
        Series(label=label, colour=colour, mark=mark, values={size: s.noise for size, s in spread.items()})
        for (moment, label), colour, mark in zip(MOMENTS.items(), (LINE, CURRENT), ("disc", "open"), strict=True)
        if (spread := spread_of(study, moment))
    ]
    if not series:
        return None
    phrases = [
        f"{number(one.values[size].value)} at batch size {count(size)} {one.label}"
        for one in series
        for size in sorted({min(one.values), max(one.values)})
    ]
    return against_size(
        "noise",
        "standard deviation of a batch's gradient ÷ norm of the full one",
        series,
        caption=f"It is {joined(phrases)}, and 0 for the full batch, which is always the same. Above 1, a single step "
        "says little of the way down.",
        scale="log",
    )


def straightness_figure(study: Study, runs: Sequence[StoredRun]) -> Figure | None:
    """How straight an epoch is, at each mode's best learning rate."""
    arms = best_rates(study, "")
    found = {a.batch_size: over_seeds(study, runs, a, straightness_of, "1", within=SHARE)[0] for a in arms}
    measured = {size: estimate for size, estimate in found.items() if estimate.value is not None}
    if not measured:
        return None
    phrase = joined([f"{number(estimate.value)} for {mode_name(study, size)}" for size, estimate in measured.items()])
    return against_size(
        "straightness",
        "straightness of an epoch",
        (Series(label="straightness", colour=LINE, values=measured),),
        caption=f"How far an epoch's updates carry the weights together, over the sum of their lengths: {phrase}. One "
        "step an epoch is straight by definition; a random walk of n steps has 1 / √n.",
        scale="log",
    )


def straightness_of(run: StoredRun) -> float | None:
    """Straightness over all epochs of a run: sum of distances over sum of path lengths; `None`: not measured."""
    rows = [row for row in run.rows if row.get("kind") == "epoch_updates" and row.get("sum_of_norms")]
    path = math.fsum(row["sum_of_norms"] for row in rows)
    return math.fsum(row["norm_of_sum"] for row in rows) / path if path else None
