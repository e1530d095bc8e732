"""Plain SGD against Adam at the same batch size: distance from the start, norm, and test accuracy (Shen A7).

Both optimizers are made here, whatever the task came with: SGD without momentum, and Adam with torch's default betas,
neither with weight decay. The rates that are asked for are SGD's; Adam's are a tenth of them, which puts torch's
default of 0.001 beside Shen's 0.01 for SGD. What rate and batch size Shen took for Adam is not known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from ....fits import intervals
from ....report.blocks import Column, Figure, Section, Table, Text
from ....report.charts import PointMark
from ....wording import count, joined, number, with_interval
from ...conclusions import best_rates, paired_difference, runs_of
from ...page.figures.branch_curves import Branch, Up, branch_curves
from ...page.figures.value_by_rate import RateSeries, ValueChoice, value_by_rate
from ...page.figures.whole_axis import with_whole_axes
from ...published import SHEN, SHEN_SETTINGS, Value, conclusion, is_above, published_section
from ...readings import arm_of, end_metric_of
from ...records import Arm, Finding, Length, NamedStudy, Study, StudyQuestion, SummaryRow
from ...travel import HARDLY, Quantity, metric_name, travelled, with_travel, within

if TYPE_CHECKING:
    from ....store.runs import StoredRun
    from ....tasks.workload import Workload
    from ...engine import Laboratory

__all__ = ["STUDY"]

_SOURCE = "Shen 2018, SGD against Adam (A7)"
_SGD, _ADAM = "sgd", "adam"
_NAMES = {_SGD: "SGD", _ADAM: "Adam"}
_COLOURS = {_SGD: "var(--series-0)", _ADAM: "var(--series-1)"}
_FACTOR = 0.1
"""Adam's rate for a rate of SGD."""
_PUBLISHED = {_SGD: 0.01, _ADAM: 0.001}
"""Shen's rate for SGD; for Adam torch's default."""
_QUANTITIES: tuple[Quantity, ...] = ("distance", "norm", "norm_change", "turned_degrees")
_LARGER: tuple[tuple[str, Quantity, str], ...] = (
    ("Adam goes farther from the initial weights than SGD", "distance", "the distance at the end"),
    ("Adam ends with larger weights than SGD", "norm", "the norm at the end"),
)
_RATIO = "geometric mean over the seeds with a 90 % t interval of its logarithm"


class _Pair(NamedTuple):
    """The same batch size with both optimizers."""

    how: str
    sgd: SummaryRow
    adam: SummaryRow


def arms(question: StudyQuestion, examples: int) -> Sequence[Arm]:
    """Every batch size at every rate, with either optimizer at rates of its own."""
    return tuple(
        Arm(
            batch_size=size,
            lr=lr if variant == _SGD else _adams(lr),
            length=question.length,
            schedule=question.schedule,
            variant=variant,
        )
        for size in question.batch_sizes
        for variant in (_SGD, _ADAM)
        for lr in question.lrs
    )


def _adams(lr: float) -> float:
    """Adam's rate, as the user would write it."""
    return float(f"{_FACTOR * lr:.12g}")


def measure_all(laboratory: Laboratory) -> None:
    """Both grids, watched."""
    from ....probes.distance import DistanceFromInit
    from .measure import make_adam, make_sgd

    tasks = {_SGD: laboratory.changed(optimizer=make_sgd), _ADAM: laboratory.changed(optimizer=make_adam)}

    def workload(arm: Arm, seed: int) -> Workload:
        return tasks[arm.variant]

    laboratory.run_all(workload=workload, observers=lambda arm, task: [DistanceFromInit()])


# --- what follows ---------------------------------------------------------------------------------------------------


def conclude(study: Study, runs: Sequence[StoredRun]) -> Sequence[Finding]:
    """Shen's conclusions, at each batch size: with either optimizer at its best rate, and at the usual ones."""
    return tuple(finding for pair in _pairs(study) for finding in _compared(study, runs, pair))


def _pairs(study: Study) -> list[_Pair]:
    found: list[_Pair] = []
    for size in sorted(study.question.batch_sizes):
        best = {v: next((a for a in best_rates(study, v) if a.batch_size == size), None) for v in _NAMES}
        usual = {v: arm_of(study, size, lr, v) for v, lr in _PUBLISHED.items()}
        for how, own in (("each at its best rate", best), ("at Shen's rate and at torch's default", usual)):
            sgd, adam = own[_SGD], own[_ADAM]
            if sgd is None or adam is None or sgd.diverged or adam.diverged:
                continue
            if (sgd.key, adam.key) not in [(pair.sgd.key, pair.adam.key) for pair in found]:
                found.append(_Pair(how, sgd, adam))
    return found


def _compared(study: Study, runs: Sequence[StoredRun], pair: _Pair) -> Iterator[Finding]:
    where = (
        f"{pair.how}, batch size {count(pair.sgd.batch_size)}, SGD at {number(pair.sgd.lr)} and Adam at "
        f"{number(pair.adam.lr)}"
    )
    ids = tuple(row.run for arm in (pair.sgd, pair.adam) for row in runs_of(study, arm))
    for said, quantity, what in _LARGER:
        (first, a), (last, b) = (travelled(study, runs, arm, quantity=quantity) for arm in (pair.sgd, pair.adam))
        if first.value is None or last.value is None:
            continue
        share = intervals.geometric_ratio(intervals.matched(b, a))
        yield conclusion(
            said,
            is_above(share, 1.0),
            f"{where}: {what} is {with_interval(first)} with SGD and {with_interval(last)} with Adam, "
            f"{with_interval(share)} times as much",
            source=f"{_SOURCE}; the ratio is a {_RATIO}",
            effect=share,
            runs=ids,
        )
    yield from _on_the_sphere(study, runs, pair, where, ids)
    yield from _accuracy(study, pair, where, ids)


def _on_the_sphere(
    study: Study, runs: Sequence[StoredRun], pair: _Pair, where: str, ids: tuple[str, ...]
) -> Iterator[Finding]:
    sgd, adam = (travelled(study, runs, arm, quantity="norm_change")[0] for arm in (pair.sgd, pair.adam))
    if sgd.value is None or adam.value is None:
        return
    stays, leaves = within(sgd, HARDLY), is_above(adam, HARDLY)
    yield conclusion(
        "SGD keeps the norm that it starts with, and Adam does not",
        False if False in (stays, leaves) else None if None in (stays, leaves) else True,
        f"{where}: the norm over the initial norm, minus 1, is {with_interval(sgd)} with SGD and {with_interval(adam)} "
        "with Adam",
        source=f"{_SOURCE}; so if the 90 % t interval of SGD lies within {HARDLY:g} either way, and Adam's above that",
        effect=adam,
        runs=ids,
    )


def _accuracy(study: Study, pair: _Pair, where: str, ids: tuple[str, ...]) -> Iterator[Finding]:
    outcome = end_metric_of(study)
    change = paired_difference(study, f"final_{outcome.name}", pair.sgd, pair.adam)
    if change.value is None:
        return
    above = is_above(change)
    yield conclusion(
        "Adam ends at a lower test accuracy",
        None if above is None else above != outcome.larger_is_better,
        f"{where}: {outcome.name} changes from SGD to Adam by {with_interval(change)}",
        source=f"{_SOURCE}; differences at the end seed by seed, 90 % t interval",
        effect=change,
        runs=ids,
    )


# --- the page -------------------------------------------------------------------------------------------------------


def sections(study: Study, runs: Sequence[StoredRun]) -> Sequence[Section]:
    """The published values, the courses of both, and what the rate does to each."""
    pairs = _pairs(study)
    found = [published_section(study, runs, replace(SHEN, more=(*SHEN.more, *_MORE)), _values(study, runs, pairs))]
    if not pairs:
        said = "There is no batch size at which a rate of either optimizer went through without diverging."
        return [*found, Section("optimizers", "SGD and Adam", (Text((said,)),))]
    for i, size in enumerate(sorted({pair.sgd.batch_size for pair in pairs})):
        own = [pair for pair in pairs if pair.sgd.batch_size == size]
        blocks = (_curves(study, runs, own, i), Text((_NOTE,), tone="note"), _table(study, runs, own))
        name = "optimizers" if i == 0 else f"optimizers-{i + 1}"
        found.append(Section(name, f"SGD and Adam at batch size {count(size)}", blocks))
    if len(study.question.lrs) > 1:
        found.append(Section("by-rate", "What the rate does to either", (_by_rate(study, runs),)))
    return found


_MORE = (
    "Adam's rate and the batch size of either curve were not published, nor what its axis is: distance is inferred",
)


_NOTE = (
    "Solid is an optimizer at its best rate, dashed at the usual one, where that is another. The degrees are the angle "
    "between the weights and the initial weights."
)


def _values(study: Study, runs: Sequence[StoredRun], pairs: Sequence[_Pair]) -> list[Value]:
    values: list[Value] = []
    for pair in pairs:
        for arm, told in ((pair.sgd, "2.3 → 6.7"), (pair.adam, "97 → 255")):
            course = with_travel(study, runs, arm)
            first = course.mean[metric_name("distance")][1] if course and len(course.epochs) > 1 else None
            values.append(
                Value(
                    what=f"distance after the first evaluation → at the end: {_named(arm)}",
                    published=told,
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


def _drawn(pairs: Sequence[_Pair]) -> list[tuple[SummaryRow, Literal["solid", "dash"]]]:
    """Each arm once: solid at its best rate, dashed where it is only the usual one."""
    found: dict[tuple[str, int, float], tuple[SummaryRow, Literal["solid", "dash"]]] = {}
    for pair in pairs:
        for arm in (pair.sgd, pair.adam):
            found.setdefault(arm.key, (arm, "solid" if arm.best_lr else "dash"))
    return list(found.values())


def _curves(study: Study, runs: Sequence[StoredRun], pairs: Sequence[_Pair], index: int) -> Figure:
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
        caption=" ".join(_said(study, runs, pair) for pair in pairs),
        logarithmic=True,
    )
    whole = with_whole_axes(figure, ("distance", "norm", "degrees turned"))
    return replace(whole, title="all parameters, mean over the seeds")


def _said(study: Study, runs: Sequence[StoredRun], pair: _Pair) -> str:
    distance, norm = (
        intervals.geometric_ratio(
            intervals.matched(*(travelled(study, runs, arm, quantity=quantity)[1] for arm in (pair.adam, pair.sgd)))
        )
        for _, quantity, _ in _LARGER
    )
    return (
        f"{pair.how[0].upper()}{pair.how[1:]}, Adam ends {with_interval(distance)} times as far from its start as SGD, "
        f"with a norm {with_interval(norm)} times as large."
    )


def _table(study: Study, runs: Sequence[StoredRun], pairs: Sequence[_Pair]) -> Table:
    outcome = end_metric_of(study)
    heads = (
        "rate",
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
        rows.append((_NAMES[arm.variant], at, *cells, with_interval(arm.estimates.get(f"final_{outcome.name}"))))
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
        for variant in _NAMES
    }
    drawn = {key: arms for key, arms in own.items() if arms}
    marks: tuple[PointMark, ...] = ("disc", "open", "arrow", "cross")
    series = [
        RateSeries(
            label=f"{_NAMES[variant]}, batch size {count(size)}",
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
    return value_by_rate("values-by-rate", "mean over the seeds", series, choices, _conclude_rates(drawn, choices[0]))


def _conclude_rates(drawn: Mapping[tuple[str, int], Sequence[SummaryRow]], distances: ValueChoice) -> str:
    said = [
        f"{_NAMES[variant]}'s distance at batch size {count(size)} goes from {number(values[0].value)} to "
        f"{number(values[-1].value)} between rates {number(arms[0].lr)} and {number(arms[-1].lr)}"
        for ((variant, size), arms), values in zip(drawn.items(), distances.values, strict=True)
    ]
    return f"{joined(said)}. A rate at which a seed diverged is left out."


def _named(arm: SummaryRow) -> str:
    return f"{_NAMES[arm.variant]} at {number(arm.lr)}"


STUDY = NamedStudy(
    name="sgd_against_adam",
    summary="plain SGD against Adam at the same batch size: distance, norm of the weights, test accuracy",
    source=_SOURCE,
    question=StudyQuestion(batch_sizes=(64,), lrs=(0.003, 0.01, 0.03, 0.1), length=Length(unit="epochs", amount=30)),
    quick={"batch_sizes": (256,), "lrs": (0.01, 0.1), "seeds": (0, 1), "length": Length(unit="epochs", amount=1)},
    settings=SHEN_SETTINGS,
    array_settings={**SHEN_SETTINGS, "evaluate_at_most": 10_000},
    arms=arms,
    measure_all=measure_all,
    conclude=conclude,
    sections=sections,
)
