"""Comparisons that several statements rest on, each with its margin: the smallest effect that would count.

Losses are compared by their ratio, where 2 % count; scores by their difference, where half a point of a hundred counts
(of a metric that is no share, 2 % of it); times and numbers of steps by their ratio, where 5 % count.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

from ...fits import intervals
from ...store.ranges import ANY, Range
from ...store.records import Estimate
from ...wording import count, number
from ..records import StudyRow
from ..summary import Evaluation, roughness
from .outcome import Outcome, above, below, not_testable, undecided
from .results import Quality, Setting, TaskResults

__all__ = [
    "LOSS",
    "NO_TEST",
    "TIME",
    "at",
    "better",
    "called",
    "epoch_time_falls",
    "gap_change",
    "gap_range",
    "last",
    "log_roughness",
    "loss_ratio_above",
    "minimum_effect",
    "minimum_gap_change",
    "no_worse",
    "score_change",
    "seconds_to",
    "step",
    "unmeasured",
    "versus",
]

LOSS, TIME = 0.02, 0.05
_POINT = 0.005
NO_TEST = not_testable("the task reports no test metric (evaluate with a key that begins with test_)")


def unmeasured(e: TaskResults, name: str) -> Outcome | None:
    """The verdict where a measurement is missing: undecided in want of time, or not testable; `None`: it is there."""
    reason = e.why_not(name)
    if reason is None:
        return None
    return undecided(reason) if e.read_note(name) is None else not_testable(reason)


def called(arm: Setting | None) -> str:
    """An arm as reasons name it."""
    return "none" if arm is None else f"batch size {count(arm.batch_size)} at learning rate {number(arm.lr)}"


def versus(arm: Setting | None, other: Setting | None) -> str:
    """Two arms in words, the second compared with the first."""
    if arm is not None and other is not None and arm.lr == other.lr:
        return (
            f"batch size {count(other.batch_size)} against {count(arm.batch_size)}, both at learning rate "
            f"{number(arm.lr)}"
        )
    return f"{called(other)} against {called(arm)}"


def minimum_effect(e: TaskResults, quality: Quality, arm: Setting | None) -> float:
    """The smallest difference in a metric that counts."""
    values = e.values(arm, f"final_{quality.metric}").values()
    size = max((abs(v) for v in values), default=1.0)
    return _POINT if quality.sign > 0 and size <= 1.0 else LOSS * size


def score_change(
    e: TaskResults, arm: Setting | None, other: Setting | None, when: str, quality: Quality | None = None
) -> Estimate:
    """Paired difference, `other` minus `arm`, of the score, or in another metric; `when` is `final` or `best`."""
    asked = quality or e.score

    def value(row: StudyRow) -> float | None:
        found = row.values.get(f"{when}_{asked.metric}")
        return None if found is None else asked.sign * found

    return e.compared(arm, other, value, within=e.range_of(asked.metric))


def minimum_gap_change(e: TaskResults, arm: Setting | None) -> float:
    """The smallest difference in the generalisation gap that counts: half a point of a score, else 2 % of the loss."""
    if e.gap is not None:
        return minimum_effect(e, e.score, arm)
    values = [abs(v) for v in e.values(arm, f"final_{e.loss}").values()] if e.loss else []
    return LOSS * max(values, default=1.0)


def better(e: TaskResults, quality: Quality) -> str:
    """A metric's name where its change is told: of one that is better when smaller, up means better."""
    return quality.metric if quality.sign > 0 else f"{quality.metric} (up is better)"


def gap_change(
    e: TaskResults, arm: Setting | None, other: Setting | None, when: Callable[[Sequence[Evaluation]], Evaluation]
) -> Estimate:
    """Paired difference of the generalisation gap, `other` minus `arm`."""

    def gap(row: StudyRow) -> float | None:
        return e.gap_at(when(e.course(row))) if row.status != "diverged" else None

    return e.compared(arm, other, gap, within=gap_range(e))


def gap_range(e: TaskResults) -> Range:
    """Where the generalisation gap can lie: that of accuracies between −1 and 1."""
    return e.range_of(e.score.metric).of_differences if e.gap is not None else ANY


def last(course: Sequence[Evaluation]) -> Evaluation:
    """The end of a run."""
    return course[-1]


def step(e: Evaluation) -> float:
    """The number of updates."""
    return float(e.step)


def at(course: Sequence[Evaluation], share: float, *, until: int | None = None) -> Evaluation:
    """The evaluation nearest to a share of the steps of a run, or of its steps until an evaluation."""
    end = course[-1 if until is None else until].step
    return min(course[1:] or course, key=lambda e: abs(e.step - share * end))


def log_roughness(course: Sequence[Evaluation], metric: str) -> float | None:
    """Roughness of the logarithm of a loss about its course."""
    return roughness([math.log(v) if (v := e.metrics.get(metric, 0.0)) > 0 else None for e in course[1:]])


def epoch_time_falls(e: TaskResults) -> Outcome:
    """Whether an epoch takes less time at the largest batch size than at the smallest."""
    small, large = e.ends
    ratios = intervals.geometric_mean((r * small / large for r in e.step_ratios(small, large)), "times")
    if ratios.value is None:
        return undecided(f"step times: {e.why_not('timing')}")
    return below(ratios, 1.0, TIME, f"the time of an epoch at batch size {count(large)} over that at {count(small)}")


def seconds_to(e: TaskResults, level: float, metric: str, arm: Setting | None, other: Setting | None) -> Estimate:
    """Training seconds to a level: those of `other` over those of `arm`.

    Steps seed by seed times the ratio of step times, each seed with another round of the timing: the interval has the
    spread of both.
    """
    if arm is None or other is None:
        return intervals.geometric_ratio([])
    times = e.step_ratios(arm.batch_size, other.batch_size) or ([1.0] if arm.batch_size == other.batch_size else [])
    first, second = (e.passages(a, level, step, metric) for a in (arm, other))
    if not times:
        return intervals.geometric_ratio([])
    pairs = zip(intervals.matched(second, first), itertools.cycle(times), strict=False)
    return intervals.geometric_ratio((b * t, a) for (b, a), t in pairs)


def loss_ratio_above(e: TaskResults, name: str, arm: Setting | None, other: Setting | None, what: str) -> Outcome:
    """Whether a loss of `other` is larger than that of `arm`."""
    return above(e.ratio(name, arm, other), 1.0, LOSS, f"{what}, {versus(arm, other)}, as a ratio,", e.ids(arm, other))


def no_worse(e: TaskResults, quality: Quality, change: Estimate, what: str, runs: Sequence[str] = ()) -> Outcome:
    """Whether something is no worse than something else, by a margin fixed beforehand.

    Args:
        e: where the metric's size is seen.
        quality: the metric: of a share the margin is a point of a hundred, of another one 4 % of its size.
        change: by how much it is better.
        what: that changes.
        runs: behind it.
    """
    margin = 2 * minimum_effect(e, quality, e.at_best(e.plan.smallest))
    words = f"it holds where the interval lies above {number(-margin)}, the margin"
    return above(change, -margin, 0.0, f"the change of {what}", runs, decides=words)
