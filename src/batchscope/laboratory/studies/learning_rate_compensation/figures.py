"""Figures of a grid: courses by batch size and learning rate, the best learning rates, and what they leave."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ....report.blocks import Figure, Json, Key, Row
from ....report.charts import (
    CENSORED,
    CURRENT,
    LINE,
    RECIPE,
    batch_axis,
    layout,
    line,
    log_axis,
    points,
    safe,
    value_axis,
    with_errors,
)
from ....store.records import Estimate
from ....wording import count, joined, number, plural, with_interval
from ...conclusions import best_rates, paired_difference
from ...courses import Course, course_of
from ...page.figures.against_size import Series, against_size
from ...page.figures.branch_curves import outcome_axis, shades
from ...records import Study, SummaryRow
from .scaling import Scaling

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = ["curves_by_rate", "own_rates_figure", "scaling_figure"]


def curves_by_rate(study: Study, runs: Sequence[StoredRun]) -> Row | None:
    """Courses of the metric that choices are made by: a figure a batch size, a curve a learning rate, one axis."""
    rates = sorted({s.lr for s in study.summary})
    colours = dict(zip(rates, shades(len(rates)), strict=True))
    arms = sorted(study.summary, key=lambda s: (s.batch_size, s.lr))
    found = [(arm, course) for arm in arms if (course := course_of(study, runs, arm)) and study.metric in course.mean]
    if not found:
        return None
    axis = outcome_axis(
        [course.mean[study.metric][1:] or course.mean[study.metric] for _, course in found],
        rising=study.larger_is_better,
    )
    sizes = sorted({arm.batch_size for arm, _ in found})
    return Row(
        tuple(
            _of_size(study, size, [pair for pair in found if pair[0].batch_size == size], colours, axis)
            for size in sizes
        )
    )


def _of_size(
    study: Study, size: int, found: Sequence[tuple[SummaryRow, Course]], colours: dict[float, str], axis: Json
) -> Figure:
    traces: list[Json] = []
    for arm, course in found:
        curve = line(course.epochs, course.mean[study.metric], colour=colours[arm.lr])
        name = f"learning rate {number(arm.lr)}<br>mean of {plural(course.runs, 'seed')}"
        shown = {"hoverinfo": "all", "hovertemplate": f"{name}<br>%{{y:.4g}}<extra></extra>"}
        traces.append({**curve, **shown, "legendgroup": f"rate-{arm.lr:g}"})
    keys = tuple(
        Key("line", colours[arm.lr], f"learning rate {number(arm.lr)}", f"rate-{arm.lr:g}") for arm, _ in found
    )
    across = value_axis([e for _, course in found for e in course.epochs], title="epochs")
    return Figure(
        f"by-rate-{size}",
        f"{study.metric}, batch size {count(size)}",
        tuple(traces),
        layout(across, axis, height=270),
        _caption(study, size),
        keys,
    )


def _caption(study: Study, size: int) -> str:
    arms = sorted((s for s in study.summary if s.batch_size == size), key=lambda s: s.lr)
    best = next((s for s in arms if s.best_lr), None)
    lost = [number(s.lr) for s in arms if s.diverged]
    phrase = f"Runs diverged at learning rate {joined(lost)}. " if lost else ""
    if best is None:
        return f"{phrase}No learning rate can be chosen."
    value = with_interval(best.estimates[f"best_{study.metric}"])
    at = number(best.estimates["best_epoch"].value)
    end = ", an end of the grid" if len(arms) > 1 and best in (arms[0], arms[-1]) else ""
    return f"{phrase}Best at learning rate {number(best.lr)}{end}: {value}, at epoch {at}."


def scaling_figure(study: Study, scaling: Scaling) -> Figure:
    """Best learning rate against batch size, beside linear scaling and the square root from the smallest batch on."""
    arms = [arm for arm in best_rates(study, "") if arm.batch_size in scaling.chosen]
    sizes, rates = [a.batch_size for a in arms], [a.lr for a in arms]
    every = sorted({s.lr for s in study.summary})
    inside = [arm for arm in arms if not _at_end(study, arm)]
    outside = [arm for arm in arms if _at_end(study, arm)]
    traces: list[Json] = []
    for exponent, colour, dash in ((1.0, CURRENT, "dash"), (0.5, CENSORED, "dot")):
        rule = [rates[0] * (size / sizes[0]) ** exponent for size in (sizes[0], sizes[-1])]
        drawn = line((sizes[0], sizes[-1]), rule, colour=colour)
        traces.append({**drawn, "line": {**drawn["line"], "dash": dash}})
    traces += [_marks(scaling, inside, "disc"), _marks(scaling, outside, "open")]
    keys = [
        Key("disc", LINE, "best learning rate; bars: what single seeds chose"),
        Key("open", LINE, "at an end of the grid: a bound only"),
        Key("dash", CURRENT, "linear scaling from the smallest batch"),
        Key("dot", CENSORED, "square root"),
    ]
    top = max([*every, rates[0] * math.sqrt(sizes[-1] / sizes[0])])
    frame = layout(batch_axis(sizes), log_axis([*every, top]), height=360)
    return Figure("best-rates", "best learning rate (log scale)", tuple(traces), frame, _exponent(scaling), tuple(keys))


def _at_end(study: Study, arm: SummaryRow) -> bool:
    rates = [s.lr for s in study.summary if s.key[:2] == arm.key[:2]]
    return arm.lr in (min(rates), max(rates))


def _marks(scaling: Scaling, arms: Sequence[SummaryRow], mark: str) -> Json:
    chosen = [scaling.chosen[arm.batch_size] for arm in arms]
    texts = [
        safe(f"batch size {count(arm.batch_size)}: {number(arm.lr)}; the seeds chose {joined(list(map(number, lrs)))}")
        for arm, lrs in zip(arms, chosen, strict=True)
    ]
    drawn = points([a.batch_size for a in arms], [a.lr for a in arms], texts, mark="open" if mark == "open" else "disc")
    below = [max(0.0, arm.lr - min(lrs)) for arm, lrs in zip(arms, chosen, strict=True)]
    above = [max(0.0, max(lrs) - arm.lr) for arm, lrs in zip(arms, chosen, strict=True)]
    return with_errors(drawn, below, above) if any(below) or any(above) else drawn


def _exponent(scaling: Scaling) -> str:
    hidden = {
        (True, True): "; best learning rates at the ends of the grid hide the true one, whichever way",
        (True, False): "; best learning rates at an end of the grid make it a lower bound",
        (False, True): "; best learning rates at an end of the grid make it an upper bound",
    }.get((scaling.at_least, scaling.at_most), "")
    return (
        f"The best learning rate goes as the batch size to the power {with_interval(scaling.exponent)}{hidden}. "
        "Linear scaling is 1, the square root 0.5."
    )


def own_rates_figure(study: Study, at_one_rate: Estimate | None) -> Figure | None:
    """Best value against batch size, at the smallest learning rate and at each one's own; `at_one_rate`: its change."""
    low = min(study.question.lrs)
    one = sorted((s for s in study.summary if s.lr == low and not s.diverged), key=lambda s: s.batch_size)
    own, name = best_rates(study, ""), f"best_{study.metric}"
    if len(own) < 2:
        return None
    left = paired_difference(study, name, own[0], own[-1])
    at_one = f"by {with_interval(at_one_rate)} at learning rate {number(low)}, " if at_one_rate is not None else ""
    phrase = (
        f"From batch size {count(own[0].batch_size)} to {count(own[-1].batch_size)}, the best {study.metric} changes "
        f"{at_one}by {with_interval(left)} with each at its best learning rate. Bars are 90 % t intervals of the mean "
        "over the seeds; all learning rates and sizes stand further down, as a map."
    )
    series = [
        Series(label=label, colour=colour, values={arm.batch_size: arm.estimates[name] for arm in arms})
        for label, colour, arms in (
            (f"all at learning rate {number(low)}", CURRENT, one),
            ("each at its best learning rate", RECIPE, own),
        )
    ]
    scale = "spread" if study.larger_is_better else "log"
    return against_size("own-rates", f"best {study.metric}", series, caption=phrase, scale=scale, height=340)
