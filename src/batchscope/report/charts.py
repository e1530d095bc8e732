"""Chart parts that the pages use, as Plotly's JSON. Colours are names of the page's style."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from ..wording import bytes_, duration, duration_unit, number
from .blocks import Json

__all__ = [
    "BAND",
    "CENSORED",
    "CURRENT",
    "LINE",
    "MARKED",
    "RECIPE",
    "PointMark",
    "band",
    "batch_axis",
    "category_axis",
    "finite",
    "heat_map",
    "horizontal",
    "layout",
    "line",
    "log_axis",
    "memory_axis",
    "metric_axis",
    "points",
    "safe",
    "value_axis",
    "vertical",
    "with_errors",
]

LINE, BAND = "var(--line)", "var(--band)"
RECIPE, CURRENT, MARKED, CENSORED = "var(--recipe)", "var(--current)", "var(--marked)", "var(--censored)"

PointMark = Literal["disc", "small", "open", "arrow", "cross"]

_SYMBOLS: dict[PointMark, str] = {
    "disc": "circle",
    "small": "circle",
    "open": "circle-open",
    "arrow": "triangle-up-open",
    "cross": "x-thin-open",
}
_SIZES: dict[PointMark, int] = {"disc": 9, "small": 6, "open": 9, "arrow": 9, "cross": 8}
_LOWEST, _HIGHEST = 1e-12, 1e18
"""From edge to edge of any log axis: shapes that refer to the frame instead are drawn below the grid."""
_MOST_LABELS = 8


def _durations(sixtieths: Sequence[int], hours: Sequence[int], mantissas: Sequence[int]) -> tuple[float, ...]:
    return (
        *(unit * n for unit in (1.0, 60.0) for n in sixtieths),
        *(3600.0 * n for n in hours),
        *(86400.0 * m * 10.0**d for d in range(8) for m in mantissas),
    )


_DECADES = ((1, 2, 5), (1, 3), (1,))
"""Round numbers of a decade, from many to few."""
_DURATIONS = (
    _durations((1, 2, 5, 10, 20, 30), (1, 2, 5, 12), (1, 2, 5)),
    _durations((1, 5, 10, 30), (1, 5), (1, 3)),
    _durations((1, 10), (1,), (1,)),
)
"""Seconds from 1 on that people call round, in s, min, h and days, from many to few."""


def safe(text: object) -> str:
    """Text of a user, escaped for Plotly: Plotly reads some HTML tags, entities and line breaks."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("%{", "% {")


def finite(values: Iterable[float | None]) -> list[float | None]:
    """Numbers for JSON: finite, with five significant digits, which draw the same chart at half the size."""
    return [None if v is None or not math.isfinite(v) else float(f"{v:.5g}") for v in values]


def line(x: Sequence[float], y: Sequence[float | None], *, colour: str = LINE) -> Json:
    """Line through points."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": finite(x),
        "y": finite(y),
        "line": {"color": colour, "width": 2},
        "hoverinfo": "skip",
    }


def band(x: Sequence[float], low: Sequence[float], high: Sequence[float], *, colour: str = BAND) -> Json:
    """Area between two curves."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": finite([*x, *reversed(x)]),
        "y": finite([*low, *reversed(high)]),
        "fill": "toself",
        "fillcolor": colour,
        "line": {"width": 0},
        "hoverinfo": "skip",
    }


def points(
    x: Sequence[float],
    y: Sequence[float | None],
    hover: Sequence[str],
    *,
    mark: PointMark = "disc",
    colour: str = LINE,
) -> Json:
    """Markers; `hover` are texts that have been through `safe`."""
    size = _SIZES[mark]
    edge = {"color": "var(--page)", "width": 1} if mark in ("disc", "small") else {"color": colour, "width": 1.5}
    return {
        "type": "scatter",
        "mode": "markers",
        "x": finite(x),
        "y": finite(y),
        "text": list(hover),
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"symbol": _SYMBOLS[mark], "size": size, "color": colour, "line": edge},
    }


def with_errors(marks: Json, below: Sequence[float], above: Sequence[float]) -> Json:
    """Markers with error bars: how far each reaches down and up."""
    colour = marks["marker"]["color"]
    bars = {"array": finite(above), "arrayminus": finite(below), "color": colour, "thickness": 1.2, "width": 3}
    return {**marks, "error_y": {"type": "data", "symmetric": False, **bars}}


def heat_map(
    columns: Sequence[str],
    rows: Sequence[str],
    values: Sequence[Sequence[float | None]],
    hover: Sequence[Sequence[str]],
) -> Json:
    """Heat map of coloured cells with their values in them; smaller values are darker.

    An unknown value leaves the cell empty. Colours follow the logarithm where all values are positive and span a factor
    of three.
    """
    known = [v for row in values for v in row if v is not None and math.isfinite(v)]
    logarithmic = bool(known) and min(known) > 0 and max(known) / min(known) >= 3
    shades = [[math.log10(v) if v is not None and logarithmic else v for v in row] for row in values]
    return {
        "type": "heatmap",
        "x": list(columns),
        "y": list(rows),
        "z": [finite(row) for row in shades],
        "text": [["" if v is None else number(v) for v in row] for row in values],
        "texttemplate": "%{text}",
        "hovertext": [list(row) for row in hover],
        "hovertemplate": "%{hovertext}<extra></extra>",
        "colorscale": "Viridis",
        "xgap": 2,
        "ygap": 2,
        "hoverongaps": False,
        "showscale": False,
    }


def vertical(
    x: float, colour: str, *, dash: str = "solid", low: float | None = None, high: float | None = None
) -> list[Json]:
    """Vertical line at one batch size, with its interval as a shaded strip behind the data."""
    shapes: list[Json] = []
    if low is not None and high is not None and math.isfinite(low) and math.isfinite(high) and low < high:
        strip = {"type": "rect", "xref": "x", "yref": "y", "x0": low, "x1": high, "y0": _LOWEST, "y1": _HIGHEST}
        shapes.append({**strip, "fillcolor": colour, "opacity": 0.13, "line": {"width": 0}, "layer": "below"})
    at = {"type": "line", "xref": "x", "yref": "y", "x0": x, "x1": x, "y0": _LOWEST, "y1": _HIGHEST, "layer": "between"}
    return [*shapes, {**at, "line": {"color": colour, "width": 2, "dash": dash}}]


def horizontal(y: float, colour: str, *, dash: str = "dash") -> Json:
    """Horizontal line at one value, across the chart."""
    at = {"type": "line", "xref": "x", "yref": "y", "x0": _LOWEST, "x1": _HIGHEST, "y0": y, "y1": y, "layer": "between"}
    return {**at, "line": {"color": colour, "width": 1.5, "dash": dash}}


def batch_axis(sizes: Iterable[float], title: str = "batch size (log scale)", labels: int = _MOST_LABELS) -> Json:
    """Log axis with a tick at every power of two, of which at most `labels` have a label."""
    inside = [s for s in sizes if s > 0 and math.isfinite(s)]
    low, high = min(inside, default=1.0), max(inside, default=1.0)
    first, last = math.floor(math.log2(low) + 1e-9), math.ceil(math.log2(high) - 1e-9)
    every = max(1, math.ceil((last - first + 1) / labels))
    powers = range(first, last + 1)
    texts = [number(2.0**p) if p < 0 else f"{2**p}" for p in powers]
    return {
        **_axis(title),
        "type": "log",
        "tickmode": "array",
        "tickvals": [2.0**p for p in powers],
        "ticktext": [text if (i % every) == 0 else "" for i, text in enumerate(texts)],
        "range": _padded(math.log10(low), math.log10(high), minimum=0.1),
    }


def log_axis(
    values: Iterable[float | None],
    format: Callable[[float], str] = number,
    title: str = "",
    labels: int = _MOST_LABELS,
) -> Json:
    """Log axis with at most `labels` round ticks: 1, 2 and 5 times powers of ten if there is room.

    Where `format` is `duration`, ticks are round in the unit in which they are written.
    """
    inside = [v for v in values if v is not None and v > 0 and math.isfinite(v)]
    low, high = math.log10(min(inside, default=1.0)), math.log10(max(inside, default=1.0))
    lower, upper = _padded(low, high, minimum=0.08)
    return {
        **_axis(title),
        "type": "log",
        "range": [lower, upper],
        **_ticks(_round_values(lower, upper, labels, times=format is duration), format),
    }


def memory_axis(values: Sequence[float]) -> Json:
    """Log axis in bytes with ticks at powers of two."""
    axis = batch_axis(values, "", 6)
    labelled = zip(axis["tickvals"], axis["ticktext"], strict=True)
    return {**axis, "ticktext": [bytes_(v) if text else "" for v, text in labelled]}


def value_axis(values: Iterable[float | None], format: Callable[[float], str] = number, title: str = "") -> Json:
    """Linear axis from zero; ticks are round as for `log_axis`."""
    top = max((v for v in values if v is not None and math.isfinite(v)), default=1.0) or 1.0
    unit = duration_unit(top) if format is duration else 1.0
    ticks = [v * unit for v in _even_values(0.0, top * 1.1 / unit)]
    return {**_axis(title), "type": "linear", "range": [0, top * 1.1], **_ticks(ticks, format)}


def metric_axis(values: Sequence[Sequence[float | None]], also: float | None = None, title: str = "") -> Json:
    """Axis of a metric: logarithmic where all is positive and spans a factor of three.

    Runs that blow up leave the chart at the top.

    Args:
        values: one sequence a curve; twice the largest first value, or the middle last one, is the top.
        also: a value that must be in sight.
        title: of the axis.
    """
    known = [[v for v in run if v is not None and math.isfinite(v)] for run in values]
    lasts = sorted(abs(run[-1]) for run in known if run)
    typical = lasts[(len(lasts) - 1) // 2] if lasts else 0.0
    ceiling = 2 * max([typical, *(abs(run[0]) for run in known if run)], default=1.0)
    inside = [v for run in values for v in run if v is not None and abs(v) <= ceiling]
    inside += [also] if also is not None else []
    low, high = min(inside, default=0.0), max(inside, default=1.0)
    if low > 0 and high / low >= 3:
        return log_axis(inside, title=title)
    pad = 0.05 * (high - low) or 0.5
    axis = {**log_axis([1.0], title=title), "type": "linear", "tickmode": "auto", "tickvals": None, "ticktext": None}
    return {**axis, "range": [low - pad, high + pad]}


def category_axis(title: str = "") -> Json:
    """Axis of names, in the order of the data."""
    return {**_axis(title), "type": "category"}


def layout(x: Json, y: Json, *, shapes: Sequence[Json] = (), height: int = 340) -> Json:
    """Layout of every chart: transparent, without decoration."""
    if y["type"] == "linear":
        bottom, top = y["range"]
        ends = {_LOWEST: bottom, _HIGHEST: top}
        shapes = [{**s, "y0": ends.get(s["y0"], s["y0"]), "y1": ends.get(s["y1"], s["y1"])} for s in shapes]
    return {
        "height": height,
        "margin": {"l": 6, "r": 14, "t": 10, "b": 6},
        "xaxis": x,
        "yaxis": y,
        "shapes": list(shapes),
        "showlegend": False,
        "hovermode": "closest",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "var(--muted)"},
        "hoverlabel": {
            "bgcolor": "var(--surface)",
            "bordercolor": "var(--rule)",
            "font": {"color": "var(--text)", "size": 12},
            "align": "left",
        },
    }


def _axis(title: str) -> Json:
    return {
        "title": {"text": title, "standoff": 10},
        "automargin": True,
        "gridcolor": "var(--grid)",
        "linecolor": "var(--rule)",
        "zeroline": False,
        "ticks": "",
        "tickangle": 0,
    }


def _ticks(values: Sequence[float], format: Callable[[float], str]) -> Json:
    write = _round_duration if format is duration else format
    return {"tickmode": "array", "tickvals": list(values), "ticktext": [write(v) for v in values]}


def _round_duration(seconds: float) -> str:
    """Time in the largest unit of which it is so many, or so many and a half, as a clock has it: 1 min, 1 h, 1 day.

    >>> [_round_duration(s) for s in (0, 0.5, 20, 60, 3600, 5400, 86400, 864000)]
    ['0 s', '500 ms', '20 s', '1 min', '1 h', '1.5 h', '1 day', '10 days']
    """
    for name, several, unit in (("day", "days", 86400.0), ("h", "h", 3600.0), ("min", "min", 60.0)):
        if seconds >= unit and 2 * seconds % unit == 0:
            return f"{number(seconds / unit)} {name if seconds == unit else several}"
    return duration(seconds)


def _round_values(lower: float, upper: float, most: int, *, times: bool) -> list[float]:
    """Ticks between two decimal logarithms: round numbers; of times, from a second on, those of `_DURATIONS`."""
    decades = range(math.floor(lower), math.ceil(upper) + 1)
    ticks: list[float] = []
    for mantissas, durations in zip(_DECADES, _DURATIONS, strict=True):
        ticks = [m * 10.0**d for d in decades for m in mantissas if not times or d < 0]
        ticks = [v for v in (*ticks, *(durations if times else ())) if lower <= math.log10(v) <= upper]
        if len(ticks) <= most:
            break
    else:
        ticks = ticks[:: math.ceil(len(ticks) / most)]
    if len(ticks) >= 3:
        return ticks
    unit = duration_unit(10.0**upper) if times else 1.0
    return [v * unit for v in _even_values(10.0**lower / unit, 10.0**upper / unit)]


def _even_values(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten between two numbers, at most six of them."""
    step = 10.0 ** math.floor(math.log10((high - low) / 5))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= 5)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _padded(low: float, high: float, *, minimum: float) -> list[float]:
    pad = max(minimum, 0.04 * (high - low))
    return [low - pad, high + pad]
