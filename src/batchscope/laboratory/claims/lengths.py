"""Statements about how long to train: too short, long enough, and when to stop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from ...fits import intervals
from ...store.records import Estimate
from ..records import StudyRow
from ..summary import Evaluation
from .comparisons import LOSS, NO_TEST, at, better, called, minimum_effect, no_worse
from .outcome import Outcome, above, all_of, below, undecided, within
from .plan import LONG
from .results import Quality, TaskResults

__all__ = ["DECISIONS", "patience_of", "stopped"]

_TENTH, _THIRD = 0.1, 1 / 3
_NO_LONG = undecided("the long runs were not made before the budget was used up")


def _mean_change(e: TaskResults, quality: Quality, changes: Iterable[float]) -> Estimate:
    """Mean over the seeds of changes of a metric."""
    return intervals.mean(changes, within=e.range_of(quality.metric).of_differences)


def _score_before(e: TaskResults, share: float, name: str) -> Outcome:
    """The score at a share of the steps of its best, against the best, along the same runs."""
    arm = e.at_best(e.plan.middle)
    changes: list[float] = []
    for row in e.kept(arm):
        course = e.course(row)
        best = max(range(len(course)), key=lambda i: e.score.sign * course[i].metrics[e.score.metric])
        if best > 0:
            early = at(course, share, until=best)
            changes.append(e.score.sign * (course[best].metrics[e.score.metric] - early.metrics[e.score.metric]))
    what = f"the gain in {better(e, e.score)} from {name} of the steps to the best, {called(arm)},"
    return above(_mean_change(e, e.score, changes), 0.0, minimum_effect(e, e.score, arm), what, e.ids(arm))


def _too_short(e: TaskResults) -> Outcome:
    """The validation loss after a tenth of the best run's steps, at the learning rate that is best for that length."""
    metric = e.loss or e.study.metric
    best = e.at_best(e.plan.middle)
    if best is None:
        return undecided("no learning rate was found for the middle batch size")
    arms = [arm for arm in e.arms("") if arm.batch_size == best.batch_size]
    pairs: list[tuple[float, float]] = []
    for row in e.kept(best):
        course = e.course(row)
        there = min(range(len(course)), key=lambda i: course[i].metrics[metric])
        short = [
            at(e.course(other), _TENTH * course[there].step / max(1, e.course(other)[-1].step)).metrics[metric]
            for arm in arms
            for other in e.kept(arm)
            if other.seed == row.seed and not e.lost(other)
        ]
        if short:
            pairs.append((min(short), course[there].metrics[metric]))
    what = (
        f"{metric} after a tenth of the steps, at the learning rate that is best for them, over the best, "
        f"{called(best)},"
    )
    return above(intervals.geometric_ratio(pairs), 1.0, LOSS, what, e.ids(*arms))


def _saves_time_but_underfits(e: TaskResults) -> Outcome:
    arm = e.at_best(e.plan.middle)
    times: list[tuple[float, float]] = []
    losses: list[tuple[float, float]] = []
    for row in e.kept(arm):
        course = e.course(row)
        early, end = at(course, _TENTH), course[-1]
        losses.append((early.metrics[e.train_loss], end.metrics[e.train_loss]))
        times.append((early.seconds * end.step, end.seconds * early.step))
    time, loss = intervals.geometric_ratio(times), intervals.geometric_ratio(losses)
    return all_of(
        within(time, 0.5, 2.0, "the share of the training seconds over the share of the steps, a tenth,"),
        above(loss, 1.0, LOSS, "the training loss after a tenth of the steps over that at the end", e.ids(arm)),
    )


# --- early stopping, replayed on long runs --------------------------------------------------------------------------


def stopped(course: Sequence[Evaluation], metric: str, sign: int, patience: float) -> tuple[Evaluation, Evaluation]:
    """Where early stopping ends a run, and the evaluation whose weights it would return.

    Args:
        course: of a run that went on.
        metric: that is watched.
        sign: 1 where larger is better.
        patience: epochs without improvement.
    """
    best = course[0]
    for now in course:
        if sign * now.metrics[metric] > sign * best.metrics[metric]:
            best = now
        elif now.epoch - best.epoch >= patience:
            return now, best
    return course[-1], best


def patience_of(e: TaskResults) -> float:
    """Epochs without improvement after which early stopping ends a long run: a quarter of the grid's, at least two."""
    return max(2.0, e.plan.epochs / 4)


def _stop_against(e: TaskResults, other: Literal["best", "last"]) -> Outcome:
    """The test metric at the epoch that early stopping chooses against that at another epoch of the same run."""
    test = e.test
    if test is None:
        return NO_TEST
    arm = e.at_one_rate(e.plan.long_sizes[0], LONG)
    if not e.kept(arm):
        return _NO_LONG
    changes: list[float] = []
    for row in e.kept(arm):
        course = e.course(row)
        _, chosen = stopped(course, e.metric.metric, e.metric.sign, patience_of(e))
        there = course[-1]
        if other == "best":
            there = max(course, key=lambda x: e.metric.sign * x.metrics[e.metric.metric])
        changes.append(test.sign * (chosen.metrics[test.metric] - there.metrics[test.metric]))
    against = {"best": "the best epoch of the whole run", "last": "the last epoch"}[other]
    what = (
        f"{better(e, test)} from {against} to the epoch of early stopping (patience {patience_of(e):g}), {called(arm)},"
    )
    return no_worse(e, test, _mean_change(e, test, changes), what, e.ids(arm))


def _fewer_epochs(e: TaskResults) -> Outcome:
    arm = e.at_one_rate(e.plan.long_sizes[0], LONG)
    if not e.kept(arm):
        return _NO_LONG
    pairs: list[tuple[float, float]] = []
    for row in e.kept(arm):
        course = e.course(row)
        end, _ = stopped(course, e.metric.metric, e.metric.sign, patience_of(e))
        pairs.append((end.epoch, course[-1].epoch))
    share = intervals.geometric_ratio(pairs)
    return below(share, 1.0, 0.05, "the epochs until early stopping over those of the whole run", e.ids(arm))


def _lowest_point(e: TaskResults) -> Outcome:
    """The weights of the best validation epoch against those of the last, on the test part."""
    test = e.test
    if test is None:
        return NO_TEST
    arm = e.at_one_rate(e.plan.long_sizes[0], LONG)
    if not e.kept(arm):
        return _NO_LONG

    def change(row: StudyRow) -> float:
        course = e.course(row)
        best = max(course, key=lambda x: e.metric.sign * x.metrics[e.metric.metric])
        return test.sign * (best.metrics[test.metric] - course[-1].metrics[test.metric])

    what = f"{better(e, test)} from the last epoch to the one with the best {e.metric.metric}, {called(arm)},"
    return no_worse(e, test, _mean_change(e, test, map(change, e.kept(arm))), what, e.ids(arm))


DECISIONS: Mapping[str, Callable[[TaskResults], Outcome]] = {
    "S0.10a": lambda e: _score_before(e, _TENTH, "a tenth"),
    "S2.9a": lambda e: _score_before(e, _THIRD, "a third"),
    "S0.12b": _too_short,
    "S2.10c": _too_short,
    "S2.9c": _saves_time_but_underfits,
    "S0.13": lambda e: all_of(_stop_against(e, "best"), _stop_against(e, "last")),
    "S1.8": _lowest_point,
    "S2.14": lambda e: all_of(_stop_against(e, "last"), _fewer_epochs(e)),
}
