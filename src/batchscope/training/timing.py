"""Seconds of a step and of an evaluation on the machine that trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from ..errors import OutOfMemory
from ..fits.step_time import fit_step_time, step_time_of
from ..fits.threads import num_threads_at
from ..hardware.device import lack_of_memory_named
from ..hardware.step_times import measure_step_times
from ..hardware.time_limit import NO_LIMIT, TimeLimit
from ..store.records import Bench, Timing
from ..tasks.preflight.check import Preflight
from ..tasks.workload import Workload

__all__ = ["PRIOR_CRITICAL_BATCH_SIZE", "timing_of"]

PRIOR_CRITICAL_BATCH_SIZE = 128
"""Where a critical batch size is expected before anything is known of the task: its step stands for all."""

_STEPS_HERE_S = 1.0
_SHARE_FOR_TIMING = 0.2
"""Of the time that is left when it begins."""
_EVALUATIONS, _CHEAP_S, _LONG_S = 3, 0.05, 0.5
"""So many more evaluations are timed where one takes little: a disturbance is a small part of a longer one. Of one that
takes long none is, even where the runs have another number of threads."""


def timing_of(
    workload: Workload,
    preflight: Preflight,
    bench: Bench,
    at_evaluation: Callable[[nn.Module], object] | None = None,
    *,
    budget_s: float,
    elsewhere: bool = False,
    at_sizes: bool = False,
    until: TimeLimit = NO_LIMIT,
) -> Timing:
    """Seconds of a step and of an evaluation on this machine.

    Args:
        workload: the task on its device.
        preflight: of the task.
        bench: where steps were timed.
        at_evaluation: what is measured of the model at each evaluation beside the task's metrics.
        budget_s: of the command, which is kept with them.
        elsewhere: whether the bench is another machine's, so that a few steps are timed here.
        at_sizes: whether batch sizes were asked for, so that runs have no number of threads of their own.
        until: of the command.
    """
    typical = min(preflight.max_batch_size, PRIOR_CRITICAL_BATCH_SIZE)
    step_s = _step_seconds(workload, preflight, bench, typical, elsewhere, until.share(_SHARE_FOR_TIMING))
    of_runs = num_threads_at(bench, min(typical, bench.largest_micro_batch_size))
    threads = None if elsewhere or at_sizes else of_runs
    until = until.share(_SHARE_FOR_TIMING)
    evaluation_s = _evaluation_seconds(workload, preflight.evaluation_s, at_evaluation, threads, until)
    return Timing(evaluation_s=evaluation_s, budget_s=budget_s, step_s=step_s, step_batch_size=typical)


def _step_seconds(
    workload: Workload, preflight: Preflight, bench: Bench, batch_size: int, elsewhere: bool, until: TimeLimit
) -> float:
    """One step of a batch on this machine: from the bench if it ran here, else from a few steps."""
    if not elsewhere:
        return step_time_of(bench).of_batch(batch_size)
    most = min(batch_size, bench.largest_micro_batch_size)
    smallest = min(most, max(most // 8, preflight.smallest_micro_batch_size))
    times = _times_here(workload, sorted({smallest, most}), until) or bench.profile.step_time_s
    return fit_step_time(times, largest_micro_batch_size=times[-1][0]).of_batch(batch_size)


def _times_here(workload: Workload, sizes: Sequence[int], until: TimeLimit) -> tuple[tuple[int, float], ...]:
    """Seconds of a step at those of the sizes that fit."""
    times: list[tuple[int, float]] = []
    for size in sizes:
        if until.passed:
            break
        try:
            with lack_of_memory_named(workload.device, size):
                readings = measure_step_times(workload, [size], budget_s=_STEPS_HERE_S, until=until).readings
        except OutOfMemory:
            break
        times += [(size, r.step_time_s) for r in readings if r.step_time_s is not None]
    return tuple(times)


def _evaluation_seconds(
    workload: Workload,
    seen_s: float,
    at_evaluation: Callable[[nn.Module], object] | None,
    threads: int | None,
    until: TimeLimit,
) -> float:
    """Seconds of one evaluation, with all that is measured there, by as many threads as runs have.

    The shortest of several while they take little, as what disturbs one only adds to it; the preflight has made two,
    with all threads.
    """
    model, device = workload.model(0), workload.device
    counts = threads in (None, device.threads) or seen_s >= min(_LONG_S, until.left_s)
    more = _EVALUATIONS if seen_s < min(_CHEAP_S, until.left_s / _EVALUATIONS) else int(not counts)
    each = [seen_s] if counts else []
    with device.using_threads(threads):
        for _ in range(more):
            started = device.clock()
            workload.all_metrics(model)
            each.append(device.clock() - started)
        started = device.clock()
        if at_evaluation is not None:
            at_evaluation(model)
        return min(each) + device.clock() - started
