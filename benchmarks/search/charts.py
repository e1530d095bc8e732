"""A log-log chart as SVG, without a browser."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Line", "chart"]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 860, 460, 60, 210, 16, 48
_COLOURS = ("#000000", "#9e9e9e", "#8c6d31", "#c49c5e", "#17a2a2", "#2ca02c", "#1f77b4", "#9467bd", "#e377c2")
_MORE = ("#d62728", "#ff7f0e", "#bcbd22")
_HIGHEST = 30.0


@dataclass(frozen=True)
class Line:
    """A named line; points that are not finite are left out."""

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    dashed: bool = False


def chart(lines: Sequence[Line], *, x: str, y: str, highest: float = _HIGHEST) -> str:
    """The lines on logarithmic axes, with a legend.

    Args:
        lines: of one name have one colour.
        x: title of the horizontal axis.
        y: title of the vertical axis.
        highest: the vertical axis ends there at the latest.
    """
    seen = [line.x[np.isfinite(line.y)] for line in lines]
    shown = np.concatenate([line.y[np.isfinite(line.y)] for line in lines])
    all_x = np.concatenate(seen)
    spans = ((all_x.min(), all_x.max()), (min(0.9, shown.min()), min(highest, shown.max())))
    to_x = _scale(spans[0], _LEFT, _WIDTH - _RIGHT)
    to_y = _scale(spans[1], _HEIGHT - _BOTTOM, _TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
    ]
    for tick in _ticks(spans[0]):
        at = to_x(tick)
        parts.append(_rule(at, _TOP, at, _HEIGHT - _BOTTOM) + _text(at, _HEIGHT - _BOTTOM + 16, f"{tick:g}", "middle"))
    for tick in _ticks(spans[1]):
        at = to_y(tick)
        parts.append(_rule(_LEFT, at, _WIDTH - _RIGHT, at) + _text(_LEFT - 6, at + 4, f"{tick:g}", "end"))
    names = list(dict.fromkeys(line.name for line in lines))
    colours = dict(zip(names, (_COLOURS + _MORE) * (1 + len(names) // 12), strict=False))
    for line in lines:
        points = [(a, b) for a, b in zip(line.x, line.y, strict=True) if math.isfinite(b) and b <= spans[1][1]]
        path = " ".join(f"{to_x(a):.1f},{to_y(b):.1f}" for a, b in points)
        dash = ' stroke-dasharray="4 3" stroke-opacity="0.6"' if line.dashed else ""
        width = 3 if line.name == names[0] else 1.6
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colours[line.name]}" stroke-width="{width}"{dash}/>'
        )
    for index, name in enumerate(names):
        at = _TOP + 12 + 18 * index
        start = _WIDTH - _RIGHT + 14
        parts.append(f'<path d="M{start} {at}h22" stroke="{colours[name]}" stroke-width="3"/>')
        parts.append(_text(start + 28, at + 4, name, "start"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 10, x, "middle"))
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(f'<g transform="translate(16 {middle}) rotate(-90)">{_text(0, 0, y, "middle")}</g>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _scale(span: tuple[float, float], start: float, stop: float) -> Callable[[float], float]:
    low, high = (math.log(each) for each in span)
    return lambda value: start + (math.log(value) - low) / (high - low) * (stop - start)


def _ticks(span: tuple[float, float]) -> list[float]:
    decades = range(math.floor(math.log10(span[0])), math.ceil(math.log10(span[1])) + 1)
    every = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
    return [tick for tick in every if span[0] <= tick <= span[1]]


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="#e5e5e5"/>'


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(words)}</text>'
