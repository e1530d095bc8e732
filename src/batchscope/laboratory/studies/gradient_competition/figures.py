"""What the study `gradient_competition` shows: arrows, sums against lengths, and all pairs. Numbers only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ....report.blocks import Column, Figure, Json, Key, Row, Section, Table, Text
from ....report.charts import batch_axis, layout, line, log_axis, points, safe, value_axis, with_errors
from ....store.records import Estimate
from ....wording import count, joined, number, percent, plural, sentence, with_interval
from ...published import SHEN, Value, published_section
from ...records import Study
from .pairs import Arrow, Pairs

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = ["build"]

_FIRST, _SECOND, _BOTH, _AS_ONE = "var(--series-0)", "var(--size-2)", "var(--text)", "var(--series-3)"
"""Blue, red, black and purple, as in the published figure."""
_COLOURS = {"start": "var(--series-2)", "early": "var(--series-0)", "end": "var(--series-1)"}
_HEIGHT = 330
_ROUNDING = 1e-6
_HYPOTHESIS = (
    "Shen's figure is a drawing without numbers, to say what might be wrong with large batches: that the examples of "
    "one batch interfere with one another, so that the step on all of them is much shorter than the way of single "
    "steps. As the loss is a mean over the batch, the step on two batches is half the sum of their gradients at the "
    "same weights: half of its being shorter is that mean, and no competition."
)


def build(study: Study, runs: Sequence[StoredRun], found: Sequence[Pairs]) -> tuple[Section, ...]:
    """The published hypotheses, then the figures of the first seed."""
    measured = [p for p in found if len(p)]
    missing = [
        Text((sentence(f"{p.label}, nothing was measured on batches of {count(p.batch_size)}: {p.reason}"),))
        for p in found
        if p.reason
    ]
    shown = [p for p in measured if p.seed == measured[0].seed]
    smallest_size = min((p.batch_size for p in shown), default=0)
    smallest = [p for p in shown if p.batch_size == smallest_size]
    published = published_section(study, runs, SHEN, _values(smallest), Text((_HYPOTHESIS,), tone="note"), *missing)
    if not shown:
        return (published,)
    size = count(smallest_size)
    return (
        published,
        *_arrows(smallest),
        Section(
            "sums",
            f"The sum of two gradients against their lengths, batches of {size}",
            (Row(tuple(_sum_figure(p) for p in smallest)),),
        ),
        Section(
            "angles",
            f"How far two gradients agree, batches of {size}",
            (Row((_cosine_figure(smallest), _kept_figure(smallest))),),
        ),
        *_against_size(shown),
        Section("numbers", "All pairs in numbers", (_table(shown),), folded=True),
    )


def _values(smallest: Sequence[Pairs]) -> list[Value]:
    values: list[Value] = []
    for p in smallest:
        size = count(p.batch_size)
        values += [
            Value(
                what=f"step on two batches of {size} as one ÷ way of the two steps, {p.label}",
                published="much below 1, as drawn",
                ours=p.ratio_of_ways,
            ),
            Value(
                what=f"the same ÷ the mean of the two steps, {p.label}",
                published="no number",
                ours=p.ratio_per_step,
            ),
            Value(
                what=f"‖a + b‖/2 ÷ (‖a‖ + ‖b‖)/2, {p.label} (Chang and Pathak 2020)",
                published="never above 1",
                ours=p.ratio_kept,
            ),
        ]
    return values


# --- arrows -------------------------------------------------------------------------------------------------------


def _arrows(smallest: Sequence[Pairs]) -> tuple[Section, ...]:
    figures = [_arrow_figure(p, arrow) for p in smallest if (arrow := p.median_arrow()) is not None]
    if not figures:
        return ()
    size = count(smallest[0].batch_size)
    note = (
        f"One real pair of batches of {size} at each checkpoint, in the plane of its two steps; half of all pairs keep "
        "less of their lengths in the sum. Both axes have one scale. An arrow is a gradient; the step is that times "
        "minus the learning rate. The red one is recomputed after the step on the blue one."
    )
    return (Section("arrows", "Two steps, or one on both", (Text((note,), tone="note"), Row(tuple(figures)))),)


def _arrow_figure(p: Pairs, arrow: Arrow) -> Figure:
    drawn = (
        ((0.0, 0.0), arrow.first, _FIRST, "first gradient"),
        (arrow.first, arrow.both, _SECOND, "second, after the step on the first"),
        ((0.0, 0.0), arrow.both, _BOTH, "their sum"),
        ((0.0, 0.0), arrow.as_one, _AS_ONE, "one gradient of both"),
    )
    ends = [point for start, end, _, _ in drawn for point in (start, end)]
    marks = points(
        [end[0] for _, end, _, _ in drawn],
        [end[1] for _, end, _, _ in drawn],
        [f"{label}: {number(math.dist(start, end))}" for start, end, _, label in drawn],
        mark="small",
        colour="rgba(0,0,0,0)",
    )
    marks["marker"]["line"] = {"width": 0}
    frame = layout(_free_axis([x for x, _ in ends]), _free_axis([y for _, y in ends]), height=_HEIGHT)
    frame["yaxis"] |= {"scaleanchor": "x", "scaleratio": 1}
    frame["annotations"] = [_pointed(start, end, colour) for start, end, colour, _ in drawn]
    size, double = count(p.batch_size), count(2 * p.batch_size)
    keys = (
        Key("line", _FIRST, f"first step at batch size {size}"),
        Key("line", _SECOND, "second step"),
        Key("line", _BOTH, "both"),
        Key("line", _AS_ONE, f"one step at {double}"),
    )
    way, one = math.hypot(*arrow.both), math.hypot(*arrow.as_one)
    outside = f" {percent(arrow.outside)} of it is not in this plane." if (arrow.outside or 0.0) > _ROUNDING else ""
    return Figure(
        f"competition-arrows-{p.part}",
        f"a median pair {p.label}",
        (marks,),
        frame,
        f"The step at batch size {double} is {number(one / way) if way else 'unknown'} times as long as the way of the "
        f"two steps.{outside} Over all pairs it is {with_interval(p.ratio_of_ways)} times.",
        keys,
    )


def _pointed(start: tuple[float, float], end: tuple[float, float], colour: str) -> Json:
    return {
        "x": end[0],
        "y": end[1],
        "ax": start[0],
        "ay": start[1],
        "xref": "x",
        "yref": "y",
        "axref": "x",
        "ayref": "y",
        "text": "",
        "showarrow": True,
        "arrowhead": 2,
        "arrowsize": 1.1,
        "arrowwidth": 2.2,
        "arrowcolor": colour,
        "standoff": 0,
    }


def _free_axis(values: Sequence[float], title: str = "") -> Json:
    low, high = min(values), max(values)
    pad = 0.08 * (high - low) or 0.5
    axis = {**value_axis([1.0], title=title), "tickmode": "auto", "nticks": 5, "tickvals": None, "ticktext": None}
    return {**axis, "range": [low - pad, high + pad]}


# --- all pairs ----------------------------------------------------------------------------------------------------


def _sum_figure(p: Pairs) -> Figure:
    """Lengths of sums against sums of lengths, with and without recomputing the second gradient."""
    traces: list[Json] = []
    sets = (
        (p.sum_of_norms, p.norms("norm_of_sum"), "disc", "var(--series-0)"),
        (p.sum_of_norms_in_turn, p.norms("norm_of_sum_in_turn"), "open", "var(--series-1)"),
    )
    values = [v for xs, ys, _, _ in sets for v in (*xs, *ys) if v > 0]
    low, high = min(values, default=1.0), max(values, default=1.0)
    ends = [low / 1.3, high * 1.3]
    right = {**line(ends, [v / math.sqrt(2) for v in ends], colour="var(--muted)")}
    parallel = line(ends, ends, colour="var(--muted)")
    traces += [_dashed(parallel, "dash"), _dashed(right, "dot")]
    for xs, ys, mark, colour in sets:
        shown = [(x, y) for x, y in zip(xs, ys, strict=True) if x > 0 and y > 0]
        hover = [f"{number(y)} of {number(x)} kept" for x, y in shown]
        drawn = points([x for x, _ in shown], [y for _, y in shown], hover, mark="small", colour=colour)
        if mark == "open":
            drawn["marker"] |= {"symbol": "circle-open", "line": {"color": colour, "width": 1.2}}
        traces.append({**drawn, "legendgroup": mark})
    keys = (
        Key("disc", "var(--series-0)", "at the same weights", "disc"),
        Key("open", "var(--series-1)", "second recomputed", "open"),
        Key("dash", "var(--muted)", "parallel"),
        Key("dot", "var(--muted)", "at a right angle, equally long"),
    )
    x, y = log_axis(ends, title="sum of the two lengths", labels=4), log_axis(values, labels=6)
    return Figure(
        f"competition-sums-{p.part}",
        f"length of the sum, {p.label}",
        tuple(traces),
        layout(x, y, height=_HEIGHT),
        f"Of the two lengths {with_interval(p.ratio_kept)} is kept in the sum. Recomputed, the second is "
        f"{with_interval(p.ratio_of_second)} times as long, and {with_interval(p.ratio_kept_in_turn)} is kept.",
        keys,
    )


def _dashed(trace: Json, dash: str) -> Json:
    return {**trace, "line": {**trace["line"], "dash": dash, "width": 1.2}}


def _cosine_figure(smallest: Sequence[Pairs]) -> Figure:
    traces = [_steps(p.cosines, p, "cosine") for p in smallest]
    axis = {**_free_axis([-1.0, 1.0], "cosine of the angle between the two gradients")}
    shapes = [_upright(0.0, "dot"), _upright(0.5, "dash")]
    phrase = joined([f"{with_interval(p.mean_cosine)} {p.label}" for p in smallest])
    opposed = joined([f"{percent(p.share_opposed)} {p.label}" for p in smallest])
    return Figure(
        "competition-cosine",
        "share of pairs with a smaller cosine",
        tuple(traces),
        layout(axis, _share_axis(), shapes=shapes, height=_HEIGHT),
        f"The mean is {phrase}; below 0 (dotted), where each step undoes a part of the other, are {opposed}.",
        (*_keys(smallest), Key("dash", "var(--muted)", "½, below which the mean counts as competition")),
    )


def _kept_figure(smallest: Sequence[Pairs]) -> Figure:
    traces: list[Json] = []
    for p in smallest:
        traces += [_steps(p.kept, p, "kept"), _steps(p.kept_in_turn, p, "in turn", "dot")]
    axis = _free_axis([0.0, 1.0], "length of the sum ÷ sum of the lengths")
    phrase = joined([f"{with_interval(p.ratio_kept)} {p.label}" for p in smallest])
    return Figure(
        "competition-kept",
        "share of pairs that keep less",
        tuple(traces),
        layout(axis, _share_axis(), shapes=[_upright(1 / math.sqrt(2), "dash")], height=_HEIGHT),
        f"The ratio of means is {phrase}; two equally long gradients at a right angle keep 0.707 (dashed). Dotted: "
        "with the second gradient recomputed.",
        _keys(smallest),
    )


def _steps(values: Sequence[float], p: Pairs, what: str, dash: str = "solid") -> Json:
    """The share of values up to each, as a line with steps."""
    ordered = sorted(values)
    shares = [i / len(ordered) for i in range(len(ordered) + 1)]
    trace = line([*ordered[:1], *ordered], shares, colour=_COLOURS[p.part])
    return {
        **trace,
        "line": {**trace["line"], "shape": "hv", "dash": dash, "width": 2 if dash == "solid" else 1.4},
        "hoverinfo": None,
        "hovertemplate": f"{safe(p.label)}, {what} %{{x:.3g}}: %{{y:.0%}}<extra></extra>",
        "legendgroup": p.part,
    }


def _keys(pairs: Sequence[Pairs]) -> tuple[Key, ...]:
    return tuple(Key("line", _COLOURS[p.part], p.label, p.part) for p in pairs)


def _share_axis() -> Json:
    return {**value_axis([1.0], percent), "range": [0, 1.02]}


def _upright(x: float, dash: str) -> Json:
    at = {"type": "line", "xref": "x", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1, "layer": "below"}
    return {**at, "line": {"color": "var(--muted)", "width": 1.2, "dash": dash}}


# --- against batch size -------------------------------------------------------------------------------------------


def _against_size(shown: Sequence[Pairs]) -> tuple[Section, ...]:
    sizes = sorted({p.batch_size for p in shown})
    if len(sizes) < 2:
        return ()
    figures = (
        _size_figure(shown, sizes, "competition-cosine-size", "mean cosine", lambda p: p.mean_cosine),
        _size_figure(shown, sizes, "competition-kept-size", "share of the lengths kept", lambda p: p.ratio_kept),
    )
    return (Section("batches", "Against the size of the two batches", (Row(figures),)),)


def _size_figure(
    shown: Sequence[Pairs], sizes: Sequence[int], name: str, title: str, value: Callable[[Pairs], Estimate]
) -> Figure:
    traces: list[Json] = []
    parts = list(dict.fromkeys(p.part for p in shown))
    for part in parts:
        own = [(p, value(p)) for p in shown if p.part == part and value(p).value is not None]
        middle = [e.value or 0.0 for _, e in own]
        hover = [f"batches of {count(p.batch_size)}, {safe(p.label)}<br>{with_interval(e)}" for p, e in own]
        drawn = points([p.batch_size for p, _ in own], middle, hover, mark="small", colour=_COLOURS[part])
        below = [v - (v if e.low is None else e.low) for v, (_, e) in zip(middle, own, strict=True)]
        above = [(v if e.high is None else e.high) - v for v, (_, e) in zip(middle, own, strict=True)]
        joined_up = {"mode": "lines+markers", "line": {"color": _COLOURS[part], "width": 2}, "legendgroup": part}
        traces.append({**with_errors(drawn, below, above), **joined_up})
    measured = [v for trace in traces for v in trace["y"]]
    axis = {**_free_axis([*measured, *([0.0] if min(measured, default=0.0) < 0.3 else []), 1.0])}
    phrase = "; ".join(
        f"{fewest.label} from {number(value(fewest).value)} at {count(sizes[0])} to {number(value(most).value)} at "
        f"{count(sizes[-1])}"
        for fewest, most in _ends(shown, sizes)
    )
    first = [next(p for p in shown if p.part == part) for part in parts]
    return Figure(
        name,
        title,
        tuple(traces),
        layout(batch_axis(sizes, labels=6), axis, height=_HEIGHT),
        sentence(phrase) + " Intervals are over the pairs.",
        _keys(first),
    )


def _ends(shown: Sequence[Pairs], sizes: Sequence[int]) -> list[tuple[Pairs, Pairs]]:
    """The smallest and the largest size of each checkpoint that has both."""
    small = {p.part: p for p in shown if p.batch_size == sizes[0]}
    return [(small[p.part], p) for p in shown if p.batch_size == sizes[-1] and p.part in small]


def _table(shown: Sequence[Pairs]) -> Table:
    columns = (
        Column("checkpoint"),
        Column("batches of", numeric=True),
        Column("pairs", numeric=True),
        Column("cosine", numeric=True),
        Column("below 0", numeric=True),
        Column("kept", numeric=True),
        Column("kept in turn", numeric=True),
        Column("second, after the first", numeric=True),
        Column("one step ÷ mean of two", numeric=True),
        Column("outside the plane", numeric=True),
    )
    rows = tuple(
        (
            p.label,
            count(p.batch_size),
            plural(len(p), "pair"),
            with_interval(p.mean_cosine),
            percent(p.share_opposed),
            with_interval(p.ratio_kept),
            with_interval(p.ratio_kept_in_turn),
            with_interval(p.ratio_of_second),
            with_interval(p.ratio_per_step),
            percent(p.median_outside),
        )
        for p in shown
    )
    return Table(columns, rows)
