"""The figures of the study `batch_norm`: numbers come from `normalisation_effects`, drawn a colour a variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ....fits import intervals
from ....report.blocks import Figure, Json, Key, Row
from ....report.charts import (
    batch_axis,
    category_axis,
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
from ....wording import count, joined, number, plural, with_interval
from ...courses import course_of
from ...page.figures.branch_curves import Branch, Up, branch_curves, outcome_axis
from ...records import Study
from .effects import (
    AFTER,
    BEFORE,
    NONE,
    WORKS,
    best_of,
    focus,
    middle_pair,
    seeds_mean,
    shown_sizes,
    size_mean,
    sizes_of,
    tolerances,
    variants_of,
)
from .readings import disturbed_metric, drift_course, robustness_of, shift_of
from .stability import order_values

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = [
    "best_figure",
    "colour_of",
    "curves_figure",
    "drift_figure",
    "order_figure",
    "rates_row",
    "robustness_row",
    "shift_figure",
]

_WITH = {NONE: "without", BEFORE: "with"}
_COLOURS = {NONE: "var(--series-0)", BEFORE: "var(--series-1)", AFTER: "var(--series-2)"}


def colour_of(variant: str) -> str:
    """Colour of a variant, the same in every figure."""
    return _COLOURS.get(variant, "var(--series-3)")


def curves_figure(study: Study, runs: Sequence[StoredRun]) -> Figure | None:
    """Training loss and the metric against epoch, of each variant at its best learning rate; the middle batch size."""
    branches: list[Branch] = []
    for variant in variants_of(study):
        best = best_of(study, variant, focus(study))
        course = course_of(study, runs, best) if best else None
        if best is not None and course is not None:
            label = f"{variant}, learning rate {number(best.lr)}"
            branches.append(Branch(label=label, course=course, colour=colour_of(variant)))
    if not branches:
        return None
    metrics = {name for b in branches for name in b.course.mean}
    up = [Up(label="training loss", metric="train_loss_eval")] if "train_loss_eval" in metrics else []
    up.append(Up(label=study.metric, metric=study.metric, rising=study.larger_is_better))
    ends = [
        f"{number(b.course.mean[up[0].metric][-1])} for {b.label}" for b in branches if up[0].metric in b.course.mean
    ]
    caption = (
        f"At batch size {count(focus(study))}, each variant at its best learning rate, the {up[0].label} ends at "
        f"{joined(ends)}. Training loss is of a fixed part of the training data, in evaluation mode."
    )
    return branch_curves(
        "norm-curves", branches, across=("epoch", "step"), up=up, examples=study.examples, caption=caption
    )


def best_figure(study: Study) -> Figure | None:
    """The best value of the metric against batch size, a curve a variant."""
    name = f"best_{study.metric}"
    traces: list[Json] = []
    values: list[list[float | None]] = []
    winners: dict[int, tuple[float, str]] = {}
    sign = -1.0 if study.larger_is_better else 1.0
    for variant in variants_of(study):
        arms = [arm for size in sizes_of(study) if (arm := best_of(study, variant, size)) is not None]
        found = [arm.estimates[name] for arm in arms]
        sizes = [arm.batch_size for arm in arms]
        hover = [f"{safe(variant)}, learning rate {number(a.lr)}<br>{with_interval(a.estimates[name])}" for a in arms]
        traces += _marked(sizes, found, hover, colour_of(variant), variant)
        values.append([e.value for e in found])
        for size, e in zip(sizes, found, strict=True):
            if e.value is not None:
                winners[size] = min(winners.get(size, (sign * e.value, variant)), (sign * e.value, variant))
    if not winners:
        return None
    phrase = joined([f"{variant} at batch size {count(size)}" for size, (_, variant) in sorted(winners.items())])
    frame = layout(batch_axis(sizes_of(study)), _in_sight(values, study.larger_is_better), height=340)
    caption = (
        "Each variant at its best learning rate, means over the seeds with 90 % t intervals. The best mean has "
        f"{phrase}."
    )
    return Figure("norm-best", f"best {study.metric}", tuple(traces), frame, caption, _keys(variants_of(study)))


def rates_row(study: Study, runs: Sequence[StoredRun]) -> Row | None:
    """The best value of the metric against the learning rate, a figure a batch size, a curve a variant."""
    if len(set(study.question.lrs)) < 2:
        return None
    name = f"best_{study.metric}"
    arms = [s for s in study.summary if s.variant in variants_of(study) and not s.diverged]
    axis = _in_sight([[s.estimates[name].value] for s in arms], study.larger_is_better)
    figures: list[Figure] = []
    for size in shown_sizes(study):
        traces: list[Json] = []
        drawn = [v for v in variants_of(study) if any(s.key[:2] == (v, size) for s in arms)]
        for variant in drawn:
            own = sorted((s for s in arms if s.key[:2] == (variant, size)), key=lambda s: s.lr)
            hover = [
                f"{safe(variant)}, learning rate {number(s.lr)}<br>{with_interval(s.estimates[name])}" for s in own
            ]
            found = [s.estimates[name] for s in own]
            traces += _marked([s.lr for s in own], found, hover, colour_of(variant), variant)
        frame = layout(log_axis(study.question.lrs, title="learning rate (log scale)", labels=5), axis, height=300)
        figures.append(
            Figure(
                f"norm-rates-{size}",
                f"best {study.metric}, batch size {count(size)}",
                tuple(traces),
                frame,
                _tolerated(study, runs, size),
                _keys(drawn),
            )
        )
    return Row(tuple(figures))


def _tolerated(study: Study, runs: Sequence[StoredRun], size: int) -> str:
    found = tolerances(study, runs, size)
    phrases = [f"{number(t.width.value)} decades for {variant}" for variant, t in found.items()]
    lost = [f"{s.variant} at {number(s.lr)}" for s in study.summary if s.diverged and s.batch_size == size]
    left_out = f" A run diverged, so there is no mark: {joined(lost)}." if lost else ""
    if not phrases:
        return left_out.strip()
    return (
        f"Learning rates work (at least {100 * WORKS:.0f} % of the best gain of all) over {joined(phrases)}.{left_out}"
    )


def order_figure(study: Study) -> Figure | None:
    """The metric at the end of each run from one start."""
    values = order_values(study)
    if not values:
        return None
    traces: list[Json] = []
    for variant, found in values.items():
        marks = points(found, [0.0] * len(found), [number(v) for v in found], colour=colour_of(variant))
        traces.append({**marks, "y": [variant] * len(found)})
    spreads = {variant: intervals.standard_deviation(found) for variant, found in values.items()}
    phrases = [f"{with_interval(spread)} {_WITH[variant]}" for variant, spread in spreads.items()]
    ratio = intervals.ratio_of_standard_deviations(values[BEFORE], values[NONE]) if len(values) == 2 else None
    compared = f", {with_interval(ratio)} times as large" if ratio and ratio.value is not None else ""
    axis = {
        **metric_axis([[v] for found in values.values() for v in found]),
        "title": {"text": f"{study.metric} at the end"},
    }
    caption = (
        f"{plural(max(map(len, values.values())), 'order')} of the examples from the same initial weights, batch size "
        f"{count(focus(study))}: the standard deviation is {joined(phrases)} normalisation{compared}."
    )
    frame = layout(axis, category_axis(), height=190)
    return Figure("norm-orders", "one mark a run", tuple(traces), frame, caption)


def robustness_row(study: Study) -> Row | None:
    """The metric against the strength of each disturbance, without and with normalisation."""
    pair = middle_pair(study)
    found = {NONE: robustness_of(study, pair.without), BEFORE: robustness_of(study, pair.with_)} if pair else {}
    if not all(found.values()) or not found:
        return None
    name, rising = disturbed_metric(study)
    axis = _in_sight([[*by_seed.values()] for of in found.values() for by_seed in of.values()], rising)
    titles = {
        "noise": "noise, in standard deviations",
        "shift": "shift, in standard deviations",
        "outliers": "share of outliers",
    }
    figures: list[Figure] = []
    for kind, title in titles.items():
        strengths = sorted({s for of in found.values() for k, s in of if k == kind})
        if not strengths:
            continue
        traces: list[Json] = []
        for variant, of in found.items():
            marks = [of["none", 0.0], *(of[kind, s] for s in strengths)]
            estimates = [seeds_mean(by_seed) for by_seed in marks]
            hover = [f"{variant}<br>{with_interval(e)}" for e in estimates]
            traces += _marked([0.0, *strengths], estimates, hover, colour_of(variant), variant)
        frame = layout(value_axis(strengths, title=title), axis, height=280)
        caption = _lost(found, kind, strengths[-1])
        keys = _keys(list(found))
        figures.append(Figure(f"norm-{kind}", f"{name} under {kind}", tuple(traces), frame, caption, keys))
    return Row(tuple(figures)) if figures else None


def _lost(found: Mapping[str, Mapping[tuple[str, float], Mapping[int, float]]], kind: str, strength: float) -> str:
    phrases = [
        f"from {number(seeds_mean(of['none', 0.0]).value)} to {number(seeds_mean(of[kind, strength]).value)} "
        f"{_WITH[variant]}"
        for variant, of in found.items()
    ]
    return f"At {number(strength)} it goes {joined(phrases)} normalisation."


def drift_figure(study: Study, runs: Sequence[StoredRun]) -> Figure | None:
    """How far the inputs of the layers have drifted, against epoch; two curves a batch size."""
    traces: list[Json] = []
    keys: list[Key] = []
    phrases: list[str] = []
    for size, dash in zip(shown_sizes(study), ("dot", "dash", "solid"), strict=False):
        ends: list[str] = []
        for variant in (NONE, BEFORE):
            best = best_of(study, variant, size)
            course = drift_course(study, runs, best) if best else None
            if best is None or course is None:
                continue
            group = f"{variant}-{size}".replace(" ", "-")
            curve = line(*course, colour=colour_of(variant))
            label = f"{variant}, batch size {count(size)} at learning rate {number(best.lr)}"
            shown = {"hoverinfo": "all", "hovertemplate": f"{label}<br>%{{y:.3g}}<extra></extra>"}
            traces.append({**curve, **shown, "line": {**curve["line"], "dash": dash}, "legendgroup": group})
            keys.append(Key("line" if dash == "solid" else dash, colour_of(variant), label, group))
            ends.append(f"{number(course[1][-1])} {_WITH[variant]}")
        if ends:
            phrases.append(f"{joined(ends)} at batch size {count(size)}")
    if not traces:
        return None
    across, up = ([v for t in traces for v in t[side]] for side in ("x", "y"))
    frame = layout(value_axis(across, title="epochs"), value_axis(up), height=380)
    caption = (
        f"At the end the drift is {joined(phrases)}. A drift of 1 is one standard deviation that the inputs of a layer "
        "had at the start; means over layers and seeds."
    )
    return Figure("norm-drift", "drift of layers' inputs", tuple(traces), frame, caption, tuple(keys))


def shift_figure(study: Study) -> Figure | None:
    """How much a step below changes a layer's gradient, against batch size."""
    traces: list[Json] = []
    ends: list[float | None] = []
    phrases: list[str] = []
    for when in ("early", "best"):
        for variant in (NONE, BEFORE):
            arms = [arm for size in sizes_of(study) if (arm := best_of(study, variant, size)) is not None]
            measured = [(arm, e) for arm in arms if (e := size_mean(shift_of(study, arm, when))).value is not None]
            found, sizes = [e for _, e in measured], [arm.batch_size for arm, _ in measured]
            hover = [f"{variant}, {when}<br>{with_interval(e)}" for e in found]
            traces += _marked(sizes, found, hover, colour_of(variant), variant, early=when == "early")
            ends += [v for e in found for v in (e.value, e.low, e.high)]
            if when == "best" and found:
                phrases.append(f"{number(found[0].value)} to {number(found[-1].value)} {_WITH[variant]}")
    if not any(v is not None for v in ends):
        return None
    keys = (
        *_keys([NONE, BEFORE]),
        Key("open", "var(--text)", "after one epoch (dotted)"),
        Key("disc", "var(--text)", "at the best epoch"),
    )
    frame = layout(batch_axis(sizes_of(study)), metric_axis([[v] for v in ends if v is not None and v > 0]), height=340)
    caption = (
        "Each batch size at its best learning rate, on batches of that size: the norm of the change over the norm of "
        "the gradient, mean over layers and seeds. From the smallest to the largest batch, at the best epoch: "
        f"{joined(phrases)} normalisation."
        if phrases
        else "Each batch size at its best learning rate, on batches of that size; mean over layers and seeds."
    )
    return Figure("norm-shift", "change of a layer's gradient", tuple(traces), frame, caption, keys)


def _marked(
    x: Sequence[float],
    found: Sequence[Estimate],
    hover: Sequence[str],
    colour: str,
    group: str,
    early: bool = False,
) -> list[Json]:
    """A line with marks and intervals; what is early is dotted and open."""
    group = group.replace(" ", "-")
    values = [e.value for e in found]
    below = [(e.value or 0.0) - e.low if e.low is not None else 0.0 for e in found]
    above = [e.high - (e.value or 0.0) if e.high is not None else 0.0 for e in found]
    marks = with_errors(points(x, values, hover, colour=colour, mark="open" if early else "disc"), below, above)
    curve = line(x, values, colour=colour)
    dashed = {**curve["line"], "dash": "dot" if early else "solid"}
    return [{**curve, "line": dashed, "legendgroup": group}, {**marks, "legendgroup": group}]


def _keys(variants: Sequence[str]) -> tuple[Key, ...]:
    return tuple(Key("line", colour_of(v), v, v.replace(" ", "-")) for v in variants)


def _in_sight(values: Sequence[Sequence[float | None]], rising: bool) -> Json:
    """An axis for these values: linear for a score, for a loss logarithmic where it spans much."""
    measured = [v for several in values for v in several if v is not None]
    return outcome_axis([measured], rising=True) if rising or not measured else metric_axis([[v] for v in measured])
