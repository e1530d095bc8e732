"""The page's part of the study of SGD against Adam: published values, courses, and what learning rates do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from ....fits import intervals
from ....report.blocks import Column, Figure, Section, Table, Text
from ....report.charts import PointMark
from ....wording import count, joined, number, with_interval
from ...page.figures.branch_curves import Branch, Up, branch_curves
from ...page.figures.value_by_learning_rate import LearningRateSeries, ValueChoice, value_by_learning_rate
from ...page.figures.whole_axis import with_whole_axes
from ...published import SHEN, Value, published_section
from ...readings import end_metric_of
from ...records import Study, SummaryRow
from ...travel import Quantity, metric_name, travelled, with_travel
from .pairs import ADAM, LARGER, NAMES, SGD, Pair, pairs_of

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = ["sections"]

_COLOURS = {SGD: "var(--series-0)", ADAM: "var(--series-1)"}
_QUANTITIES: tuple[Quantity, ...] = ("distance", "norm", "norm_change", "turned_degrees")


def sections(study: Study, runs: Sequence[StoredRun]) -> Sequence[Section]:
    """The published values, the courses of both, and what the learning rate does to each."""
    pairs = pairs_of(study)
    found = [published_section(study, runs, replace(SHEN, more=(*SHEN.more, *_MORE)), _values(study, runs, pairs))]
    if not pairs:
        phrase = "There is no batch size at which a learning rate of either optimizer went through without diverging."
        return [*found, Section("optimizers", "SGD and Adam", (Text((phrase,)),))]
    for i, size in enumerate(sorted({pair.sgd.batch_size for pair in pairs})):
        own = [pair for pair in pairs if pair.sgd.batch_size == size]
        blocks = (_curves(study, runs, own, i), Text((_NOTE,), tone="note"), _table(study, runs, own))
        name = "optimizers" if i == 0 else f"optimizers-{i + 1}"
        found.append(Section(name, f"SGD and Adam at batch size {count(size)}", blocks))
    if len(study.question.lrs) > 1:
        found.append(Section("by-rate", "What the learning rate does to either", (_by_rate(study, runs),)))
    return found


_MORE = (
    "Adam's learning rate and the batch size of either curve were not published, nor what its axis is: distance is "
    "inferred",
)
_NOTE = (
    "Solid is an optimizer at its best learning rate, dashed at the usual one, where that is another. The degrees are "
    "the angle between the weights and the initial weights."
)


def _values(study: Study, runs: Sequence[StoredRun], pairs: Sequence[Pair]) -> list[Value]:
    values: list[Value] = []
    for pair in pairs:
        for arm, published in ((pair.sgd, "2.3 → 6.7"), (pair.adam, "97 → 255")):
            course = with_travel(study, runs, arm)
            first = course.mean[metric_name("distance")][1] if course and len(course.epochs) > 1 else None
            values.append(
                Value(
                    what=f"distance after the first evaluation → at the end: {_named(arm)}",
                    published=published,
                    ours=f"{number(first)} → {with_interval(travelled(study, runs, arm)[0])}",
                )
            )
        (_, a), (_, b) = (travelled(study, runs, arm) for arm in (pair.sgd, pair.adam))
        values.append(
            Value(
                what=f"Adam's distance over SGD's, {pair.how}",
                published="38",
                ours=intervals.geometric_ratio(intervals.matched(b, a)),
            )
        )
    return values


def _drawn(pairs: Sequence[Pair]) -> list[tuple[SummaryRow, Literal["solid", "dash"]]]:
    """Arms that are drawn, each once: solid at its best learning rate, dashed where it is only the usual one."""
    found: dict[tuple[str, int, float], tuple[SummaryRow, Literal["solid", "dash"]]] = {}
    for pair in pairs:
        for arm in (pair.sgd, pair.adam):
            found.setdefault(arm.key, (arm, "solid" if arm.best_lr else "dash"))
    return list(found.values())


def _curves(study: Study, runs: Sequence[StoredRun], pairs: Sequence[Pair], index: int) -> Figure:
    outcome = end_metric_of(study)
    branches: list[Branch] = []
    for arm, dash in _drawn(pairs):
        course = with_travel(study, runs, arm, quantities=_QUANTITIES)
        if course is not None:
            branches.append(Branch(label=_named(arm), course=course, colour=_COLOURS[arm.variant], dash=dash))
    figure = branch_curves(
        f"optimizers-by-epoch-{index}",
        branches,
        across=("epoch", "step"),
        up=[
            Up(label="distance", metric=metric_name("distance")),
            Up(label="norm", metric=metric_name("norm")),
            Up(label="change of the norm", metric=metric_name("norm_change"), rising=True),
            Up(label="degrees turned", metric=metric_name("turned_degrees")),
            Up(label=outcome.name, metric=outcome.name, rising=outcome.larger_is_better),
        ],
        examples=study.examples,
        caption=" ".join(_caption(study, runs, pair) for pair in pairs),
        logarithmic=True,
    )
    whole = with_whole_axes(figure, ("distance", "norm", "degrees turned"))
    return replace(whole, title="all parameters, mean over the seeds")


def _caption(study: Study, runs: Sequence[StoredRun], pair: Pair) -> str:
    distance, norm = (
        intervals.geometric_ratio(
            intervals.matched(*(travelled(study, runs, arm, quantity=quantity)[1] for arm in (pair.adam, pair.sgd)))
        )
        for _, quantity, _ in LARGER
    )
    return (
        f"{pair.how[0].upper()}{pair.how[1:]}, Adam ends {with_interval(distance)} times as far from its start as SGD, "
        f"with a norm {with_interval(norm)} times as large."
    )


def _table(study: Study, runs: Sequence[StoredRun], pairs: Sequence[Pair]) -> Table:
    outcome = end_metric_of(study)
    heads = (
        "learning rate",
        "distance at the end",
        "initial norm",
        "norm at the end",
        "degrees turned",
        f"{outcome.name} at the end",
    )
    rows: list[tuple[str, ...]] = []
    for arm, dash in _drawn(pairs):
        quantities: tuple[Quantity, ...] = ("distance", "initial_norm", "norm", "turned_degrees")
        cells = (with_interval(travelled(study, runs, arm, quantity=quantity)[0]) for quantity in quantities)
        at = f"{number(arm.lr)}{', its best' if dash == 'solid' else ''}"
        rows.append((NAMES[arm.variant], at, *cells, with_interval(arm.estimates.get(f"final_{outcome.name}"))))
    return Table((Column("optimizer"), *(Column(head, numeric=True) for head in heads)), tuple(rows))


def _by_rate(study: Study, runs: Sequence[StoredRun]) -> Figure:
    """Distance, norm and outcome of every arm; a batch size has a mark of its own."""
    outcome, sizes = end_metric_of(study), sorted(study.question.batch_sizes)
    own = {
        (variant, size): sorted(
            (s for s in study.summary if (s.variant, s.batch_size) == (variant, size) and not s.diverged),
            key=lambda s: s.lr,
        )
        for size in sizes
        for variant in NAMES
    }
    drawn = {key: arms for key, arms in own.items() if arms}
    marks: tuple[PointMark, ...] = ("disc", "open", "arrow", "cross")
    series = [
        LearningRateSeries(
            label=f"{NAMES[variant]}, batch size {count(size)}",
            colour=_COLOURS[variant],
            mark=marks[sizes.index(size) % len(marks)],
            lrs=tuple(arm.lr for arm in arms),
        )
        for (variant, size), arms in drawn.items()
    ]
    quantities: tuple[tuple[Quantity, str], ...] = (("distance", "distance at the end"), ("norm", "norm at the end"))
    choices = [
        ValueChoice(
            label=label,
            values=tuple(
                tuple(travelled(study, runs, arm, quantity=quantity)[0] for arm in arms) for arms in drawn.values()
            ),
        )
        for quantity, label in quantities
    ]
    choices.append(
        ValueChoice(
            label=f"{outcome.name} at the end",
            values=tuple(tuple(arm.estimates[f"final_{outcome.name}"] for arm in arms) for arms in drawn.values()),
            rising=outcome.larger_is_better,
        )
    )
    return value_by_learning_rate(
        "values-by-rate", "mean over the seeds", series, choices, _conclude_rates(drawn, choices[0])
    )


def _conclude_rates(drawn: Mapping[tuple[str, int], Sequence[SummaryRow]], distances: ValueChoice) -> str:
    phrases = [
        f"{NAMES[variant]}'s distance at batch size {count(size)} goes from {number(values[0].value)} to "
        f"{number(values[-1].value)} between learning rates {number(arms[0].lr)} and {number(arms[-1].lr)}"
        for ((variant, size), arms), values in zip(drawn.items(), distances.values, strict=True)
    ]
    return f"{joined(phrases)}. A learning rate at which a seed diverged is left out."


def _named(arm: SummaryRow) -> str:
    return f"{NAMES[arm.variant]} at {number(arm.lr)}"
