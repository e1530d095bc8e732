"""A learning rate of its own for each batch size: the whole grid, and what tuning leaves of the difference."""

from __future__ import annotations

from .....report.blocks import Block, Figure, Json, Key, Section
from .....report.charts import CURRENT, category_axis, heat_map, layout, points, safe
from .....store.records import Estimate
from .....wording import count, joined, metric_in_words, number, with_interval
from ....page.figures.against_size import against_size
from ....records import SummaryRow
from ...comparisons import score_change
from ...records import Claims
from ...results import TaskResults
from ..drawing import over_seeds, two_series
from ..themes import THEMES
from ..wording import changed, no_runs, theme_section

_TEXTBOOKS = (
    "A larger batch is said to bear, and to need, a larger learning rate; adjusted, the difference between batch "
    "sizes is said to shrink to almost nothing. A grid of learning rates for every batch size shows both: where the "
    "best learning rate lies, and what of the difference is left at it."
)


def build(claims: Claims, e: TaskResults) -> Section:
    """The grid, and the best value with one learning rate against one of its own."""
    field, left = _map(e), _left(e)
    drawn: list[Block] = [figure for figure in (field, left) if figure is not None]
    return theme_section(
        claims, THEMES[4], _TEXTBOOKS, [_tuned(e)], drawn or [no_runs("batch sizes and learning rates")]
    )


def _map(e: TaskResults) -> Figure | None:
    own = {(s.batch_size, s.lr): s for s in e.study.summary if not s.variant}
    if not own:
        return None
    sizes, rates = sorted({b for b, _ in own}), sorted({lr for _, lr in own})
    cells = [[own.get((size, lr)) for lr in rates] for size in sizes]
    columns, rows = [number(lr) for lr in rates], [count(size) for size in sizes]
    field = heat_map(
        columns,
        rows,
        [[_value(e, cell) for cell in row] for row in cells],
        [[_hover(e, cell) for cell in row] for row in cells],
    )
    field["reversescale"] = e.study.larger_is_better
    placed = [
        (x, y, cell)
        for y, row in zip(rows, cells, strict=True)
        for x, cell in zip(columns, row, strict=True)
        if cell is not None
    ]
    lost = [(x, y) for x, y, cell in placed if cell.diverged]
    best = [(rates.index(cell.lr), sizes.index(cell.batch_size)) for _, _, cell in placed if cell.best_lr]
    traces = [field, *_crosses(lost)]
    keys = [Key("open", "var(--text)", "best learning rate of its batch size (framed)")]
    keys += [Key("cross", CURRENT, "a seed diverged")] if lost else []
    frame = layout(
        category_axis("learning rate"),
        category_axis("batch size"),
        shapes=[_frame(x, y) for x, y in best],
        height=max(240, 90 + 52 * len(sizes)),
    )
    title = f"best {metric_in_words(e.study.metric)} of a run, mean over the seeds"
    return Figure("rates", title, tuple(traces), frame, _conclude(e), tuple(keys))


def _crosses(places: list[tuple[str, str]]) -> list[Json]:
    """Crosses on the cells in which a seed diverged."""
    if not places:
        return []
    drawn = points([0.0] * len(places), [0.0] * len(places), [], mark="cross", colour=CURRENT)
    at = {"x": [x for x, _ in places], "y": [y for _, y in places], "text": [], "hoverinfo": "skip"}
    return [{**drawn, **at, "hovertemplate": None}]


def _frame(x: int, y: int) -> Json:
    """Around a cell, by its place in row and column."""
    edges = {"x0": x - 0.47, "x1": x + 0.47, "y0": y - 0.45, "y1": y + 0.45}
    return {"type": "rect", "xref": "x", "yref": "y", **edges, "line": {"color": "#ffffff", "width": 2.5}}


def _value(e: TaskResults, cell: SummaryRow | None) -> float | None:
    return None if cell is None or cell.diverged else cell.estimates[f"best_{e.study.metric}"].value


def _hover(e: TaskResults, cell: SummaryRow | None) -> str:
    if cell is None:
        return "not run"
    head = f"batch size {count(cell.batch_size)}, learning rate {number(cell.lr)}"
    if cell.diverged:
        return f"{head}<br>{cell.diverged} of {cell.runs} runs diverged"
    value = with_interval(cell.estimates[f"best_{e.study.metric}"])
    return f"{head}<br>{safe(metric_in_words(e.study.metric))} {value}<br>{cell.runs} seeds"


def _conclude(e: TaskResults) -> str:
    arms = [arm for b in e.plan.batch_sizes if (arm := e.at_best(b)) is not None]
    if not arms:
        return "At every learning rate a run diverged."
    detail = joined([f"{number(arm.lr)} at batch size {count(arm.batch_size)}" for arm in arms])
    phrases = [f"The best learning rate is {detail}."]
    growth, many = arms[-1].lr / arms[0].lr, arms[-1].batch_size / arms[0].batch_size
    if many > 1:
        phrases.append(
            f"That is {number(growth)} times the learning rate for {number(many)} times the batch; in proportion it "
            f"would be {number(many)} times, by the square root {number(many**0.5)}."
        )
    edge = [count(arm.batch_size) for arm in arms if arm.lr in (e.plan.lrs[0], e.plan.lrs[-1])]
    phrases += [f"At batch size {joined(edge)} it lies at the edge of the grid and is a bound only."] if edge else []
    return " ".join(phrases)


def _left(e: TaskResults) -> Figure | None:
    metric = e.loss or e.study.metric
    series = two_series(e, lambda arm: over_seeds(e, arm, f"best_{metric}"))
    spans = [
        max(values) - min(values)
        if len(values := [v.value for v in one.values.values() if v.value is not None]) > 1
        else None
        for one in series
    ]
    if None in spans:
        return None
    caption = (
        f"Over the batch sizes the best {metric_in_words(metric)} ranges over {number(spans[0])} at one learning rate, "
        f"and over {number(spans[1])} with each at its best. The smallest batch has its best learning rate in both."
    )
    return against_size("tuned", f"best {metric_in_words(metric)}", series, caption=caption, scale="spread")


def _tuned(e: TaskResults) -> str:
    """The score of the largest against the smallest batch, at one learning rate and tuned."""
    found: list[tuple[str, Estimate]] = []
    for words, when, arm_of in (
        ("at one learning rate", "final", e.at_one_rate),
        ("with each at its best", "best", e.at_best),
    ):
        small, large = map(arm_of, e.ends)
        found.append((words, score_change(e, small, large, when)))
    if any(change.value is None for _, change in found):
        return ""
    detail = ", and ".join(f"{changed(change)} {words}" for words, change in found)
    score, (small, large) = metric_in_words(e.score.metric), e.ends
    return f"The {score} of batch size {count(large)}, against {count(small)}, is {detail}."
