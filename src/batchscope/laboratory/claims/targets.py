"""Statements about the time, and the steps, to a target: which batch size gets there first."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...fits import intervals
from ...store.records import Estimate
from ...wording import number
from .comparisons import (
    LOSS,
    NO_TEST,
    TIME,
    better,
    epoch_time_falls,
    minimum_effect,
    no_worse,
    score_change,
    seconds_to,
    step,
    versus,
)
from .outcome import Outcome, above, all_of, any_of, below, parts, undecided
from .results import Setting, TaskResults

__all__ = ["DECISIONS", "seconds_against_largest"]


def _metric_of_targets(e: TaskResults) -> str:
    return e.loss or e.train_loss


def seconds_against_largest(e: TaskResults, arm_of: Callable[[int], Setting | None]) -> dict[int, tuple[Estimate, str]]:
    """Ratio of seconds to a common validation loss, each smaller batch size over the largest."""
    arms = {b: arm_of(b) for b in e.plan.batch_sizes}
    metric = _metric_of_targets(e)
    level = e.common_level(arms.values(), metric)
    if level is None:
        return {}
    large = arms[e.plan.largest]
    what = f"the training seconds to {metric} of {number(level)}"
    return {
        b: (seconds_to(e, level, metric, large, arm), f"{what}, {versus(large, arm)}, as a ratio,")
        for b, arm in arms.items()
        if b != e.plan.largest
    }


def _some_smaller_sooner(e: TaskResults) -> Outcome:
    found = seconds_against_largest(e, e.at_best)
    if not found:
        return undecided("no validation loss is reached by every batch size at its best learning rate")
    ids = e.ids(*map(e.at_best, e.plan.batch_sizes))
    return any_of(*(below(effect, 1.0, TIME, what, ids) for effect, what in found.values()))


def _smallest_longer(e: TaskResults, arm_of: Callable[[int], Setting | None]) -> Outcome:
    found = seconds_against_largest(e, arm_of).get(e.plan.smallest)
    if found is None:
        return undecided("no validation loss is reached by every batch size")
    return above(found[0], 1.0, TIME, found[1], e.ids(*map(arm_of, e.ends)))


def _small_takes_longer(e: TaskResults) -> Outcome:
    return parts(
        "what is counted",
        {
            "an epoch": epoch_time_falls(e),
            "to a common target at one learning rate": _smallest_longer(e, e.at_one_rate),
        },
    )


def _fewer_steps(e: TaskResults) -> Outcome:
    small, large = e.ends_at_best
    metric = _metric_of_targets(e)
    level = e.common_level(map(e.at_best, e.plan.batch_sizes), metric)
    if level is None:
        return undecided("no validation loss is reached by every batch size at its best learning rate")
    first, second = (e.passages(arm, level, step, metric) for arm in (small, large))
    ratio = intervals.geometric_ratio(intervals.matched(second, first))
    what = f"the steps to {metric} of {number(level)}, {versus(small, large)}, as a ratio,"
    return below(ratio, 1.0, TIME, what, e.ids(small, large))


def _holy_grail(e: TaskResults) -> Outcome:
    """Some larger batch is as good on the test part as the smallest, in less time."""
    if e.test is None:
        return NO_TEST
    small = e.at_best(e.plan.smallest)
    metric = _metric_of_targets(e)
    level = e.common_level(map(e.at_best, e.plan.batch_sizes), metric)
    if level is None:
        return undecided("no validation loss is reached by every batch size at its best learning rate")
    outcomes = [
        all_of(
            no_worse(
                e, e.test, score_change(e, small, arm, "best", e.test), f"{better(e, e.test)}, {versus(small, arm)},"
            ),
            below(
                seconds_to(e, level, metric, small, arm),
                1.0,
                TIME,
                f"the training seconds to {metric} of {number(level)}, {versus(small, arm)}, as a ratio,",
                e.ids(small, arm),
            ),
        )
        for arm in map(e.at_best, e.plan.batch_sizes[1:])
    ]
    return any_of(*outcomes)


def _best_between(e: TaskResults) -> Outcome:
    inner = e.plan.batch_sizes[1:-1]
    if not inner:
        return undecided("only two batch sizes were run, and none lies between them")
    metric = _metric_of_targets(e)
    level = e.common_level(map(e.at_best, e.plan.batch_sizes), metric)

    def better(size: int, end: int) -> Outcome:
        a, b = e.at_best(end), e.at_best(size)
        what = f"best {e.metric.metric}, {versus(a, b)}, as a ratio,"
        if e.metric.sign < 0:
            return below(e.ratio(f"best_{e.metric.metric}", a, b), 1.0, LOSS, what, e.ids(a, b))
        return above(score_change(e, a, b, "best", e.metric), 0.0, minimum_effect(e, e.metric, a), what, e.ids(a, b))

    def sooner(size: int, end: int) -> Outcome:
        a, b = e.at_best(end), e.at_best(size)
        if level is None:
            return undecided("no validation loss is reached by every batch size at its best learning rate")
        what = f"training seconds to {metric} of {number(level)}, {versus(a, b)}, as a ratio,"
        return below(seconds_to(e, level, metric, a, b), 1.0, TIME, what, e.ids(a, b))

    return parts(
        "the criterion",
        {
            "by the metric after equally many epochs": any_of(
                *(all_of(*(better(size, end) for end in e.ends)) for size in inner)
            ),
            "by the time to a target": any_of(*(all_of(*(sooner(size, end) for end in e.ends)) for size in inner)),
        },
    )


DECISIONS: Mapping[str, Callable[[TaskResults], Outcome]] = {
    "S1.6": _some_smaller_sooner,
    "S3.6c": lambda e: _smallest_longer(e, e.at_best),
    "S2.11b": _small_takes_longer,
    "S1.7b": _fewer_steps,
    "S1.9": _holy_grail,
    "S3.12a": _best_between,
}
