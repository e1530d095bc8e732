"""What the study `batch_norm` concludes about training with batch normalisation, decided by intervals over seeds.

Numbers only. What is compared, and how, is in `normalisation_effects`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ....store.not_applicable import not_applicable
from ....store.records import Estimate
from ....wording import count, joined, number, plural, with_interval
from ...conclusions import how_tuned, paired_difference
from ...published import conclusion, is_above
from ...readings import arm_of
from ...records import Finding, Study
from .effects import (
    AFTER,
    BEFORE,
    NONE,
    NORMALISED,
    Pair,
    Tolerance,
    best_of,
    difference,
    epochs_to_common_loss,
    focus,
    ghost_size,
    ghost_variant,
    higher,
    ids,
    middle_pair,
    one_example,
    pairs,
    shown_sizes,
    tolerances,
)
from .stability import steadiness

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = ["conclude"]

_IOFFE = "Ioffe and Szegedy 2015"
_WORKS = "a learning rate works where it gains 90 % of what the best learning rate of any variant gains since the start"
_NEAR = 0.01
"""How near to mean 0 and standard deviation 1 a channel must be: rounding, and the 0.00001 added to a variance."""


def conclude(study: Study, runs: Sequence[StoredRun]) -> Sequence[Finding]:
    """Every statement that the runs decide, or leave open."""
    if (reason := not_applicable(study.measurements.get(NORMALISED))) is not None:
        return (
            Finding(
                statement="batch normalisation cannot be configured in this model, so the task was trained as it came: "
                f"{reason}",
                tag="measured",
                source="a trial of the loss on 4 examples",
            ),
        )
    return (
        *_definition(study),
        *_speed(study, runs),
        *_quality(study),
        *_rates(study, runs),
        *_places(study),
        *_ghosts(study),
        *steadiness(study, runs),
        *_one_example(study),
    )


def _definition(study: Study) -> Iterator[Finding]:
    stored = study.measurements.get("definition")
    layers = [r for r in stored["layers"] if r["mode"] == "training" and r["mean"] is not None] if stored else []
    if not stored or not layers:
        return
    mean, deviation = max(r["mean"] for r in layers), max(r["deviation"] for r in layers)
    channels, flat = sum(r["channels"] for r in layers), sum(r["flat"] for r in layers)
    left_out = f"; {plural(flat, 'channel')} that hardly vary or have a scale of 0 left out" if flat else ""
    yield conclusion(
        "in front of scale and shift, each channel of a batch has mean 0 and standard deviation 1",
        mean < _NEAR and deviation < _NEAR,
        f"over {plural(channels, 'channel')} of a trained model, means are at most {number(mean)} from 0 and "
        f"standard deviations at most {number(deviation)} from 1{left_out}",
        source=f"{_IOFFE}, algorithm 1; outputs taken back through scale and shift, one batch in training mode",
        runs=[stored["run"]],
    )


def _speed(study: Study, runs: Sequence[StoredRun]) -> Iterator[Finding]:
    at_best = [pair for pair in pairs(study) if pair.without.batch_size in shown_sizes(study)]
    compared = [(pair, how_tuned(study, NONE, BEFORE)) for pair in at_best]
    middle = middle_pair(study)
    if middle is not None and middle.without.lr != middle.with_.lr:
        same = arm_of(study, focus(study), middle.without.lr, BEFORE)
        if same is not None:
            compared.append((Pair(middle.without, same), f"both at learning rate {number(same.lr)}"))
    for pair, how in compared:
        found = epochs_to_common_loss(study, runs, pair)
        if found is None:
            continue
        yield conclusion(
            "batch normalisation takes fewer steps to the same loss",
            is_above(found.ratio, 1.0),
            f"at batch size {count(pair.without.batch_size)}, {how}, a training loss of {number(found.loss)} takes "
            f"{with_interval(found.without)} epochs without and {with_interval(found.with_)} with it, "
            f"{with_interval(found.ratio)} times as many without",
            source=f"{_IOFFE}, abstract: 14 times fewer; the lowest loss that every run of both reaches",
            effect=found.ratio,
            runs=ids(study, *pair),
        )


def _better(study: Study, change: Estimate) -> bool | None:
    """Whether a change of the metric is one for the better."""
    above = is_above(change)
    return None if above is None else above == study.larger_is_better


def _quality(study: Study) -> Iterator[Finding]:
    at_best = [pair for pair in pairs(study) if pair.without.batch_size in shown_sizes(study)]
    for pair in at_best:
        change = paired_difference(study, f"best_{study.metric}", *pair)
        if change.value is None:
            continue
        yield conclusion(
            "batch normalisation generalises better",
            _better(study, change),
            f"at batch size {count(pair.without.batch_size)}, {how_tuned(study, NONE, BEFORE)}, it changes the best "
            f"{study.metric} by {with_interval(change)}",
            source=f"{_IOFFE}, figure 3; differences seed by seed, 90 % t interval",
            effect=change,
            runs=ids(study, *pair),
        )
    for pair in at_best:
        if pair.without.batch_size != focus(study):
            continue
        for name, what in (("best_accuracy_gap", "training minus test accuracy"), ("best_loss_ratio", "loss ratio")):
            change = paired_difference(study, name, *pair)
            if change.value is None:
                continue
            less = is_above(change)
            yield conclusion(
                "batch normalisation regularises: the gap is smaller",
                None if less is None else not less,
                f"at batch size {count(focus(study))} it changes the gap ({what}, at the best epoch) by "
                f"{with_interval(change)}",
                source=f"{_IOFFE}, section 3.4; differences seed by seed, 90 % t interval",
                effect=change,
                runs=ids(study, *pair),
            )
            break


def _rates(study: Study, runs: Sequence[StoredRun]) -> Iterator[Finding]:
    for size in shown_sizes(study):
        found = tolerances(study, runs, size)
        if NONE not in found or BEFORE not in found:
            continue
        without, with_ = found[NONE], found[BEFORE]
        wider = difference(without.decades, with_.decades)
        yield conclusion(
            "batch normalisation is more tolerant of the learning rate",
            is_above(wider),
            f"at batch size {count(size)}, learning rates work over {with_interval(without.width)} decades without and "
            f"{with_interval(with_.width)} with it, within the grid: a change by {with_interval(wider)}",
            source=f"{_IOFFE}, section 3.3; {_WORKS}",
            effect=wider,
        )
        if size == focus(study):
            yield from _higher(without, with_, size)


def _higher(without: Tolerance, with_: Tolerance, size: int) -> Iterator[Finding]:
    ratio = higher(without, with_)
    if ratio.value is None:
        return
    ends = [word for t, word in ((without, "without"), (with_, "with")) if t.at_top]
    bound = f"; {joined(ends)} it, the highest learning rate of the grid still works" if ends else ""
    yield conclusion(
        "batch normalisation works at higher learning rates",
        None if without.at_top else is_above(ratio, 1.0),
        f"at batch size {count(size)} the highest learning rate that works is {number(without.limit)} without and "
        f"{number(with_.limit)} with it (geometric means over the seeds), {with_interval(ratio)} times as high{bound}",
        source=f"{_IOFFE}, section 4.2.1: 5 and 30 times the learning rate; {_WORKS}",
        effect=ratio,
    )


def _places(study: Study) -> Iterator[Finding]:
    pair = middle_pair(study, AFTER, BEFORE)
    if pair is None:
        return
    change = paired_difference(study, f"best_{study.metric}", *pair)
    better = _better(study, change)
    verdict = {True: "after is better", False: "before is better", None: "no clear difference"}[better]
    yield Finding(
        statement="from batch normalisation before the activation functions to after them, each at its best learning "
        f"rate, the best {study.metric} at batch size {count(focus(study))} changes by {with_interval(change)}: "
        f"{verdict}",
        tag="measured",
        source="differences seed by seed, 90 % t interval",
        effect=change,
        runs=tuple(ids(study, *pair)),
    )


def _ghosts(study: Study) -> Iterator[Finding]:
    variant = ghost_variant(study)
    found = pairs(study, variant, BEFORE) if variant else []
    if not found or variant is None:
        return
    pair = found[-1]
    change = paired_difference(study, f"best_{study.metric}", *pair)
    yield conclusion(
        "ghost batches make large batches generalise better",
        _better(study, change),
        f"at batch size {count(pair.with_.batch_size)}, statistics of {ghost_size(variant)} examples instead of "
        f"all change the best {study.metric} by {with_interval(change)}, each at its best learning rate",
        source="Hoffer et al. 2017, table 1; differences seed by seed, 90 % t interval",
        effect=change,
        runs=ids(study, *pair),
    )


def _one_example(study: Study) -> Iterator[Finding]:
    refused = study.measurements.get("refused")
    if refused is None:
        return
    statement = "batch normalisation fails on batches of one example"
    source = f"{_IOFFE}, algorithm 1: of one number a channel the standard deviation is 0; a step was tried"
    if BEFORE in refused and NONE not in refused:
        yield conclusion(statement, True, f"no step can be made: {refused[BEFORE]}", source=source)
        return
    arms = [next((s for s in study.summary if s.variant == one_example(v)), None) for v in (NONE, BEFORE)]
    without, with_ = arms if all(arms) else (best_of(study, NONE, 1), best_of(study, BEFORE, 1))
    if without is None or with_ is None:
        return
    if with_.diverged:
        by = f"steps can be made, but {with_.diverged} of {plural(with_.runs, 'run')} diverged"
        yield conclusion(statement, True, by, source=source, runs=ids(study, with_))
        return
    change = paired_difference(study, f"best_{study.metric}", without, with_)
    better = _better(study, change)
    yield conclusion(
        statement,
        None if better is None else not better,
        f"steps can be made, since a channel has several numbers in one example, and the best {study.metric} after "
        f"equally many steps changes by {with_interval(change)} at learning rate {number(with_.lr)}",
        source=source,
        effect=change,
        runs=ids(study, without, with_),
    )
