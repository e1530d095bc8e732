"""Little data and a model that overfits: whether the noise of small batches works against it."""

from __future__ import annotations

from collections.abc import Sequence

from .....fits import intervals
from .....report.blocks import Block, Figure, Row, Section
from .....report.charts import LINE
from .....store.records import Estimate
from .....wording import count, joined, metric_in_words, number, with_interval
from ....page.figures.against_size import Series, against_size
from ....page.figures.branch_curves import Branch, Up, branch_curves
from ....records import StudyRow
from ....summary import evaluation_at
from ...comparisons import gap_range
from ...plan import FEW
from ...records import Claims
from ...results import Setting, TaskResults
from ..drawing import by_size, course_at, shade_of
from ..themes import THEMES
from ..wording import changed, no_runs, note, theme_section

_TEXTBOOKS = (
    "Small batches are said to generalise better because their noise works as a regulariser. Where everything but "
    "the noise is made equal, that should be left: little data, so that the model overfits; every batch size at its "
    "best learning rate; and the gap between training and validation compared where all have the same training loss, "
    "so that a shorter training is no explanation."
)


def build(claims: Claims, e: TaskResults) -> Section:
    """The gap at equal training loss, and the courses of the runs."""
    gap, curves = _gap(e), _curves(e)
    drawn: list[Block] = []
    if gap is not None and curves is not None:
        drawn = [Row((gap, curves))]
    elif curves is not None:
        drawn = [
            curves,
            note("No figure of the gap: no training loss is reached by all batch sizes, or none is reported."),
        ]
    return theme_section(claims, THEMES[8], _TEXTBOOKS, [_difference(e)], drawn or [no_runs("training on little data")])


def _arms(e: TaskResults) -> dict[int, Setting]:
    sizes = e.plan.few_sizes(e.study.examples)
    return {size: arm for size in sizes if (arm := e.at_best(size, FEW)) is not None and e.rows(arm)}


def _gaps(e: TaskResults, arms: dict[int, Setting]) -> tuple[float, dict[int, Estimate]] | None:
    """The training loss that all reach, and the gap of each batch size there."""
    level = e.common_level(arms.values()) if len(arms) > 1 else None
    if level is None or e.train_loss == e.study.metric:
        return None

    def gap(row: StudyRow) -> float | None:
        there = evaluation_at(e.course(row), e.train_loss, level)
        return None if there is None else e.gap_at(there)

    def mean(size: int) -> Estimate:
        found = [g for row in e.rows(arms[size]) if (g := gap(row)) is not None]
        return intervals.mean(found, within=gap_range(e))

    found = by_size(arms, mean)
    return (level, found) if found else None


def _gap(e: TaskResults) -> Figure | None:
    measured = _gaps(e, _arms(e))
    if measured is None:
        return None
    level, found = measured
    detail = joined([f"{with_interval(g)} at batch size {count(b)}" for b, g in found.items()])
    caption = (
        f"Where the training loss is {number(level)}, the gap is {detail}. Were noise a regulariser, it would rise to "
        "the right."
    )
    title = (
        f"training minus {metric_in_words(e.score.metric)}"
        if e.gap
        else f"{metric_in_words(e.loss or '')} minus training loss"
    )
    series = Series(label="gap", colour=LINE, values=found)
    return against_size(
        "gap-few", f"{title}, at equal training loss", [series], caption=caption, scale="spread", height=320
    )


def _curves(e: TaskResults) -> Figure | None:
    arms = _arms(e)
    names = dict.fromkeys((e.loss or e.metric.metric, e.train_loss))
    shades = shade_of(list(arms)) if arms else {}
    found = [(arm, course) for arm in arms.values() if (course := course_at(e, arm)) is not None]
    if not found:
        return None
    branches = [
        Branch(
            label=f"batch size {count(arm.batch_size)} at learning rate {number(arm.lr)}",
            course=course,
            colour=shades[arm.batch_size],
        )
        for arm, course in found
    ]
    metric = next(iter(names))
    detail = joined([f"{_end(course.mean[metric])} at batch size {count(arm.batch_size)}" for arm, course in found])
    examples = count(e.plan.few(e.study.examples))
    return branch_curves(
        "few-curves",
        branches,
        across=("epoch", "step"),
        up=[Up(label=metric_in_words(name), metric=name) for name in names],
        examples=e.plan.few(e.study.examples),
        caption=f"Runs on {examples} examples. The {metric_in_words(metric)} ends at {detail}.",
        height=320,
    )


def _end(values: Sequence[float]) -> str:
    return f"{number(values[-1])} (minimum {number(min(values))})"


def _difference(e: TaskResults) -> str:
    """The gap of the largest over the smallest batch that fits."""
    arms = _arms(e)
    measured = _gaps(e, arms)
    if measured is None:
        return ""
    level, _ = measured
    small, large = min(arms), max(arms)

    def gap(row: StudyRow) -> float | None:
        there = evaluation_at(e.course(row), e.train_loss, level)
        return None if there is None else e.gap_at(there)

    change = e.compared(arms[small], arms[large], gap)
    if change.value is None:
        return ""
    return (
        f"On {count(e.plan.few(e.study.examples))} examples, at the same training loss of {number(level)}, the gap of "
        f"batch size {count(large)}, against {count(small)}, is {changed(change, larger_is_better=False)}."
    )
