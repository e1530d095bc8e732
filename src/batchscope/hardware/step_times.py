"""Time of a training step against micro-batch size, from few steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from ..fits.step_time import fit_step_time
from ..store.records import Reading
from .loading_times import measure_loading_times
from .random_state import preserved_random_state
from .step import MeasuredStep, MeasuredTask

__all__ = ["Throughput", "grid", "measure_step_times"]

SIZES = 6
_WARM_UP_STEPS = 1
"""At each size, for what is set up per shape; the first size has one more."""
_FEWEST_STEPS, _ENOUGH_STEPS, _MOST_STEPS = 3, 5, 8
_LONG_S = 0.15
"""Three steps are enough if they took this long together: what disturbs a step lasts milliseconds."""
_STEADY = 0.05
"""Five steps are enough once their median absolute deviation is below this share of their median."""
_TIME_FOR_A_SIZE = 10
"""In steps of the smallest size: larger sizes are timed in no more than five steps, because theirs cost more."""
_LINEAR_FROM = 16
"""Beyond this many knees the step time is its line, and larger sizes are not timed."""
_FEWEST_SIZES = 5
_SHARE_FOR_LOADING = 0.25


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Result of the step-time bench."""

    readings: tuple[Reading, ...]
    device_seconds: float
    notes: tuple[str, ...]


def grid(smallest: int, largest: int, count: int = SIZES) -> list[int]:
    """Grid of about `count` sizes in geometric progression, both ends included, the others rounded to powers of two.

    >>> grid(1, 1347)
    [1, 4, 16, 64, 256, 1347]
    """
    ratio = (largest / smallest) ** (1 / (count - 1))
    inner = (2 ** round(math.log2(smallest * ratio**i)) for i in range(1, count - 1))
    return sorted({smallest, largest, *(size for size in inner if smallest < size < largest)})


def measure_step_times(
    workload: MeasuredTask,
    sizes: Sequence[int],
    *,
    seed: int = 0,
    budget_s: float = 8.0,
    progress: Callable[[str], None] | None = None,
) -> Throughput:
    """Time full training steps at each micro-batch size: their computing, its gradient part, and loading the batch.

    Each size: a warm-up step, then three to eight timed ones on one batch of real examples, the fewer the longer they
    take. The clock waits for the device. Loading is timed apart (`loading_times`), and the step time is that of both:
    the longer of the two where workers load, else their sum.

    Args:
        workload: the task on its device.
        sizes: increasing micro-batch sizes, examples; those that do not fit must have been left out.
        seed: of the weights and the batches; the caller's generators are left as they were.
        budget_s: no size is begun that is expected to exceed this in all; a quarter of it is for loading.
        progress: receives a line before each size.

    Returns:
        One reading a size (median, median absolute deviation), and the seconds of all steps, warm-up and loading
        included, except for the very first step, in which libraries are loaded.

    Cost: four to nine steps a size, and loading a few batches of it. Ends beyond 16 knees, where the time is a straight
    line.
    """
    readings: list[Reading] = []
    notes: list[str] = []
    spent = 0.0
    with preserved_random_state(seed):
        disposable = workload.disposable(seed)
        _timed_step(disposable, disposable.draw(sizes[0]))
        for size in sizes:
            if readings and (reason := _reason_to_stop(readings, size, budget_s - spent)):
                notes.append(reason)
                break
            if progress:
                progress(f"time of a step of batch size {size}")
            enough_s = _TIME_FOR_A_SIZE * (readings[0].step_time_s or 0.0) if readings else budget_s
            reading, seconds = _time_size(disposable, size, enough_s)
            spent += seconds
            readings.append(reading)
        computing = [r.compute_time_s or 0.0 for r in readings]
        loading = measure_loading_times(
            workload,
            [r.micro_batch_size for r in readings],
            computing,
            seed=seed,
            budget_s=_SHARE_FOR_LOADING * budget_s,
        )
    return Throughput(
        readings=tuple(
            replace(
                r, step_time_s=max(compute, load) if workload.loader_workers else compute + load, loading_time_s=load
            )
            for r, compute, load in zip(readings, computing, loading.seconds, strict=True)
        ),
        device_seconds=spent + loading.spent_s,
        notes=(*notes, *loading.notes),
    )


def _time_size(disposable: MeasuredStep, size: int, enough_s: float) -> tuple[Reading, float]:
    """The reading at one size, and the seconds that its steps took."""
    batch = disposable.draw(size)
    began = disposable.workload.device.clock()
    for _ in range(_WARM_UP_STEPS):
        _timed_step(disposable, batch)
    steps: list[tuple[float, float]] = []
    while not _enough([whole for _, whole in steps], enough_s):
        steps.append(_timed_step(disposable, batch))
    spent = disposable.workload.device.clock() - began
    middle = median(whole for _, whole in steps)
    reading = Reading(
        micro_batch_size=size,
        step_time_s=middle,
        compute_time_s=middle,
        step_time_mad_s=median(abs(whole - middle) for _, whole in steps),
        steps_timed=len(steps),
        gradient_time_s=min(middle, median(gradient for gradient, _ in steps)),
    )
    return reading, spent


def _timed_step(disposable: MeasuredStep, batch: Any) -> tuple[float, float]:
    """Seconds of the gradient part and of the whole step.

    Where work is handed to the device ahead, looking at the clock in the middle of a step would slow it down: the
    gradient part is then timed in a pass of its own.
    """
    device = disposable.workload.device
    started = device.clock()
    disposable.optimizer.zero_grad(set_to_none=True)
    disposable.gradients(batch)
    gradient = device.clock() - started
    if device.works_ahead:
        started = device.clock()
        disposable.optimizer.zero_grad(set_to_none=True)
        disposable.gradients(batch)
    disposable.update()
    return gradient, device.clock() - started


def _enough(steps: Sequence[float], enough_s: float) -> bool:
    if len(steps) < _ENOUGH_STEPS:
        return len(steps) >= _FEWEST_STEPS and sum(steps) >= _LONG_S
    middle = median(steps)
    steady = median(abs(s - middle) for s in steps) <= _STEADY * middle
    return steady or len(steps) >= _MOST_STEPS or sum(steps) >= enough_s


def _reason_to_stop(readings: Sequence[Reading], size: int, budget_s: float) -> str:
    """Reason why the next size is not timed; empty where it is."""
    points = [(r.micro_batch_size, r.step_time_s) for r in readings if r.step_time_s is not None]
    last, seconds = points[-1]
    expected = seconds * size / last
    if expected * (_WARM_UP_STEPS + _FEWEST_STEPS) > budget_s:
        return f"sizes from {size} on were not timed: a step there was expected to take {expected:.3g} s"
    if len(points) >= _FEWEST_SIZES:
        knee = fit_step_time(points).hardware_knee
        if knee.high is not None and last >= _LINEAR_FROM * knee.high:
            return f"sizes from {size} on were not timed: beyond {last} examples the time grows in proportion"
    return ""
