"""Every batch size at every learning rate: a heat map of the best value, and the value against the learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ....report.blocks import Figure, Json, Key, Section, Text
from ....report.charts import (
    CURRENT,
    category_axis,
    heat_map,
    layout,
    line,
    log_axis,
    metric_axis,
    points,
    safe,
    with_errors,
)
from ....wording import count, joined, number, with_interval
from ...records import Study, SummaryRow
from ..lines import Line, lines_of, value_of

if TYPE_CHECKING:
    from ....store.runs import StoredRun


def build(study: Study, runs: Sequence[StoredRun]) -> Section:
    """A heat map for each variant, and one figure of the values with their intervals."""
    if not lines_of(study):
        return Section("rates", "Batch size and learning rate", (Text(("No arm has a value.",)),))
    variants = list(dict.fromkeys(s.variant for s in study.summary))
    maps = [_map(study, variant, i) for i, variant in enumerate(variants)]
    against = [_against_rate(study)] if len({s.lr for s in study.summary}) > 1 else []
    return Section("rates", "Batch size and learning rate", (*maps, *against))


def _map(study: Study, variant: str, index: int) -> Figure:
    own = {(s.batch_size, s.lr): s for s in study.summary if s.variant == variant}
    sizes, rates = sorted({b for b, _ in own}), sorted({lr for _, lr in own})
    cells = [[own.get((size, lr)) for lr in rates] for size in sizes]
    columns, rows = [number(lr) for lr in rates], [count(size) for size in sizes]
    field = heat_map(
        columns,
        rows,
        [[_value(study, cell) for cell in row] for row in cells],
        [[_hover(study, cell) for cell in row] for row in cells],
    )
    field["reversescale"] = study.larger_is_better
    lost = [
        (x, y, c)
        for y, row in zip(rows, cells, strict=True)
        for x, c in zip(columns, row, strict=True)
        if c and c.diverged
    ]
    best = [
        (x, y) for y, row in zip(rows, cells, strict=True) for x, c in zip(columns, row, strict=True) if c and c.best_lr
    ]
    traces: list[Json] = [field]
    if lost:
        crosses = points(
            [0.0] * len(lost), [0.0] * len(lost), [_hover(study, c) for *_, c in lost], mark="cross", colour=CURRENT
        )
        traces.append({**crosses, "x": [x for x, *_ in lost], "y": [y for _, y, _ in lost]})
    if best:
        rings = points(
            [0.0] * len(best), [0.0] * len(best), ["best learning rate"] * len(best), mark="open", colour="#ffffff"
        )
        marker = {**rings["marker"], "size": 46, "symbol": "square-open", "line": {"color": "#ffffff", "width": 2}}
        traces.append(
            {
                **rings,
                "x": [x for x, _ in best],
                "y": [y for _, y in best],
                "marker": marker,
                "hoverinfo": "skip",
                "hovertemplate": None,
            }
        )
    keys = [Key("open", "var(--text)", "best learning rate of its batch size (framed)")]
    keys += [Key("cross", CURRENT, "a seed diverged")] if lost else []
    frame = layout(category_axis("learning rate"), category_axis("batch size"), height=max(240, 90 + 56 * len(sizes)))
    title = f"best {study.metric}, mean over the seeds{f': {variant}' if variant else ''}"
    return Figure(f"heat-map-{index}", title, tuple(traces), frame, _conclude(study, variant), tuple(keys))


def _value(study: Study, cell: SummaryRow | None) -> float | None:
    return None if cell is None or cell.diverged else value_of(cell, f"best_{study.metric}")


def _hover(study: Study, cell: SummaryRow | None) -> str:
    if cell is None:
        return "not run"
    head = f"batch size {count(cell.batch_size)}, learning rate {number(cell.lr)}"
    if cell.diverged:
        return f"{head}<br>{cell.diverged} of {cell.runs} runs diverged"
    value = with_interval(cell.estimates[f"best_{study.metric}"])
    epoch = with_interval(cell.estimates["best_epoch"])
    return f"{head}<br>best {safe(study.metric)} {value}<br>at epoch {epoch}<br>{cell.runs} seeds"


def _conclude(study: Study, variant: str) -> str:
    arms = sorted((s for s in study.summary if s.best_lr and s.variant == variant), key=lambda s: s.batch_size)
    if not arms:
        return "At every learning rate a run diverged."
    phrase = joined([f"{number(a.lr)} at batch size {count(a.batch_size)}" for a in arms])
    several = len({s.lr for s in study.summary if s.variant == variant}) > 1
    head = f"The best learning rate is {phrase}" if several else f"One learning rate was tried, {number(arms[0].lr)}"
    return f"{head}. A value is the mean over the seeds of {study.metric} at the best epoch of each run."


def _against_rate(study: Study) -> Figure:
    lines = lines_of(study)
    traces: list[Json] = []
    drawn: list[list[float | None]] = []
    for one in lines:
        arms = sorted((s for s in study.summary if _same(s, one) and not s.diverged), key=lambda s: s.lr)
        found = [s.estimates[f"best_{study.metric}"] for s in arms]
        values = [e.value for e in found]
        drawn.append(values)
        texts = [_hover(study, s) for s in arms]
        marks = points([s.lr for s in arms], values, texts, colour=one.colour)
        below = [(e.value or 0.0) - e.low if e.low is not None else 0.0 for e in found]
        above = [e.high - (e.value or 0.0) if e.high is not None else 0.0 for e in found]
        course = line([s.lr for s in arms], values, colour=one.colour)
        traces += [{**course, "legendgroup": one.group}, {**with_errors(marks, below, above), "legendgroup": one.group}]
    keys = tuple(Key("line", one.colour, one.name, one.group) for one in lines)
    frame = layout(
        log_axis([s.lr for s in study.summary], title="learning rate (log scale)"), metric_axis(drawn), height=400
    )
    caption = (
        "Bars are 90 % t intervals of the mean over the seeds. Learning rates at which a seed diverged are left out."
    )
    return Figure("against-rate", f"best {study.metric}", tuple(traces), frame, caption, keys)


def _same(arm: SummaryRow, one: Line) -> bool:
    return (arm.variant, arm.batch_size) == (one.arm.variant, one.arm.batch_size)
