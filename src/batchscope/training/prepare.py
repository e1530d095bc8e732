"""Before a search: the task is tried, the hardware measured, the duration predicted. No training run yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import OutOfMemory, TargetError
from ..fits.step_time import fit_step_time, step_time_of
from ..hardware.bench import measure
from ..hardware.device import lack_of_memory_named
from ..hardware.profile import bench_from_profile
from ..hardware.step_times import measure_step_times
from ..store.records import Bench, HardwareProfile, Timing
from ..store.runs import Store
from ..tasks.preflight.check import Preflight, check
from ..tasks.workload import Workload
from .progress import Prediction, Progress, Silent

if TYPE_CHECKING:
    from ..search.question import Question

__all__ = ["PRIOR_CRITICAL_BATCH_SIZE", "Prepared", "prediction_of", "prepare"]

PRIOR_CRITICAL_BATCH_SIZE = 128
"""Where a critical batch size is expected before anything is known of the task."""

_TYPICAL_STEPS, _TYPICAL_FACTOR = 400.0, 8.0
_TYPICAL_EVALUATIONS = 80.0
_MOST_BENCH_S, _BENCH_SHARE = 16.0, 0.25
_STEPS_HERE_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What is known before the first run."""

    preflight: Preflight
    bench: Bench
    timing: Timing


def prepare(
    workload: Workload,
    question: Question,
    *,
    profile: HardwareProfile | None,
    budget_s: float,
    store: Store | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Try the task and measure the hardware; with a store, what was measured before is read, not measured again.

    Raises:
        TaskError: the task fails the preflight.
        TargetError: the target or the current recipe cannot be used with this task.
        UsageError: not even the smallest step fits into memory.
    """
    told = progress or Silent()
    told.stage("checking the task")
    preflight = _preflight(workload, question)
    bench = store.noted("bench", Bench) if store else None
    if bench is None:
        told.stage("measuring step time and memory" if profile is None else "reading the hardware profile")
        bench = _bench(workload, question, preflight, profile, budget_s)
        if store:
            store.note("bench", bench)
    timing = store.noted("timing", Timing) if store else None
    if timing is None:
        step_s = _step_seconds(workload, preflight, bench, measured_here=profile is None)
        timing = Timing(evaluation_s=_evaluation_seconds(workload), budget_s=budget_s, step_s=step_s)
        if store:
            store.note("timing", timing)
    return Prepared(preflight=preflight, bench=bench, timing=timing)


def prediction_of(prepared: Prepared, budget_s: float, runs: float) -> Prediction:
    """How long the training runs of a search will take that costs as much as so many trainings at its recipe."""
    timing = prepared.timing
    typical = runs * (_TYPICAL_STEPS * timing.step_s + _TYPICAL_EVALUATIONS * timing.evaluation_s)
    return Prediction(
        seconds=min(typical, budget_s),
        low=min(typical / _TYPICAL_FACTOR, budget_s),
        high=min(typical * _TYPICAL_FACTOR, budget_s),
        budget_s=budget_s,
        assumption=f"a target that takes about {_TYPICAL_STEPS:.0f} steps, give or take {_TYPICAL_FACTOR:.0f} times",
    )


def _preflight(workload: Workload, question: Question) -> Preflight:
    current = question.current
    if current is not None and current.batch_size > workload.examples:
        raise TargetError(
            f"the current batch size {current.batch_size} is larger than the training set of {workload.examples} "
            "examples; give the batch size that is really used"
        )
    lr = current.lr if current else None
    return check(workload, max_batch_size=question.max_batch_size, target=question.target, lr=lr)


def _bench(
    workload: Workload, question: Question, preflight: Preflight, profile: HardwareProfile | None, budget_s: float
) -> Bench:
    limits: dict[str, Any] = {"max_batch_size": preflight.max_batch_size, "memory_limit": question.memory_limit}
    if profile is not None:
        return bench_from_profile(profile, examples=workload.examples, **limits)
    return measure(workload, seed=question.seed, budget_s=min(_MOST_BENCH_S, _BENCH_SHARE * budget_s), **limits)


def _step_seconds(workload: Workload, preflight: Preflight, bench: Bench, *, measured_here: bool) -> float:
    """One step at a typical batch size on this machine: from the bench if it ran here, else from a few steps."""
    batch_size = min(preflight.max_batch_size, PRIOR_CRITICAL_BATCH_SIZE)
    if measured_here:
        return step_time_of(bench).of_batch(batch_size)
    most = min(batch_size, bench.largest_micro_batch_size)
    smallest = min(most, max(most // 8, preflight.smallest_micro_batch_size))
    times = _times_here(workload, sorted({smallest, most})) or bench.profile.step_time_s
    return fit_step_time(times, largest_micro_batch_size=times[-1][0]).of_batch(batch_size)


def _times_here(workload: Workload, sizes: Sequence[int]) -> tuple[tuple[int, float], ...]:
    """Seconds of a step at those of the sizes that fit."""
    times: list[tuple[int, float]] = []
    for size in sizes:
        try:
            with lack_of_memory_named(workload.device, size):
                readings = measure_step_times(workload, [size], budget_s=_STEPS_HERE_S).readings
        except OutOfMemory:
            break
        times += [(size, r.step_time_s) for r in readings if r.step_time_s is not None]
    return tuple(times)


def _evaluation_seconds(workload: Workload) -> float:
    model = workload.model(0)
    started = workload.device.clock()
    workload.evaluate(model)
    return workload.device.clock() - started
