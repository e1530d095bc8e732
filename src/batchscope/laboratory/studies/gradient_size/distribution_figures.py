"""Distributions by batch size of the study `gradient_size`: of the norms, and of the gradient values. Numbers only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import quantiles, stdev

import numpy as np

from ....report.blocks import Figure, Json, Key, Option, Switch
from ....report.charts import finite, layout, log_axis, points, value_axis
from ....wording import count, joined, number, percent, plural, with_interval
from .sums import Bins, GradientSums, Size

__all__ = ["histogram_figure", "norms_figure"]

_MOST_HISTOGRAMS = 6
_STRIPS_BELOW = 8
_DRAWN = 160


def norms_figure(s: GradientSums) -> Figure:
    """The norms of every repeat at each batch size, stacked; the switch gives all of them one mean."""
    traces: list[Json] = []
    plain: list[tuple[float | None, ...]] = []
    scaled: list[tuple[float | None, ...]] = []
    reference = s.largest.norm.value or 1.0
    for i, size in enumerate(s.sizes):
        colour = _shade(i, len(s.sizes))
        label = f"batch size {count(size.batch_size)}: {size.in_words}"
        x, y = _ridge(size.norms)
        if x:
            traces.append({**_ridge_trace([i + v for v in y], colour), "name": label})
        else:
            x = list(size.norms)
            traces.append(points([], [i] * len(x), [label] * len(x), mark="small", colour=colour))
        plain.append(tuple(finite(x)))
        scaled.append(tuple(finite([v * reference / (size.norm.value or 1.0) for v in x])))
    options = tuple(
        Option(label, tuple(data), {"xaxis": _plain_axis([v for x in data for v in x if v is not None])})
        for label, data in (("as they are", plain), ("scaled to one mean", scaled))
    )
    small, large = s.smallest, s.largest
    return Figure(
        f"gradient-norms-{s.part}",
        f"distribution of the norm {s.label}, by batch size",
        tuple(traces),
        layout(options[0].layout["xaxis"], _stack_axis(s.sizes), height=max(260, 60 + 26 * len(s.sizes))),
        f"{plural(s.repeats, 'repeat')} a batch size"
        + (", smoothed; each ridge has the same height" if s.repeats >= _STRIPS_BELOW else "")
        + f". The middle half of the norms spans {number(_middle_half(small))} at batch size "
        f"{count(small.batch_size)} and {number(_middle_half(large))} at {count(large.batch_size)}.",
        switches=(Switch("x", "norms", options),),
    )


def _ridge(values: Sequence[float]) -> tuple[list[float], list[float]]:
    """A density with a greatest value of 0.9, from normal kernels of Silverman's width (1986); none for few values."""
    if len(values) < _STRIPS_BELOW or stdev(values) == 0:
        return [], []
    lower, _, upper = quantiles(values, n=4)
    width = 0.9 * (min(stdev(values), (upper - lower) / 1.34) or stdev(values)) * len(values) ** -0.2
    at = np.linspace(min(values) - 3 * width, max(values) + 3 * width, 90)
    density = np.exp(-0.5 * ((at[:, None] - np.array(values)) / width) ** 2).sum(axis=1)
    return list(map(float, at)), list(map(float, 0.9 * density / density.max()))


def _ridge_trace(heights: Sequence[float], colour: str) -> Json:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [],
        "y": finite(heights),
        "fill": "toself",
        "fillcolor": colour,
        "opacity": 0.75,
        "line": {"color": colour, "width": 1},
        "hovertemplate": "%{fullData.name}<extra></extra>",
    }


def _middle_half(size: Size) -> float | None:
    if len(size.norms) < 2:
        return None
    lower, _, upper = quantiles(size.norms, n=4)
    return upper - lower


def _stack_axis(sizes: Sequence[Size]) -> Json:
    axis = value_axis([1.0])
    labels = [count(z.batch_size) for z in sizes]
    return {**axis, "tickvals": list(range(len(sizes))), "ticktext": labels, "range": [-0.3, len(sizes) + 0.05]}


def _plain_axis(values: Sequence[float]) -> Json:
    low, high = min(values), max(values)
    pad = 0.04 * (high - low) or 0.5
    axis = {**value_axis([1.0]), "tickmode": "auto", "nticks": 6, "tickvals": None, "ticktext": None}
    return {**axis, "range": [low - pad, high + pad]}


def _shade(index: int, of: int) -> str:
    return f"var(--size-{round(index * 7 / (of - 1)) if of > 1 else 4})"


# --- values -------------------------------------------------------------------------------------------------------


def histogram_figure(s: GradientSums) -> Figure:
    """Counts of the values at some batch sizes, stacked or on a logarithmic scale, with the mark."""
    sizes = _some(s.sizes)
    reach = min(sizes[-1].bins.limit, max(3 * abs(s.mark), 6 * sizes[-1].root_mean_square))
    traces: list[Json] = []
    stacked: list[tuple[float | None, ...]] = []
    logarithmic: list[tuple[float | None, ...]] = []
    keys: list[Key] = []
    most = 1
    for i, size in enumerate(sizes):
        colour, group = _shade(i, len(sizes)), f"size-{size.batch_size}"
        shown = _merged(size.bins, reach)
        peak = max(n for _, n in shown) or 1
        most = max(most, peak)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": finite([c for c, _ in shown]),
                "y": [],
                "line": {"color": colour, "width": 1.5},
                "legendgroup": group,
                "name": f"batch size {count(size.batch_size)}",
                "text": [count(n) for _, n in shown],
                "hovertemplate": "%{fullData.name}<br>about %{x:.3g}: %{text} values<extra></extra>",
            }
        )
        stacked.append(tuple(finite([i + 0.9 * n / peak for _, n in shown])))
        logarithmic.append(tuple(finite([float(n) if n else None for _, n in shown])))
        keys.append(Key("line", colour, f"batch size {count(size.batch_size)}", group))
    traces.append(_mark_trace(s.mark))
    stacked.append((-0.3, len(sizes) + 0.05))
    logarithmic.append((0.5, 2.0 * most))
    keys.append(Key("dash", "var(--marked)", f"the mark, {number(s.mark)}"))
    options = (
        Option("counts (log scale)", tuple(logarithmic), {"yaxis": log_axis([0.5, 2.0 * most], count, labels=8)}),
        Option("stacked", tuple(stacked), {"yaxis": _stack_axis(sizes)}),
    )
    return Figure(
        f"gradient-values-{s.part}",
        f"values of the summed gradients of {s.layer} {s.label}",
        tuple(traces),
        layout(_plain_axis([-reach, reach]), options[0].layout["yaxis"], height=max(300, 80 + 60 * len(sizes))),
        _values_in_words(s),
        tuple(keys),
        (Switch("y", "as", options),),
    )


def _merged(bins: Bins, reach: float) -> list[tuple[float, int]]:
    """Centres and counts up to `reach`, an odd number of neighbouring bins together so that there are not many more."""
    middle, each = len(bins.counts) // 2, 2 * int(reach / bins.width / _DRAWN) + 1
    blocks = range(-int((middle - each // 2) / each), int((middle - each // 2) / each) + 1)
    starts = [middle + block * each - each // 2 for block in blocks]
    found = [(bins.centres[start + each // 2], sum(bins.counts[start : start + each])) for start in starts]
    return [(centre, n) for centre, n in found if abs(centre) <= reach]


def _mark_trace(mark: float) -> Json:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [mark, mark],
        "y": [],
        "line": {"color": "var(--marked)", "width": 1.5, "dash": "dash"},
        "hoverinfo": "skip",
    }


def _some(sizes: Sequence[Size]) -> list[Size]:
    """The ends, batch size 2, and others in about equal ratios between."""
    if len(sizes) <= _MOST_HISTOGRAMS:
        return list(sizes)
    first, last = (math.log(sizes[i].batch_size) for i in (0, -1))
    wanted = [first + (last - first) * i / (_MOST_HISTOGRAMS - 1) for i in range(_MOST_HISTOGRAMS)]
    chosen = {min(sizes, key=lambda z: abs(math.log(z.batch_size) - at)).batch_size for at in wanted} | {2}
    return [z for z in sizes if z.batch_size in chosen]


def _values_in_words(s: GradientSums) -> str:
    large, beside = s.largest, s.beside
    tail = (
        f"At or beyond {number(s.mark)} lie {count(sum(large.beyond))} of {count(large.bins.total)} values at batch "
        f"size {count(large.batch_size)} and {count(sum(beside.beyond))} at {count(beside.batch_size)}: "
        f"{with_interval(s.ratio_of_tails)} times as many. "
    )
    own = [
        f"{number(100 * z.bins.share_beyond(3 * z.root_mean_square))} % at batch size {count(z.batch_size)}"
        for z in (beside, large)
        if z.bins.width < z.root_mean_square
    ]
    shape = (
        f"Part of that is scale: beyond three times their own root mean square lie {joined(own)} of the values, where "
        "normal ones would have 0.27 %. "
        if own
        else ""
    )
    zeros = large.bins.zeros / large.bins.total
    return tail + shape + (f"{percent(zeros)} of the values are exactly zero, and not drawn." if zeros > 0 else "")
