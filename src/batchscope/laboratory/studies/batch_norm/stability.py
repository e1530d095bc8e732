"""What batch normalisation does to the steadiness of results and layers: orders, disturbed inputs, covariate shift.

A part of what the study `batch_norm` concludes, decided by intervals over seeds. Numbers only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ....fits import intervals
from ....wording import count, number, with_interval
from ...conclusions import how_tuned
from ...published import conclusion, is_above
from ...records import Finding, Study, SummaryRow
from .effects import (
    BEFORE,
    NONE,
    at_one_rate,
    best_of,
    difference,
    focus,
    ids,
    middle_pair,
    ordered,
    seeds_mean,
    size_mean,
    sizes_of,
)
from .readings import disturbed_metric, final_drift, lost_to, mean_drift, robustness_of, shift_of

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = ["order_values", "steadiness"]

_GENERAL = "said without a source in general articles"
_PAIRED = "differences seed by seed, 90 % t interval"


def steadiness(study: Study, runs: Sequence[StoredRun]) -> Iterator[Finding]:
    """Every statement of this part that the runs decide, or leave open."""
    yield from _order(study)
    yield from _robustness(study)
    yield from _drift(study, runs)
    yield from _gradients(study)
    yield from _sizes(study, runs)


def order_values(study: Study) -> dict[str, list[float]]:
    """The metric at the end of each run from one start, by variant (`NONE`, `BEFORE`)."""
    found: dict[str, list[float]] = {}
    for variant in (NONE, BEFORE):
        rows = [r for r in study.rows if r.variant == ordered(variant) and r.status != "diverged"]
        values = [
            v for r in sorted(rows, key=lambda r: r.seed) if (v := r.values.get(f"final_{study.metric}")) is not None
        ]
        if values:
            found[variant] = values
    return found


def _order(study: Study) -> Iterator[Finding]:
    values = order_values(study)
    if len(values) < 2:
        return
    ratio = intervals.ratio_of_standard_deviations(values[BEFORE], values[NONE])
    without, with_ = (intervals.standard_deviation(values[where]) for where in (NONE, BEFORE))
    less = is_above(ratio, 1.0)
    yield conclusion(
        "with batch normalisation the result depends less on the order of the training data",
        None if less is None else not less,
        f"over {len(values[NONE])} orders from the same weights, batch size {count(focus(study))}, the standard "
        f"deviation of {study.metric} at the end is {with_interval(without)} without and {with_interval(with_)} with "
        f"it, {with_interval(ratio)} times as large",
        source=f"{_GENERAL}; 90 % chi-square and F intervals",
        effect=ratio,
        runs=[r.run for r in study.rows if r.variant in (ordered(NONE), ordered(BEFORE))],
    )


def _robustness(study: Study) -> Iterator[Finding]:
    pair = middle_pair(study)
    if pair is None:
        return
    name = disturbed_metric(study)[0]
    lost, metrics = [lost_to(study, arm) for arm in pair], [robustness_of(study, arm) for arm in pair]
    strongest = {kind: (kind, strength) for kind, strength in sorted(lost[0])}
    for kind, key in strongest.items():
        if key not in lost[1]:
            continue
        change = difference(lost[0][key], lost[1][key])
        less = is_above(change)
        measured = {
            word: f"from {with_interval(seeds_mean(of['none', 0.0]))} to {with_interval(seeds_mean(of[key]))} {word} it"
            for word, of in zip(("without", "with"), metrics, strict=True)
        }
        yield conclusion(
            f"batch normalisation makes a model more robust to {'changed inputs' if kind == 'shift' else kind}",
            None if less is None else not less,
            f"with {_disturbance(*key)}, {name} goes {' and '.join(measured.values())}, at batch size "
            f"{count(focus(study))} and the best learning rate of each; what is lost differs by "
            f"{with_interval(change)}",
            source=f"{_GENERAL}; the same disturbance for all models, {_PAIRED}",
            effect=change,
            runs=ids(study, *pair),
        )


def _disturbance(kind: str, strength: float) -> str:
    if kind == "outliers":
        return f"outliers in {number(100 * strength)} % of the input numbers"
    deviations = f"{number(strength)} standard deviation{'' if strength == 1 else 's'} of the inputs"
    return f"noise of {deviations}" if kind == "noise" else f"a shift by {deviations}"


def _drift(study: Study, runs: Sequence[StoredRun]) -> Iterator[Finding]:
    pair = middle_pair(study)
    if pair is None:
        return
    without, with_ = (mean_drift(final_drift(study, runs, arm)) for arm in pair)
    change = difference(without, with_)
    if change.value is None:
        return
    more = is_above(change)
    yield conclusion(
        "batch normalisation reduces internal covariate shift: what layers receive drifts less",
        None if more is None else not more,
        f"at batch size {count(focus(study))}, {how_tuned(study, NONE, BEFORE)}, means have drifted by "
        f"{with_interval(size_mean(without))} initial standard deviations without and "
        f"{with_interval(size_mean(with_))} with it at the end, a change by {with_interval(change)}",
        source="Ioffe and Szegedy 2015, section 2 and figure 1; inputs of each layer on a fixed batch, mean over "
        "layers",
        effect=change,
        runs=ids(study, *pair),
    )


def _gradients(study: Study) -> Iterator[Finding]:
    pair = middle_pair(study)
    if pair is None:
        return
    for when, phrase in (("early", "after one epoch"), ("best", "at the best epoch")):
        without, with_ = (shift_of(study, arm, when) for arm in pair)
        change = difference(without, with_)
        if change.value is None:
            continue
        yield conclusion(
            "batch normalisation does not reduce internal covariate shift as gradients see it",
            is_above(change),
            f"{phrase} at batch size {count(focus(study))}, {how_tuned(study, NONE, BEFORE)}, the step of the layers "
            f"below changes a layer's gradient by {with_interval(size_mean(without))} of its norm without and "
            f"{with_interval(size_mean(with_))} with it, a difference of {with_interval(change)}",
            source="Santurkar et al. 2018, section 2.2: as large with it, or larger; definition 2.1, mean over the "
            "layers that both have, on batches of the run's size at its learning rate",
            effect=change,
            runs=ids(study, *pair),
        )


def _sizes(study: Study, runs: Sequence[StoredRun]) -> Iterator[Finding]:
    """Whether large batches make the shift larger: both definitions, at one learning rate, without normalisation."""
    best = best_of(study, NONE, sizes_of(study)[0])
    arms = at_one_rate(study, NONE, best.lr) if best else []
    if len(arms) > 1:
        small, large = arms[0], arms[-1]
        drifts = [mean_drift(final_drift(study, runs, arm)) for arm in (small, large)]
        yield from _by_size(
            study, small, large, drifts, f"at learning rate {number(small.lr)}, by the drift of inputs at the end"
        )
    ends = [arm for size in (sizes_of(study)[0], sizes_of(study)[-1]) if (arm := best_of(study, NONE, size))]
    if len(ends) > 1 and ends[0].batch_size != ends[1].batch_size:
        shifts = [shift_of(study, arm, "one-rate") for arm in ends]
        lr = best.lr if best else 0.0
        how = (
            f"for a step at learning rate {number(lr)} after one epoch, by the change of a layer's gradient relative "
            "to its norm"
        )
        yield from _by_size(study, ends[0], ends[1], shifts, how)


def _by_size(
    study: Study, small: SummaryRow, large: SummaryRow, values: Sequence[dict[int, float]], how: str
) -> Iterator[Finding]:
    change = difference(values[0], values[1])
    if change.value is None:
        return
    yield conclusion(
        "large batches make internal covariate shift larger",
        is_above(change),
        f"{how}, without normalisation, it is {with_interval(size_mean(values[0]))} at batch size "
        f"{count(small.batch_size)} and {with_interval(size_mean(values[1]))} at {count(large.batch_size)}, a "
        f"difference of {with_interval(change)}",
        source=f"{_GENERAL}; {_PAIRED}",
        effect=change,
        runs=ids(study, small, large),
    )
