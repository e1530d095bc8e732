"""What is measured before any training: memory and step time against micro-batch size."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..errors import OutOfMemory
from ..store.quantities import whole_number
from ..store.records import Bench, HardwareProfile, Reading
from .capacity import Capacity, measure_capacity
from .device import lack_of_memory_named
from .step import MeasuredTask
from .step_times import Throughput, grid, measure_step_times
from .time_limit import NO_LIMIT, TimeLimit
from .training_guess import TrainingGuess
from .trying import STEP_TIMES, Trying, unannounced

__all__ = ["measure"]

_BUDGET_S = 16.0
_TIMING_S = 4.0
"""For step times and loading, of a bench that serves a training."""
_SHARE_FOR_MEMORY = 0.5
"""Of the time that is left."""


def measure(
    workload: MeasuredTask,
    *,
    max_batch_size: int | None = None,
    memory_limit: int | None = None,
    seed: int = 0,
    budget_s: float | None = None,
    training: TrainingGuess | None = None,
    until: TimeLimit = NO_LIMIT,
    progress: Callable[[str], None] | None = None,
    trying: Trying = unannounced,
    most: int | None = None,
) -> Bench:
    """Measure memory and step time of a task on its device.

    Args:
        workload: the task on its device.
        max_batch_size: no larger micro-batch is looked at; the number of examples is a limit too, of a stream
            4096 where nothing is said.
        memory_limit: bytes that a training step may take; default: what is free on the device now.
        seed: of the weights and the batches. The caller's random generators are left as they were.
        budget_s: about how many seconds the bench may take; default 16. An eighth of it is the longest single step.
        training: that the bench serves, where there is one: no step is run that takes too large a share of it, and
            steps and loading are timed for 4 s at most.
        until: by the clock, with all that a step needs beside its own time: larger sizes and further rounds are left
            out. Three steps of the smallest size are run in any case.
        progress: receives a line before each part.
        trying: announces each step for memory, and the timing.
        most: no larger micro-batch is tried: an earlier process died in it. The device counts as full beyond.

    Returns:
        Readings, split, the largest micro-batch that fits and whether it was run, and the profile to save.

    Raises:
        UsageError: not even the smallest step fits, or a limit is not positive or not whole.
        TaskError: a training step fails.

    Cost: about 8 steps for memory and up to 60 for time, the largest of which dominate; all count as `device_seconds`.
    """
    for name, value in (("--max-batch-size", max_batch_size), ("--memory-limit", memory_limit)):
        if value is not None:
            whole_number(value, name)
    budget = budget_s or _BUDGET_S
    device = workload.device
    free = device.free_bytes()
    limit = min(free, memory_limit or free)
    top = workload.largest_batch(max_batch_size)
    longest_step_s = min(2.0, budget / 8)
    capacity = measure_capacity(
        workload,
        top=top,
        limit_bytes=limit,
        seed=seed,
        longest_step_s=longest_step_s,
        training=training,
        until=until.share(_SHARE_FOR_MEMORY),
        progress=progress,
        trying=trying,
        most=most,
    )
    timing_s = budget / 2 if training is None else min(budget / 2, _TIMING_S)
    how: dict[str, Any] = {"seed": seed, "budget_s": timing_s, "until": until, "progress": progress}
    times, timed = _step_times(workload, capacity, trying, how)
    short = timed < capacity.largest_run
    notes = (
        [f"steps of {capacity.largest_run} examples no longer fitted when they were timed: {timed} are taken for most"]
        if short
        else []
    )
    profile = HardwareProfile(
        name=device.name,
        step_time_s=tuple((r.micro_batch_size, r.step_time_s) for r in times.readings if r.step_time_s is not None),
        loading_time_s=tuple((r.micro_batch_size, r.loading_time_s) for r in times.readings if r.loading_time_s),
        num_threads=tuple((r.micro_batch_size, r.num_threads) for r in times.readings if r.num_threads is not None),
        peak_memory_bytes=tuple((r.micro_batch_size, float(r.peak_memory_bytes or 0)) for r in capacity.readings),
        capacity_bytes=min(device.capacity_bytes(), memory_limit or device.capacity_bytes()),
    )
    return Bench(
        profile=profile,
        readings=_merged(capacity.readings, times.readings),
        split=capacity.split,
        largest_micro_batch_size=timed if short else capacity.largest,
        largest_verified=short or capacity.largest_run == capacity.largest,
        smallest_micro_batch_size=capacity.smallest,
        limit_bytes=limit,
        memory_bound=short or capacity.memory_bound,
        device_seconds=capacity.device_seconds + times.device_seconds,
        notes=(*capacity.notes, *notes, *times.notes),
        disturbance=times.disturbance,
        loader_workers=workload.loader_workers,
        loader_options=workload.loader_options,
        in_memory=workload.in_memory,
        cut_short=capacity.short or times.short,
    )


def _step_times(
    workload: MeasuredTask, capacity: Capacity, trying: Trying, how: Mapping[str, Any]
) -> tuple[Throughput, int]:
    """Step times, measured as told, up to the largest size that was run, or the half of it that fits; and that size.

    Memory that was free before may not be so any more: allocators keep what they had in pieces, other programs come.

    Raises:
        OutOfMemory: no step fits any more.
    """
    largest = capacity.largest_run
    while True:
        try:
            with trying(STEP_TIMES, largest), lack_of_memory_named(workload.device, largest):
                sizes = grid(capacity.smallest, largest)
                return measure_step_times(workload, sizes, **how), largest
        except OutOfMemory as error:
            if error.micro_batch_size is None or largest <= capacity.smallest:
                raise
        gc.collect()
        workload.device.release()
        largest = max(capacity.smallest, largest // 2)


def _merged(memory: Iterable[Reading], times: Iterable[Reading]) -> tuple[Reading, ...]:
    """One reading a size, in order of size."""
    by_size = {reading.micro_batch_size: reading for reading in memory}
    for reading in times:
        measured = by_size.get(reading.micro_batch_size, reading)
        by_size[reading.micro_batch_size] = dataclasses.replace(
            reading, peak_memory_bytes=measured.peak_memory_bytes, memory_method=measured.memory_method
        )
    return tuple(by_size[size] for size in sorted(by_size))
