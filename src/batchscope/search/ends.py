"""Ends of stored runs of one length, as the search for it takes them. Numbers only, no torch.

A run ends at the level of its last evaluations (`fits.evaluation_noise`), where the learning rate decays at the last
one. One that was stopped on its way counts with how far behind the best it was there; one that an earlier question left
unfinished says nothing yet, but is where the search begins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..fits.curves import curve_of, value_at
from ..fits.end_values import End, Left, Start
from ..fits.evaluation_noise import end_value
from ..store.metrics import limits_of
from ..store.ranges import ANY, Range, range_of
from ..store.records import Metric, RunConfig, RunStatus, Target
from ..store.runs import StoredRun
from .strategies.space import Pair
from .within import Lengths, Whole

if TYPE_CHECKING:
    from .state import SearchState

__all__ = ["first_batch_size", "first_size", "lengths_of"]

_GAP_KEPT, _LEAST_GAP = 0.3, 0.02
"""Standard deviation of where a stopped run would have ended: a share of how far behind it was, at least so much."""
_UNKNOWN_REST = 0.3
_FIRST_SHARE, _SHARE_OF_DATA, _LARGE = 4.0, 16.0, 256


def lengths_of(state: SearchState) -> Lengths:
    """What the runs of a search for a given length say."""

    def most(batch_size: int) -> int:
        return state.most_steps(batch_size) or 1

    waiting = [run for run in state.finished if run.result and run.result.status is RunStatus.PAUSED]
    runs = [run for run in state.finished if run not in waiting]
    metric = state.question.judged_by
    lost = {run.id for run in runs if run.result and run.result.status is RunStatus.DIVERGED}
    curves = {run.id: _curve(run, metric, most(run.config.batch_size)) for run in state.finished}
    trained = [curve if run not in lost else curve[:1] for run, curve in curves.items()]
    values = [value for curve in trained for _, value in curve if math.isfinite(value)]
    fresh = next((curve[0][1] for curve in curves.values() if curve[0][0] == 0 and math.isfinite(curve[0][1])), None)
    scale = Left.of(values, rising=metric.mode == "max") if values else Left(kind="plain")
    whole = {_pair(run.config): _whole(run, curves[run.id], scale) for run in runs if _came_to_its_end(run, metric)}
    best = min(whole.values(), key=lambda each: each.left, default=None)
    furthest = min(waiting, key=lambda run: scale.log(curves[run.id][-1][1]), default=None)
    return Lengths(
        metric=metric,
        scale=scale,
        ends=tuple(_end(run, curves[run.id], scale, whole.get(_pair(run.config)), best) for run in runs),
        whole=whole,
        start=_start(state, furthest),
        batch_sizes=state.batch_sizes,
        seconds=lambda batch_size: most(batch_size) * state.seconds_of(batch_size),
        spent_s=_spent_s(state, waiting),
        fresh=None if fresh is None else scale.log(fresh),
        limits=_limits(metric, fresh, values),
        costs_s=tuple(run.result.steps * state.seconds_of(run.config.batch_size) for run in runs if run.result),
        seed=state.question.seed,
        current=(state.question.current.batch_size, state.question.current.lr) if state.question.current else None,
    )


def _limits(metric: Metric, fresh: float | None, values: Sequence[float]) -> Range:
    """What a metric can be, by its name and all values that were seen."""
    of_values = range_of(metric.name, values)
    named = ANY if fresh is None else limits_of(metric.name, fresh)
    named = named if all(map(named.holds, values)) else ANY
    return of_values if of_values != ANY else named


def first_batch_size(
    batch_sizes: Sequence[int],
    examples_of: Callable[[int], float],
    *,
    equal_steps: bool = False,
    data: int | None = None,
) -> int:
    """Batch size of the first run: nearest to √(examples of a training) / 4.

    So it is within a factor of 2 of the one that ends best in 11 of the 15 tables of `benchmarks/search/tables`. At
    equal steps a larger batch is nearly always at least as good: there it is 256, or a 16th of a smaller training set,
    if that is more.

    Args:
        batch_sizes: to choose from.
        examples_of: examples that a training of the length sees at a batch size.
        equal_steps: whether trainings have equal steps.
        data: examples of the training set; `None`: not known.

    Example:
        >>> sizes = (1, 2, 4, 8, 16, 32, 64, 128, 256)
        >>> first_batch_size(sizes, lambda batch_size: 30_000)
        32
        >>> first_batch_size(sizes, lambda batch_size: 200 * batch_size, equal_steps=True, data=4000)
        256
    """
    size = min(batch_sizes, key=lambda b: abs(math.log(b * _FIRST_SHARE / math.sqrt(examples_of(b)))))
    if not equal_steps:
        return size
    large = _LARGE if data is None else min(_LARGE, data / _SHARE_OF_DATA)
    return max(size, min(batch_sizes, key=lambda b: abs(math.log(b / large))))


def first_size(state: SearchState) -> int:
    """Batch size at which a search for a given length begins."""
    return first_batch_size(
        state.batch_sizes,
        lambda size: float(size * (state.most_steps(size) or 1)),
        equal_steps=state.question.at_equal_steps,
        data=state.examples,
    )


def _spent_s(state: SearchState, waiting: Sequence[StoredRun]) -> float:
    """Seconds of range test and runs, without the bench and what earlier questions left unfinished."""
    bench_s = state.bench.device_seconds if state.bench_counts else 0.0
    left_s = sum(run.result.steps * state.seconds_of(run.config.batch_size) for run in waiting if run.result)
    return max(0.0, state.device_seconds() - bench_s - left_s)


def _start(state: SearchState, furthest: StoredRun | None) -> Start:
    """The pair of the run that got furthest for earlier questions, or what the range test says."""
    test, slope = state.rate_range, state.prior.slope[0]
    by_steps = state.question.at_equal_steps
    if furthest is not None:
        return Start(batch_size=furthest.config.batch_size, lr=furthest.config.lr, slope=slope, equal_steps=by_steps)
    assert test is not None
    size = first_size(state)
    lr = float(f"{test.pilot_lr * (size / test.batch_size) ** slope:.3g}")
    return Start(batch_size=size, lr=lr, slope=slope, equal_steps=by_steps)


def _curve(run: StoredRun, metric: Metric, most: int) -> list[tuple[int, float]]:
    """Steps and values of the evaluations within the length; a run may have been given more by an earlier clock."""
    aim = Target(metric=metric.name, value=0.0, mode=metric.mode)
    return [(step, value) for step, value in curve_of(run.rows, aim) if step <= most]


def _came_to_its_end(run: StoredRun, metric: Metric) -> bool:
    """Whether a run had its whole length, and the metric was a number at its end."""
    if run.result is None or run.result.status is not RunStatus.OUT_OF_STEPS:
        return False
    last = run.result.last.get(metric.name)
    return last is not None and math.isfinite(last)


def _whole(run: StoredRun, curve: Sequence[tuple[int, float]], scale: Left) -> Whole:
    steps, last = curve[-1]
    level, error, spread = _level(run, curve)
    return Whole(
        run=run,
        steps=steps,
        last=last,
        left=scale.log(level),
        spread=_in_logs(scale, level, spread),
        error=_in_logs(scale, level, error),
        curve=[(step / steps, value) for step, value in curve],
    )


def _in_logs(scale: Left, value: float, deviation: float) -> float:
    """Standard deviation in `Left.log` of one of the metric, around a value: as much as is left, at most."""
    return min(1.0, deviation * scale.slope(value))


def _level(run: StoredRun, curve: Sequence[tuple[int, float]]) -> tuple[float, float, float]:
    """Level at which a run ends, its standard error, and the standard deviation of one evaluation about it.

    Where the learning rate decays it is the last value.
    """
    found = end_value([float(step) for step, _ in curve], [value for _, value in curve])
    last = curve[-1][1]
    spread = (found.spread or 0.0) if found else 0.0
    if found is None or run.config.schedule != "constant":
        return last, spread, spread
    return found.value, found.standard_error or 0.0, spread


def _end(
    run: StoredRun, curve: Sequence[tuple[int, float]], scale: Left, whole: Whole | None, best: Whole | None
) -> End:
    """The end of a run; of one that was stopped, as far behind the best as it was there."""
    size, lr = _pair(run.config)
    if run.result is None or run.result.status is RunStatus.DIVERGED or not math.isfinite(curve[-1][1]):
        return End(batch_size=size, lr=lr, left=None)
    if whole is not None:
        level, error, _ = _level(run, curve)
        return End(batch_size=size, lr=lr, left=whole.left, sd=_in_logs(scale, level, error))
    steps, value = curve[-1]
    now = scale.log(value)
    there = None
    if best is not None:
        shares, values = zip(*best.curve, strict=True)
        there = value_at(shares, values, steps / run.config.max_steps)
    if best is None or there is None:
        return End(batch_size=size, lr=lr, left=now, sd=_UNKNOWN_REST)
    gap = max(0.0, now - scale.log(there))
    return End(batch_size=size, lr=lr, left=best.left + gap, sd=_GAP_KEPT * gap + _LEAST_GAP)


def _pair(config: RunConfig) -> Pair:
    return config.batch_size, config.lr
