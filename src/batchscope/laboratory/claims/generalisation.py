"""Statements about generalisation: gaps, overfitting, the regularising effect of noise, training data against test."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...fits import intervals
from ..records import StudyRow
from ..summary import evaluation_at
from .comparisons import (
    LOSS,
    NO_TEST,
    at,
    better,
    called,
    gap_change,
    last,
    minimum_effect,
    minimum_gap_change,
    score_change,
    versus,
)
from .gradients import cosine_of_two_batches
from .outcome import Outcome, above, all_of, any_of, below, differs, exactly, not_testable, parts, undecided
from .plan import FEW, LONG
from .results import Setting, TaskResults

__all__ = ["DECISIONS"]

_TRAIN_AS_GOOD = 1.05
_WELL_ABOVE = 1.2


# --- gaps at equally many epochs ------------------------------------------------------------------------------------


def _large_overfits(e: TaskResults) -> Outcome:
    """A larger gap, and a training loss that is not worse: else it is underfitting."""
    small, large = e.ends_at_one_rate
    loss = e.ratio(f"final_{e.train_loss}", small, large)
    return all_of(
        above(
            gap_change(e, small, large, last),
            0.0,
            minimum_gap_change(e, small),
            f"the change of the gap, {versus(small, large)},",
            e.ids(small, large),
        ),
        below(
            loss,
            _TRAIN_AS_GOOD,
            0.0,
            f"the training loss, {versus(small, large)}, as a ratio,",
            decides=f"above {_TRAIN_AS_GOOD:g} it is underfitting",
        ),
    )


def _size_matters(e: TaskResults) -> Outcome:
    def differ(arm: Setting | None, other: Setting | None, when: str) -> Outcome:
        change = score_change(e, arm, other, when)
        what = f"the change of {better(e, e.score)}, {versus(arm, other)},"
        gap = gap_change(e, arm, other, last)
        return any_of(
            differs(change, 0.0, minimum_effect(e, e.score, arm), what, e.ids(arm, other)),
            differs(gap, 0.0, minimum_gap_change(e, arm), f"the change of the gap, {versus(arm, other)},"),
        )

    return parts(
        "the learning rate",
        {
            "at one learning rate": differ(*e.ends_at_one_rate, "final"),
            "each at its best": differ(*e.ends_at_best, "best"),
        },
    )


# --- with little data, at equal training loss -----------------------------------------------------------------------


def _few_ends(e: TaskResults) -> tuple[Setting | None, Setting | None]:
    sizes = e.plan.few_sizes(e.study.examples)
    return e.at_best(sizes[0], FEW), e.at_best(sizes[-1], FEW)


def _gap_at_equal_loss(e: TaskResults) -> Outcome:
    """The gap of the small batch is smaller where both have the same training loss, each at its best learning rate."""
    small, large = _few_ends(e)
    if small is None or large is None:
        return undecided("the runs with little data were not made before the budget was used up")
    level = e.common_level((small, large))
    if level is None:
        return undecided("no training loss is reached by both batch sizes")

    def gap(row: StudyRow) -> float | None:
        there = evaluation_at(e.course(row), e.train_loss, level)
        return None if there is None else e.gap_at(there)

    change = e.compared(small, large, gap)
    what = f"with little data, at a training loss of {level:.3g}, the change of the gap, {versus(small, large)},"
    return above(change, 0.0, minimum_gap_change(e, small), what, e.ids(small, large))


def _rises_less(e: TaskResults) -> Outcome:
    """Past its minimum, the validation loss of the small batch rises less."""
    small, large = _few_ends(e)
    if small is None or large is None or e.loss is None:
        return undecided("the runs with little data were not made, or the task reports no validation loss")
    change = e.compared(large, small, lambda row: _rise(e, row), ratio=True)
    what = f"with little data, the rise of {e.loss} past its minimum, {versus(large, small)}, as a ratio,"
    return below(change, 1.0, LOSS, what, e.ids(small, large))


def _rise(e: TaskResults, row: StudyRow) -> float | None:
    if e.loss is None or row.status == "diverged":
        return None
    values = [x.metrics[e.loss] for x in e.course(row)]
    return values[-1] / min(values) if min(values) > 0 else None


# --- too few and too many -------------------------------------------------------------------------------------------


def _long(e: TaskResults) -> Setting:
    return e.at_one_rate(e.plan.long_sizes[0], LONG)


def _minimum(e: TaskResults, row: StudyRow) -> int:
    """The evaluation with the minimum validation loss."""
    assert e.loss is not None
    values = [x.metrics[e.loss] for x in e.course(row)]
    return min(range(len(values)), key=lambda i: values[i])


_NO_LOSS = not_testable("the task reports no validation loss")
_NO_LONG = undecided("the long runs were not made before the budget was used up")


def _too_few_underfit(e: TaskResults) -> Outcome:
    """Both losses at a tenth of the epochs of the validation minimum, over those at the minimum."""
    arm = _long(e)
    if e.loss is None:
        return _NO_LOSS
    if not e.rows(arm):
        return _NO_LONG
    outcomes: list[Outcome] = []
    for name in (e.train_loss, e.loss):
        pairs: list[tuple[float, float]] = []
        for row in e.kept(arm):
            course, there = e.course(row), _minimum(e, row)
            if there > 1:
                pairs.append((at(course, 0.1, until=there).metrics[name], course[there].metrics[name]))
        what = f"{name} at a tenth of the epochs of the validation minimum over that at it, {called(arm)},"
        outcomes.append(above(intervals.geometric_ratio(pairs), 1.0, LOSS, what, e.ids(arm)))
    return all_of(*outcomes)


def _too_many_overfit(e: TaskResults) -> Outcome:
    """Past its minimum the validation loss rises, while the training loss falls."""
    arm = _long(e)
    if e.loss is None:
        return _NO_LOSS
    if not e.rows(arm):
        return _NO_LONG
    rises: list[tuple[float, float]] = []
    falls: list[tuple[float, float]] = []
    for row in e.kept(arm):
        course, there = e.course(row), _minimum(e, row)
        rises.append((course[-1].metrics[e.loss], course[there].metrics[e.loss]))
        if there < len(course) - 1:
            falls.append((course[-1].metrics[e.train_loss], course[there].metrics[e.train_loss]))
    if len(falls) < 2:
        return undecided(f"no run got past its validation minimum in {e.plan.long_epochs:g} epochs, {called(arm)}")
    rise, fall = intervals.geometric_ratio(rises), intervals.geometric_ratio(falls)
    return all_of(
        above(rise, 1.0 + LOSS, 0.0, f"{e.loss} at the end over its minimum, {called(arm)},", e.ids(arm)),
        below(fall, 1.0, LOSS, "the training loss at the end over that at the validation minimum"),
    )


# --- training data against validation -------------------------------------------------------------------------------


def _tuned_on_training_data(e: TaskResults) -> Outcome:
    """Test score of what training loss picks against what validation picks, of all settings and epochs."""
    test = e.test
    if test is None:
        return NO_TEST
    by_seed: dict[int, list[StudyRow]] = {}
    for arm in e.arms(""):
        for row in e.rows(arm):
            if row.status != "diverged":
                by_seed.setdefault(row.seed, []).append(row)
    changes: list[float] = []
    for rows in by_seed.values():
        points = [x for row in rows for x in e.course(row)[1:]]
        by_train = min(points, key=lambda x: x.metrics[e.train_loss])
        by_validation = max(points, key=lambda x: e.metric.sign * x.metrics[e.metric.metric])
        changes.append(test.sign * (by_train.metrics[test.metric] - by_validation.metrics[test.metric]))
    what = (
        f"the change of {better(e, test)} from the pick by validation to that by training loss, of all runs and epochs,"
    )
    return below(
        intervals.mean(changes, within=e.range_of(test.metric).of_differences),
        0.0,
        minimum_effect(e, test, e.at_best(e.plan.smallest)),
        what,
        e.ids(*e.arms("")),
    )


def _validation_loss_at_early_stop(e: TaskResults) -> Outcome:
    """The minimum validation loss of long runs at one learning rate, at a batch size and at eight times as many."""
    if e.loss is None:
        return _NO_LOSS
    small, large = (e.at_one_rate(b, LONG) for b in e.plan.long_sizes)
    if not e.rows(large):
        return _NO_LONG
    loss = e.loss
    ratio = e.compared(small, large, lambda row: minimum_of(e, row, loss), ratio=True)
    what = f"the minimum {loss} of runs of {e.plan.long_epochs:g} epochs, {versus(small, large)}, as a ratio,"
    return above(ratio, 1.0, LOSS / 2, what, e.ids(small, large))


def minimum_of(e: TaskResults, row: StudyRow, loss: str) -> float | None:
    """The minimum of a loss along a run; `None` where it diverged."""
    if row.status == "diverged":
        return None
    return min(x.metrics[loss] for x in e.course(row))


def _never_converges(e: TaskResults) -> Outcome:
    """Training loss at the end of long runs over its minimum before."""
    arm = _long(e)
    if not e.rows(arm):
        return _NO_LONG
    diverged = [row for row in e.rows(arm) if row.status == "diverged"]
    if diverged:
        detail = f"{len(diverged)} of {len(e.rows(arm))} runs of {e.plan.long_epochs:g} epochs diverged, {called(arm)}"
        return exactly(True, len(diverged) / len(e.rows(arm)), detail, runs=e.ids(arm))
    courses = [[x.metrics[e.train_loss] for x in e.course(row)[1:]] for row in e.rows(arm)]
    if min(map(min, courses)) <= 0:
        return undecided("the training loss falls to 0 or below, where a ratio to its minimum says nothing")
    what = f"the training loss at the end of {e.plan.long_epochs:g} epochs over its minimum before, {called(arm)},"
    ratios = intervals.geometric_ratio((values[-1], min(values)) for values in courses)
    return above(ratios, _WELL_ABOVE, 0.0, what, e.ids(arm))


DECISIONS: Mapping[str, Callable[[TaskResults], Outcome]] = {
    "S1.10c": _large_overfits,
    "S2.6c": _large_overfits,
    "S3.7e": _large_overfits,
    "S1.12b": _size_matters,
    "S0.7a": _gap_at_equal_loss,
    "S0.14a": _gap_at_equal_loss,
    "S3.6a": lambda e: all_of(_gap_at_equal_loss(e), _rises_less(e)),
    "S0.7c": lambda e: all_of(cosine_of_two_batches(e), _rises_less(e)),
    "S0.11a": _too_few_underfit,
    "S2.5a": _too_few_underfit,
    "S0.11b": _too_many_overfit,
    "S2.5b": _too_many_overfit,
    "S2.9b": _too_many_overfit,
    "S2.15b": _tuned_on_training_data,
    "S0.15": _validation_loss_at_early_stop,
    "S0.12a": _never_converges,
    "S2.10b": _never_converges,
}
