"""Sharpness by batch size, against the generalisation gap and the learning rate; and ratios of large to small."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from ....fits import intervals
from ....report.blocks import Column, Figure, Json, Key, Option, Row, Switch, Table
from ....report.charts import PointMark, batch_axis, finite, layout, line, points, safe
from ....store.records import Estimate
from ....wording import count, number, times, with_interval
from ...conclusions import best_rates, runs_of
from ...page.figures.branch_curves import shades
from ...page.figures.run_scatter import Choice, RunGroup, run_scatter
from ...page.figures.value_by_learning_rate import LearningRateSeries, ValueChoice, value_by_learning_rate
from ...page.figures.whole_axis import whole_axis
from ...readings import arm_of, end_metric_of
from ...records import Study, SummaryRow
from .sharpness import (
    BOXES,
    EIGENVALUE,
    KESKAR,
    MEASURES,
    RELATIVE,
    Measure,
    of_seeds,
    ratio_of,
    size_pairs,
    starts_of,
    value_of_run,
)

__all__ = ["by_size_figures", "edge_figure", "gap_figures", "ratio_table"]

_SERIES = 4
_MARKS: tuple[PointMark, ...] = ("disc", "open", "arrow")
_APART = 1.06
"""Searches of one run are drawn side by side, each by this factor in batch size."""
_MARGIN = 0.1
"""Room for them at the ends, in powers of ten."""


class _Choice(NamedTuple):
    """One position of the switch: an arm for each batch size."""

    label: str
    arms: dict[int, SummaryRow]


def by_size_figures(study: Study) -> Row | None:
    """φ of each box, and the eigenvalue, against batch size; every search of every run is a point."""
    choices = _choices(study)
    boxes = {
        "sharpness-keskar": ("φ in Keskar's box, per cent", [m for m in BOXES if m.kind == "keskar"]),
        "sharpness-relative": ("φ in the relative box, per cent", [m for m in BOXES if m.kind == "relative"]),
        "sharpness-eigenvalue": ("largest Hessian eigenvalue", [EIGENVALUE]),
    }
    drawn = [_by_size(study, name, title, own, choices) for name, (title, own) in boxes.items()]
    measured = tuple(figure for figure in drawn if figure is not None)
    return Row(measured) if measured else None


def _choices(study: Study) -> list[_Choice]:
    sizes = sorted(study.question.batch_sizes)
    found: list[_Choice] = []
    for lr in sorted(study.question.lrs):
        own = {size: arm for size in sizes if (arm := arm_of(study, size, lr)) is not None and not arm.diverged}
        if own:
            found.append(_Choice(f"{number(lr)}", own))
    best = {arm.batch_size: arm for arm in best_rates(study, "")}
    if len({arm.lr for arm in best.values()}) > 1:
        found.append(_Choice("each at its best", best))
    return found


def _by_size(
    study: Study, name: str, title: str, measures: Sequence[Measure], choices: Sequence[_Choice]
) -> Figure | None:
    sizes = sorted(study.question.batch_sizes)
    traces: list[Json] = []
    columns: list[list[tuple[float | None, ...]]] = [[] for _ in choices]
    keys: list[Key] = []
    for i, measure in enumerate(measures):
        colour, group = f"var(--series-{i % _SERIES})", f"{name}-{i}"
        means = [[_mean(study, choice.arms.get(size), measure) for size in sizes] for choice in choices]
        if all(value is None for row in means for value in row):
            continue
        starts = _start_names(study, measure)
        searches = [_searches(study, choice, measure, starts) for choice in choices]
        x, texts = _places(study, starts)
        marks = points(x, [None] * len(x), texts, mark="open", colour=colour)
        marks["hovertemplate"] = "%{text}<br>%{y:.4g}<extra></extra>"
        traces += [
            {**line([float(s) for s in sizes], means[0], colour=colour), "legendgroup": group},
            {**marks, "legendgroup": group},
        ]
        for column, row, found in zip(columns, means, searches, strict=True):
            column += [tuple(finite(row)), found]
        label = f"ε = {number(measure.eps)}" if measure.eps is not None else "mean over the seeds"
        keys.append(Key("line", colour, label, group))
    if not traces:
        return None
    axis = whole_axis([row for column in columns for row in column])
    options = tuple(
        Option(choice.label, tuple(column), {"yaxis": axis}) for choice, column in zip(choices, columns, strict=True)
    )
    for trace, values in zip(traces, columns[0], strict=True):
        trace["y"] = values
    switches = (Switch("y", "learning rate", options),) if len(options) > 1 else ()
    across = batch_axis(sizes, labels=4)
    low, high = across["range"]
    frame = layout({**across, "range": [low - _MARGIN, high + _MARGIN]}, axis, height=320)
    return Figure(name, title, tuple(traces), frame, _conclude(study, measures), tuple(keys), switches)


def _searches(study: Study, choice: _Choice, measure: Measure, starts: Sequence[str]) -> tuple[float | None, ...]:
    """The values of every search, batch size by batch size and seed by seed; of the curvature there is one a run."""
    found: list[float | None] = []
    for size in sorted(study.question.batch_sizes):
        arm = choice.arms.get(size)
        runs = {row.seed: row.run for row in runs_of(study, arm)} if arm else {}
        for seed in study.question.seeds:
            run = runs.get(seed, "")
            values = dict(starts_of(study, run, measure)) if starts else {"": value_of_run(study, run, measure)}
            found += [values.get(start) for start in starts or ("",)]
    return tuple(finite(found))


def _places(study: Study, starts: Sequence[str]) -> tuple[list[float], list[str]]:
    """Where the searches are drawn, the same at every position of the switch, and what each is called."""
    x: list[float] = []
    texts: list[str] = []
    for size in sorted(study.question.batch_sizes):
        for seed in study.question.seeds:
            for i, start in enumerate(starts or ("",)):
                x.append(size * _APART ** (i - (len(starts) - 1) / 2 if starts else 0.0))
                began = f"<br>search from {safe(start)}" if start else ""
                texts.append(f"batch size {count(size)}, seed {seed}{began}")
    return x, texts


def _start_names(study: Study, measure: Measure) -> list[str]:
    found = (starts_of(study, row.run, measure) for row in study.rows)
    return [name for name, _ in next((one for one in found if one), [])]


def _mean(study: Study, arm: SummaryRow | None, measure: Measure) -> float | None:
    return None if arm is None else intervals.mean(list(of_seeds(study, arm, measure).values())).value


def _conclude(study: Study, measures: Sequence[Measure]) -> str:
    main = next((m for m in measures if m in (KESKAR, RELATIVE)), measures[0])
    phrases = [
        f"{times(ratio.value)} {comparison.how}"
        for comparison in size_pairs(study)
        if (ratio := ratio_of(study, comparison, main)).value is not None
    ]
    at = f", for ε = {number(main.eps)}," if main.eps is not None else ""
    what = "every search of every run" if main.eps is not None else "every run"
    begin = (
        f"With the largest batch it is{at} so much larger than with the smallest: {'; '.join(phrases)}. "
        if phrases
        else ""
    )
    return f"{begin}A ring is {what}, a line joins the means over the seeds."


def gap_figures(study: Study) -> Row | None:
    """Both boxes and the eigenvalue against the generalisation gap: one point a run."""
    arms = sorted((a for a in study.summary if not a.diverged), key=lambda a: (a.lr, a.batch_size))
    sizes, lrs = sorted({a.batch_size for a in arms}), sorted({a.lr for a in arms})
    colours = dict(zip(sizes, shades(len(sizes)), strict=True))
    rows = [runs_of(study, arm) for arm in arms]
    groups = [
        RunGroup(
            label=f"{count(arm.batch_size)} at {number(arm.lr)}",
            colour=colours[arm.batch_size],
            mark=_MARKS[lrs.index(arm.lr) % len(_MARKS)],
            runs=tuple(f"batch size and learning rate; seed {row.seed}" for row in own),
        )
        for arm, own in zip(arms, rows, strict=True)
    ]
    outcome = end_metric_of(study)
    labels = {"final_accuracy_gap": "accuracy gap", "final_loss_ratio": "loss ratio"}
    labels[f"final_{outcome.name}"] = outcome.name
    ups = [
        Choice(label=label, values=tuple(tuple(row.values.get(name) for row in own) for own in rows))
        for name, label in labels.items()
        if any(row.values.get(name) is not None for own in rows for row in own)
    ]
    figures: list[Figure] = []
    for measure in (KESKAR, RELATIVE, EIGENVALUE):
        across = Choice(
            label=measure.name if measure.kind == "curvature" else "φ, per cent",
            values=tuple(tuple(value_of_run(study, row.run, measure) for row in own) for own in rows),
        )
        if any(v is not None for own in across.values for v in own) and ups:
            title = measure.name
            caption = _correlation(across, ups[0])
            figures.append(
                run_scatter(f"gap-of-{measure.kind}", title, groups, across=across, up=ups, caption=caption, height=300)
            )
    return Row(tuple(figures)) if figures else None


def _correlation(across: Choice, up: Choice) -> str:
    pairs = [
        (a, b)
        for xs, ys in zip(across.values, up.values, strict=True)
        for a, b in zip(xs, ys, strict=True)
        if a is not None and b is not None
    ]
    found = intervals.rank_correlation([a for a, _ in pairs], [b for _, b in pairs])
    if found is None:
        return "Too few runs for a rank correlation."
    return (
        f"Over {count(len(pairs))} runs the rank correlation with the {up.label} is {number(found)}; runs of one arm "
        "are no independent evidence, so that it has no interval."
    )


def edge_figure(study: Study) -> Figure | None:
    """Eigenvalue against learning rate, with the edge of stability of gradient descent, 2 over the learning rate."""
    sizes = sorted(study.question.batch_sizes)
    colours = dict(zip(sizes, shades(len(sizes)), strict=True))
    own = {
        size: [
            (arm, mean)
            for arm in sorted((a for a in study.summary if a.batch_size == size and not a.diverged), key=lambda a: a.lr)
            if (mean := intervals.mean(list(of_seeds(study, arm, EIGENVALUE).values()))).value is not None
        ]
        for size in sizes
    }
    drawn = {size: pairs for size, pairs in own.items() if pairs}
    if not drawn:
        return None
    series = [
        LearningRateSeries(
            label=f"batch size {count(size)}",
            colour=colours[size],
            mark="disc",
            lrs=tuple(arm.lr for arm, _ in pairs),
        )
        for size, pairs in drawn.items()
    ]
    values = ValueChoice(label="eigenvalue", values=tuple(tuple(mean for _, mean in p) for p in drawn.values()))
    lrs = sorted({lr for one in series for lr in one.lrs})
    edge = [2.0 / lr for lr in (lrs[0] / 1.15, lrs[-1] * 1.15)]
    stability = line([lrs[0] / 1.15, lrs[-1] * 1.15], edge, colour="var(--censored)")
    stability["line"] = {**stability["line"], "dash": "dash"}
    shares = [(mean.value or 0.0) * arm.lr / 2 for pairs in drawn.values() for arm, mean in pairs]
    caption = (
        f"The eigenvalue is {number(min(shares))} to {number(max(shares))} times 2 ÷ learning rate, the value around "
        "which gradient descent on all data settles (Cohen et al. 2021); SGD with small batches stays below."
    )
    figure = value_by_learning_rate(
        "eigenvalue-by-rate", "largest Hessian eigenvalue, mean over the seeds", series, [values], caption
    )
    every: list[Sequence[Estimate]] = list(values.values)
    axis = whole_axis([*([e.value for e in found] for found in every), edge])
    return replace(
        figure,
        data=(*figure.data, stability),
        layout={**figure.layout, "yaxis": axis},
        keys=(*figure.keys, Key("dash", "var(--censored)", "2 ÷ learning rate")),
    )


def ratio_table(study: Study) -> Table | None:
    """The largest batch's sharpness over the smallest's, by every measure."""
    found = size_pairs(study)
    rows = tuple(
        (measure.label, *(with_interval(ratio_of(study, comparison, measure)) for comparison in found))
        for measure in MEASURES
        if any(ratio_of(study, comparison, measure).value is not None for comparison in found)
    )
    if not rows:
        return None
    return Table((Column("largest batch ÷ smallest"), *(Column(c.how, numeric=True) for c in found)), rows)
