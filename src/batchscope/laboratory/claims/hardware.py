"""Statements about time and memory of a step, and about words for them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping

from ...fits import intervals
from ...store.records import Estimate
from ...wording import bytes_, count, duration
from .comparisons import TIME, epoch_time_falls
from .outcome import Outcome, above, all_of, below, exactly, not_testable, parts, undecided
from .results import TaskResults

__all__ = ["DECISIONS"]

_TWICE = 2.0
_NAMED = (10, 100, 1000)


_NO_SINGLE = not_testable("this model cannot be trained on a single example (batch normalisation)")


def _untimed(e: TaskResults) -> Outcome:
    return undecided(f"step times: {e.why_not('timing') or 'too few batch sizes'}")


def _throughput(e: TaskResults, size: int, other: int) -> Estimate:
    """Examples per second at `other` over those at `size`."""
    return intervals.geometric_mean((other / size / r for r in e.step_ratios(size, other)), "times")


def _timed_sizes(e: TaskResults) -> list[int]:
    timing = e.measured("timing")
    return [] if timing is None else list(timing["sizes"])


def _larger_is_faster(e: TaskResults) -> Outcome:
    """Speed from each batch size of the grid to the next: it depends on the size where only some are faster."""
    sizes = e.plan.batch_sizes
    steps = {
        f"from {count(a)} to {count(b)}": above(
            _throughput(e, a, b), 1.0, TIME, f"examples per second at batch size {count(b)} over those at {count(a)}"
        )
        for a, b in itertools.pairwise(sizes)
        if e.step_ratios(a, b)
    }
    return parts("the batch size", steps) if steps else _untimed(e)


def _parallel(e: TaskResults) -> Outcome:
    sizes = _timed_sizes(e)
    if len(sizes) < 2:
        return _untimed(e)
    what = f"examples per second at batch size {count(sizes[-1])} over those at {count(sizes[0])}"
    return above(_throughput(e, sizes[0], sizes[-1]), 1.0, TIME, what)


def _mini_batches_faster(e: TaskResults) -> Outcome:
    sizes = [b for b in _timed_sizes(e) if b in e.plan.batch_sizes and b > 1]
    if e.plan.least_batch_size > 1:
        return _NO_SINGLE
    if not sizes or not e.step_ratios(1, sizes[0]):
        return _untimed(e)
    return all_of(
        *(
            above(_throughput(e, 1, b), 1.0, TIME, f"examples per second at batch size {count(b)} over those at 1")
            for b in sizes
        )
    )


def _only_marginally_more(e: TaskResults) -> Outcome:
    sizes = [b for b in _NAMED if e.step_ratios(1, b)]
    if e.plan.least_batch_size > 1:
        return _NO_SINGLE
    if not sizes:
        return _untimed(e)
    outcomes = {
        f"{count(b)} samples": below(
            intervals.geometric_mean(e.step_ratios(1, b), "times"),
            _TWICE,
            0.0,
            f"the time of a step on {b} over one on 1",
        )
        for b in sizes
    }
    return parts("the batch size", outcomes)


def _small_costs_more(e: TaskResults) -> Outcome:
    small, large = e.ends
    ratio = intervals.geometric_mean((large / small / r for r in e.step_ratios(small, large)), "times")
    if ratio.value is None:
        return _untimed(e)
    return above(ratio, 1.0, TIME, f"the time of an epoch at batch size {count(small)} over that at {count(large)}")


def _fewer_and_faster(e: TaskResults) -> Outcome:
    small, large = e.ends
    steps = exactly(
        large > small,
        small / large,
        f"an epoch has {count(e.study.examples / large)} steps at batch size {count(large)} and "
        f"{count(e.study.examples / small)} at {count(small)}",
    )
    return all_of(epoch_time_falls(e), steps)


def _more_memory(e: TaskResults) -> Outcome:
    memory = e.memory
    if not {*e.ends} <= set(memory):
        return undecided("the memory of a step was not read")
    small, large = (memory[b] for b in e.ends)
    detail = ", ".join(f"{bytes_(memory[b])} at {count(b)}" for b in sorted(memory))
    return exactly(
        large > small, large / small, f"peak memory of a training step by batch size: {detail}", unit="times"
    )


def _memory_limits(e: TaskResults) -> Outcome:
    """The largest batch that fits, on the line through the readings, against the training set."""
    memory, capacity = e.memory, e.read_note("capacity")
    if capacity is None or len(memory) < 2:
        return undecided("the memory of a step was not read")
    small, large = e.ends
    slope = (memory[large] - memory[small]) / (large - small)
    free = capacity["free_bytes"]
    fits = math.inf if slope <= 0 else large + (free - memory[large]) / slope
    detail = (
        f"on {capacity['device']} with {bytes_(free)} free a step fits up to about {count(fits)} examples (on the line "
        f"through the readings), and the training set has {count(e.study.examples)}"
    )
    return exactly(fits < e.study.examples, min(fits, 1e18) / e.study.examples, detail, unit="training sets")


def _seconds_by_steps(e: TaskResults) -> Outcome:
    """Time goes with the steps, and each further second gains less."""
    arm = e.at_best(e.plan.middle)
    metric = e.loss or e.study.metric
    gains: list[tuple[float, float]] = []
    taken: list[float] = []
    for row in e.kept(arm):
        course = e.course(row)
        middle, end = course[len(course) // 2], course[-1]
        sign = -1.0 if metric == e.loss else float(e.metric.sign)
        first = sign * (middle.metrics[metric] - course[0].metrics[metric]) / max(middle.seconds, 1e-12)
        second = sign * (end.metrics[metric] - middle.metrics[metric]) / max(end.seconds - middle.seconds, 1e-12)
        taken.append(end.seconds)
        gains.append((max(0.0, second), max(0.0, first)))
    if not taken:
        return undecided("no run of the middle batch size ended without diverging")
    what = f"the gain of {metric} a second in the second half of a run over that in the first half"
    gain = intervals.geometric_ratio(gains)
    return below(gain, 1.0, 0.1, f"in runs of {duration(sum(taken) / len(taken))}, {what},", e.ids(arm))


DECISIONS: Mapping[str, Callable[[TaskResults], Outcome]] = {
    "S0.8a": _larger_is_faster,
    "S0.10b": _seconds_by_steps,
    "S1.4c": _parallel,
    "S1.7c": _only_marginally_more,
    "S1.10d": _small_costs_more,
    "S2.6d": _small_costs_more,
    "S3.7a": _fewer_and_faster,
    "S3.11b": _mini_batches_faster,
    "S1.5c": _more_memory,
    "S3.10a": _more_memory,
    "S3.10b": _memory_limits,
}
