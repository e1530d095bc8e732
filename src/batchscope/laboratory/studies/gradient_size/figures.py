"""What the study `gradient_size` shows: published values, and norms, spreads and ways by batch size. Numbers only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ....report.blocks import Block, Column, Figure, Json, Key, Option, Row, Section, Switch, Table, Text
from ....report.charts import batch_axis, finite, layout, log_axis, points, safe, value_axis
from ....wording import count, joined, number, plural, sentence, with_interval
from ...published import SHEN, Value, published_section
from ...records import Study
from .distribution_figures import histogram_figure, norms_figure
from .sums import GradientSums

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = ["build"]

_COLOURS = {"start": "var(--series-0)", "early": "var(--series-0)", "end": "var(--series-1)"}
_NORMS: Mapping[str, Mapping[int, tuple[float, str]]] = {
    "early": {1: (0.14, "0.14"), 64: (0.24, "0.24"), 1024: (0.364, "0.364 ± 0.056")},
    "end": {
        1: (0.13, "0.13"),
        8: (0.12, "0.12, the minimum"),
        16: (0.12, "0.12, the minimum"),
        64: (0.144, "0.144"),
        1024: (0.24, "0.24 ± 0.05"),
    },
}
"""Means of the norms after epoch 2 and epoch 30, in Shen's figures."""
_SPREADS: Mapping[str, Mapping[int, float]] = {"early": {1: 0.008, 64: 0.015, 1024: 0.056}, "end": {1024: 0.05}}
"""Standard deviations of the norms, scaled to the mean of batch size 1,024."""
_COUNTS = {"early": ("2.26e5 of 1.02e7", "about 10²"), "end": ("1.01e5 of 1.02e7", "")}
"""Published counts at the marked value, of the largest batch and of the smallest."""
_OF_SHEN = {"early": "Shen, after 2 epochs", "end": "Shen, after 30 epochs"}
_READ = (
    "The published counts are read off a figure that marks a value; whether of one bin or of all values beyond is not "
    "known. Here all values at or beyond it are counted; the figures have a mark of our own, beyond which the largest "
    "batch has the published share of values in the first repeat."
)


def build(study: Study, runs: Sequence[StoredRun], found: Sequence[GradientSums]) -> tuple[Section, ...]:
    """The published values beside ours, then a section on norms and one on values, of the first seed."""
    known = [s for s in found if not s.reason]
    shown = [s for s in known if s.seed == known[0].seed]
    missing = [Text((sentence(f"{s.label}, nothing was measured: {s.reason}"),)) for s in found if s.reason]
    published = published_section(study, runs, SHEN, _values(shown), Text((_READ,), tone="note"), *missing)
    if not shown:
        return (published,)
    note = _setting(shown[0], len({s.seed for s in known}))
    small, large = (count(size.batch_size) for size in (shown[0].smallest, shown[0].largest))
    return (
        published,
        Section(
            "norms",
            "Gradients of the same samples, in small steps or in one",
            (Text((note,), tone="note"), _norm_figure(shown)),
        ),
        Section("spreads", "Spread and distance", (Row((_spread_figure(shown), _way_figure(shown))),)),
        Section("distributions", "Distribution of the norms", (Row(tuple(norms_figure(s) for s in shown)),)),
        Section("values", "Values of the summed gradients", (Row(tuple(histogram_figure(s) for s in shown)),)),
        Section(
            "numbers",
            f"From batch size {small} to {large} in numbers",
            tuple(b for s in shown for b in _table(s)),
            folded=True,
        ),
    )


def _setting(s: GradientSums, seeds: int) -> str:
    others = f" Figures and tables are of seed {s.seed}, the findings of all {seeds}." if seeds > 1 else ""
    return (
        f"In each repeat {count(s.samples)} samples are drawn with replacement; every batch size B goes through the "
        f"same ones in the same order, from the same weights, in steps of SGD at learning rate {number(s.lr)}. The "
        f"gradients of {s.layer} are added up and multiplied by B/{count(s.samples)}: a mean over the steps.{others}"
    )


def _period(s: GradientSums) -> str:
    """Name of the published checkpoint that is shown beside this one."""
    return "end" if s.part == "end" else "early"


def _values(shown: Sequence[GradientSums]) -> list[Value]:
    values: list[Value] = []
    for s in shown:
        period = _period(s)
        for size, (_, published) in _NORMS[period].items():
            if (ours := s.at(size)) is not None:
                what = f"norm at batch size {count(size)}, {s.label}"
                values.append(Value(what=what, published=published, ours=ours.in_words))
        if period == "end":
            smallest = min(s.sizes, key=lambda size: size.norm.value or math.inf)
            ours = f"{count(smallest.batch_size)} ({number(smallest.norm.value)})"
            values.append(Value(what=f"batch size with the smallest norm, {s.label}", published="8 to 16", ours=ours))
        for size, spread in _SPREADS[period].items():
            if (ours := s.at(size)) is not None and ours.rescaled_sd is not None:
                what = f"standard deviation of norms scaled to one mean, batch size {count(size)}, {s.label}"
                values.append(Value(what=what, published=number(spread), ours=number(ours.rescaled_sd)))
        large, small = _COUNTS[period]
        for size, published in ((s.largest, large), (s.beside, small)):
            if published:
                ours = f"{count(size.beyond_published)} of {count(size.bins.total)}"
                what = f"values from {number(s.published_mark)} on, batch size {count(size.batch_size)}, {s.label}"
                values.append(Value(what=what, published=published, ours=ours))
    return values


# --- against batch size -------------------------------------------------------------------------------------------


def _norm_figure(shown: Sequence[GradientSums]) -> Figure:
    """Means with the standard deviation between repeats; the switch divides by the mean of the largest batch size."""
    traces: list[Json] = []
    plain: list[tuple[float | None, ...]] = []
    relative: list[tuple[float | None, ...]] = []
    keys: list[Key] = []

    def add(trace: Json, y: Sequence[float | None], reference: float) -> None:
        traces.append({**trace, "y": []})
        plain.append(tuple(finite(y)))
        relative.append(tuple(finite([None if v is None else v / reference for v in y])))

    for s in shown:
        colour, reference, sizes = _COLOURS[s.part], s.largest.norm.value or 1.0, [z.batch_size for z in s.sizes]
        low, high = ([(z.norm.value or 0.0) + sign * (z.sd or 0.0) for z in s.sizes] for sign in (-1, 1))
        add(_area([*sizes, *reversed(sizes)], colour, s.part), [*low, *reversed(high)], reference)
        hover = [f"batch size {count(z.batch_size)}, {safe(s.label)}<br>{z.in_words}" for z in s.sizes]
        add(_joined(sizes, [], hover, colour, s.part), [z.norm.value for z in s.sizes], reference)
        published = _NORMS[_period(s)]
        hover = [f"Shen: {text}" for _, text in published.values()]
        add(_shen(published, [], hover, colour), [v for v, _ in published.values()], published[1024][0])
        keys.append(Key("line", colour, f"{s.label}, band: ± a standard deviation", s.part))
    keys += [Key("open", _COLOURS[s.part], _OF_SHEN[_period(s)], "shen") for s in shown]
    axis = batch_axis([z for s in shown for z in (*_sizes(s), *_NORMS[_period(s)])])
    options = tuple(
        Option(label, tuple(data), {"yaxis": value_axis([v for y in data for v in y])})
        for label, data in (("the norm", plain), ("relative to the largest", relative))
    )
    words = "; ".join(
        f"{s.label} the norm goes from {number(s.smallest.norm.value)} at batch size {count(s.smallest.batch_size)} to "
        f"{number(s.largest.norm.value)} at {count(s.largest.batch_size)}{_dip(s)}"
        for s in shown
    )
    return Figure(
        "gradient-norm",
        "norm of the mean gradient over the steps",
        tuple(traces),
        layout(axis, options[0].layout["yaxis"], height=400),
        sentence(words) + " The open points are Shen's, on MNIST: where data or network differ, compare the shape.",
        tuple(keys),
        (Switch("y", "show", options),),
    )


def _dip(s: GradientSums) -> str:
    smallest = min(s.sizes, key=lambda z: z.norm.value or math.inf)
    if smallest is s.smallest or smallest is s.largest:
        return ""
    return f", by way of {number(smallest.norm.value)} at {count(smallest.batch_size)}"


def _spread_figure(shown: Sequence[GradientSums]) -> Figure:
    traces: list[Json] = []
    values: list[float | None] = []
    keys: list[Key] = []
    for s in shown:
        period, colour = _period(s), _COLOURS[s.part]
        known = [z for z in s.sizes if z.relative_sd]
        y = [z.relative_sd for z in known]
        hover = [f"batch size {count(z.batch_size)}, {safe(s.label)}<br>{number(z.relative_sd)}" for z in known]
        traces.append(_joined([z.batch_size for z in known], y, hover, colour, s.part))
        published = {size: spread / _NORMS[period][1024][0] for size, spread in _SPREADS[period].items()}
        hover = [f"Shen: {number(v)}" for v in published.values()]
        traces.append(_shen(published, list(published.values()), hover, colour))
        values += [*y, *published.values()]
        keys.append(Key("line", colour, s.label, s.part))
    keys.append(Key("open", "var(--muted)", "Shen", "shen"))
    axis = batch_axis([z for s in shown for z in (*_sizes(s), *_SPREADS[_period(s)])], labels=6)
    words = joined([f"{with_interval(s.ratio_of_spreads)} times {s.label}" for s in shown])
    return Figure(
        "gradient-spread",
        "standard deviation between repeats ÷ mean",
        tuple(traces),
        layout(axis, log_axis(values, labels=6), height=320),
        f"How much the size of the gradient depends on which samples are drawn. From batch size "
        f"{count(shown[0].smallest.batch_size)} to {count(shown[0].largest.batch_size)} it grows {words}."
        + "".join(_smallest_spread(s) for s in shown),
        tuple(keys),
    )


def _smallest_spread(s: GradientSums) -> str:
    """Where the relative standard deviation has its minimum, if that is not at an end."""
    smallest = min(s.sizes, key=lambda z: z.relative_sd or 0.0)
    if smallest is s.smallest or smallest is s.largest or not smallest.relative_sd:
        return ""
    return f" It has its minimum at {count(smallest.batch_size)} {s.label}."


def _way_figure(shown: Sequence[GradientSums]) -> Figure:
    traces: list[Json] = []
    values: list[float] = []
    for s in shown:
        period, colour = _period(s), _COLOURS[s.part]
        y = [s.way(z) for z in s.sizes]
        hover = [f"batch size {count(z.batch_size)}, {safe(s.label)}<br>{number(s.way(z))}" for z in s.sizes]
        traces.append(_joined(_sizes(s), y, hover, colour, s.part))
        published = {size: 0.01 * 1024 / size * norm for size, (norm, _) in _NORMS[period].items()}
        hover = [f"from Shen's norm: {number(v)}" for v in published.values()]
        traces.append(_shen(published, list(published.values()), hover, colour))
        values += [*y, *published.values()]
    keys = (
        *(Key("line", _COLOURS[s.part], s.label, s.part) for s in shown),
        Key("open", "var(--muted)", "from Shen's norms", "shen"),
    )
    axis = batch_axis([z for s in shown for z in (*_sizes(s), *_NORMS[_period(s)])], labels=6)
    words = joined([f"{with_interval(s.ratio_of_ways)} times as far {s.label}" for s in shown])
    return Figure(
        "gradient-way",
        f"distance that {shown[0].layer} moves",
        tuple(traces),
        layout(axis, log_axis(values, labels=6), height=320),
        f"Learning rate × {count(shown[0].samples)}/B × norm. Through the same samples, batch size "
        f"{count(shown[0].smallest.batch_size)} goes {words} as {count(shown[0].largest.batch_size)}.",
        keys,
    )


def _sizes(s: GradientSums) -> list[int]:
    return [z.batch_size for z in s.sizes]


def _joined(x: Sequence[float], y: Sequence[float | None], hover: Sequence[str], colour: str, group: str) -> Json:
    """Points with a line through them."""
    marked = points(x, y, hover, mark="small", colour=colour)
    return {**marked, "mode": "lines+markers", "line": {"color": colour, "width": 2}, "legendgroup": group}


def _shen(published: Mapping[int, object], y: Sequence[float], hover: Sequence[str], colour: str) -> Json:
    """Published values by batch size."""
    return {**points(list(published), y, hover, mark="open", colour=colour), "legendgroup": "shen"}


def _area(x: Sequence[float], colour: str, group: str) -> Json:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": finite(x),
        "fill": "toself",
        "fillcolor": colour,
        "opacity": 0.16,
        "line": {"width": 0},
        "hoverinfo": "skip",
        "legendgroup": group,
    }


def _table(s: GradientSums) -> tuple[Block, ...]:
    columns = (
        Column("batch size", numeric=True),
        Column("steps", numeric=True),
        Column("norm", numeric=True),
        Column("standard deviation", numeric=True),
        Column("of the mean", numeric=True),
        Column("error of the mean", numeric=True),
        Column("distance", numeric=True),
        Column(f"values ≥ {number(s.mark)}", numeric=True),
        Column("full width", numeric=True),
    )
    rows = tuple(
        (
            count(z.batch_size),
            count(z.steps),
            with_interval(z.norm),
            number(z.sd),
            _percent(z.relative_sd),
            _percent(z.relative_error),
            number(s.way(z)),
            count(sum(z.beyond)),
            number(z.full_width),
        )
        for z in s.sizes
    )
    note = (
        f"{sentence(s.label).rstrip('.')}: mean norm over {plural(s.repeats, 'repeat')} with its 90 % t interval; "
        "standard deviation between repeats; distance that the layer moves; values of the sums; full width at half "
        "of the maximum."
    )
    return Text((note,), tone="note"), Table(columns, rows)


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{number(100 * share)} %"
