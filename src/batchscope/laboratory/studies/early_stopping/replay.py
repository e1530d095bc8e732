"""Stopping rules replayed on the stored curves of long runs: where each would have stopped, and with which weights.

One long run answers for every rule at once: a rule sees the curve up to some evaluation, stops there or goes on, and
hands over the weights of the best evaluation so far, by the metric that choices are made by. Their test metric is in
the curve, too, and decides nothing. The *oracle* sees the whole curve and takes its best evaluation.

Patience watches the metric that choices are made by; Prechelt's criteria watch the validation loss, which must be above
0. Epochs of a rule are evaluations: one an epoch, but for runs whose length is given in steps or seconds. Numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ....fits import intervals
from ....fits.early_stopping import Rule, stop_index
from ....store.ranges import NOT_NEGATIVE, SHARE, Range
from ....store.records import Estimate, RunStatus
from ...records import Study
from ...summary import evaluations, range_in

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = [
    "Curve",
    "Pick",
    "Replayed",
    "by_rule",
    "curves_of",
    "last",
    "minimum_training_loss",
    "on_test_part",
    "oracle",
    "replayed",
    "worse_by",
]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One run's course, as stopping rules see it."""

    run: str
    batch_size: int
    seed: int
    epochs: tuple[float, ...]
    watched: tuple[float, ...]
    """The metric that choices are made by, turned so that less is better."""
    metrics: Mapping[str, tuple[float, ...]]
    """All that was evaluated, the training part's among it."""
    training: tuple[float | None, ...]
    """The mean training loss of each epoch, as training saw it."""

    @property
    def error(self) -> tuple[float, ...]:
        """What Prechelt's criteria watch; empty where there is no validation loss above 0."""
        values = self.metrics.get("val_loss", ())
        return values if all(value > 0 for value in values) else ()


@dataclass(frozen=True, kw_only=True)
class Pick:
    """What a rule does with a curve; both are indices of evaluations."""

    stop: int
    chosen: int
    by_itself: bool
    """Whether the rule stopped, and not the end of the run."""


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What a rule does with all curves: means over the seeds, of the mean over a seed's runs."""

    stop_epoch: Estimate
    spent: Estimate
    """Epochs until it stops, as a share of the whole run's."""
    chosen_epoch: Estimate
    watched: Estimate
    """The metric that choices are made by, of the chosen weights."""
    tests: Mapping[str, Estimate]
    """All test metrics of them."""
    excess: Estimate | None
    """By how much they are worse on the test part than the oracle's, as a share of the latter."""
    never: int
    """Runs in which the rule did not stop."""
    runs: int


Picker = Callable[[Curve], Pick | None]
"""`None`: the rule does not apply to the curve."""


def curves_of(study: Study, runs: Sequence[StoredRun], lr: float) -> tuple[Curve, ...]:
    """The runs at a learning rate that did not diverge, by batch size and seed."""
    kept = {row.run for row in study.rows if row.lr == lr and row.status != RunStatus.DIVERGED.value}
    found = [_curve(study, run) for run in runs if run.id in kept]
    return tuple(sorted(found, key=lambda curve: (curve.batch_size, curve.seed)))


def _curve(study: Study, run: StoredRun) -> Curve:
    course = evaluations(run, study.examples_of(run))
    names = [name for name in course[0].metrics if all(name in e.metrics for e in course)]
    sign = -1.0 if study.larger_is_better else 1.0
    return Curve(
        run=run.id,
        batch_size=run.config.batch_size,
        seed=run.config.seed,
        epochs=tuple(e.epoch for e in course),
        watched=tuple(sign * e.metrics[study.metric] for e in course),
        metrics={name: tuple(e.metrics[name] for e in course) for name in names},
        training=tuple(e.train_loss for e in course),
    )


def by_rule(rule: Rule) -> Picker:
    """Train until a rule says stop."""

    def pick(curve: Curve) -> Pick | None:
        watched = curve.watched if rule.kind == "patience" else curve.error
        if not watched or (rule.kind == "PQ" and None in curve.training[1:]):
            return None
        stop = stop_index(rule, watched, curve.training)
        return _until(curve, stop)

    return pick


def oracle(curve: Curve) -> Pick:
    """Train to the end, take the best evaluation of all."""
    return _until(curve, None)


def last(curve: Curve) -> Pick:
    """Train to the end, take the weights as they are there."""
    end = len(curve.epochs) - 1
    return Pick(stop=end, chosen=end, by_itself=False)


def minimum_training_loss(curve: Curve) -> Pick | None:
    """Train to the end, take the weights that fit the training data best."""
    values = curve.metrics.get("train_loss_eval", ())
    end = len(curve.epochs) - 1
    return Pick(stop=end, chosen=min(range(end + 1), key=values.__getitem__), by_itself=False) if values else None


def _until(curve: Curve, stop: int | None) -> Pick:
    end = len(curve.epochs) - 1 if stop is None else stop
    return Pick(stop=end, chosen=min(range(end + 1), key=curve.watched.__getitem__), by_itself=stop is not None)


def on_test_part(study: Study, curves: Sequence[Curve]) -> str | None:
    """The test part's name for the metric that choices are made by; `None`: the task does not report it."""
    name = study.metric.replace("val_", "test_", 1)
    return name if name != study.metric and curves and all(name in curve.metrics for curve in curves) else None


def replayed(study: Study, curves: Sequence[Curve], picker: Picker) -> Replayed | None:
    """A rule on all curves; `None` where it does not apply to each of them.

    Only seeds count that have a run at every batch size.
    """
    seeds = [[(curve, picker(curve)) for curve in own] for own in _seeds(curves)]
    picks = [[(curve, pick) for curve, pick in own if pick is not None] for own in seeds]
    if not picks or any(len(own) < len(all_of_seed) for own, all_of_seed in zip(picks, seeds, strict=True)):
        return None
    sign = -1.0 if study.larger_is_better else 1.0
    tests = [n for n in curves[0].metrics if n.startswith("test_") and all(n in curve.metrics for curve in curves)]

    def mean(read: Callable[[Curve, Pick], float], unit: str = "", within: Range = NOT_NEGATIVE) -> Estimate:
        return intervals.mean([_mean([read(curve, pick) for curve, pick in own]) for own in picks], unit, within=within)

    return Replayed(
        stop_epoch=mean(lambda c, p: c.epochs[p.stop], "epochs"),
        spent=mean(lambda c, p: c.epochs[p.stop] / c.epochs[-1], within=SHARE),
        chosen_epoch=mean(lambda c, p: c.epochs[p.chosen], "epochs"),
        watched=mean(lambda c, p: sign * c.watched[p.chosen], within=range_in(study.rows, f"best_{study.metric}")),
        tests={
            name: mean(lambda c, p, name=name: c.metrics[name][p.chosen], within=range_in(study.rows, f"best_{name}"))
            for name in tests
        },
        excess=worse_by(study, curves, picker, oracle) if on_test_part(study, curves) else None,
        never=sum(not pick.by_itself for own in picks for _, pick in own),
        runs=sum(map(len, picks)),
    )


def worse_by(study: Study, curves: Sequence[Curve], picker: Picker, than: Picker) -> Estimate:
    """Loss on the test part, one rule's weights against another's, as a share of the other's metric.

    Seed by seed, the means over a seed's runs are compared. No value where the task has no test part, or a rule does
    not apply.
    """
    test, sign = on_test_part(study, curves), -1.0 if study.larger_is_better else 1.0
    shares: list[float] = []
    for own in _seeds(curves):
        picks = [(c, a, b) for c in own if (a := picker(c)) is not None and (b := than(c)) is not None]
        values = [(c.metrics[test][a.chosen], c.metrics[test][b.chosen]) for c, a, b in picks if test]
        if len(values) == len(own) and (reference := _mean([b for _, b in values])):
            shares.append(sign * (_mean([a for a, _ in values]) - reference) / abs(reference))
    return intervals.mean(shares)


def _seeds(curves: Sequence[Curve]) -> list[list[Curve]]:
    """The curves of each seed that has one at every batch size, so that all weigh the same."""
    sizes = {curve.batch_size for curve in curves}
    by_seed: dict[int, list[Curve]] = {}
    for curve in curves:
        by_seed.setdefault(curve.seed, []).append(curve)
    return [own for _, own in sorted(by_seed.items()) if len(own) == len(sizes)]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
