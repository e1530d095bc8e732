"""Time of a training step against micro-batch size, from few steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from ..fits.step_time import fit_step_time
from ..records import Reading
from ..task import Batch
from ..trial import Trial
from ..workload import Workload, preserved_random_state

__all__ = ["Throughput", "grid", "measure_step_times"]

SIZES = 6
_WARM_UP_STEPS = 2
_FEWEST_STEPS, _ENOUGH_STEPS, _MOST_STEPS = 3, 5, 8
_STEADY = 0.05
"""Five steps are enough once their median's relative error (MAD-based) is below this."""
_LINEAR_FROM = 16
"""Beyond this many knees the step time is its line, and larger sizes are not timed."""
_FEWEST_SIZES = 5


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """What the step-time bench found."""

    readings: tuple[Reading, ...]
    device_seconds: float
    notes: tuple[str, ...]


def grid(smallest: int, largest: int, count: int = SIZES) -> list[int]:
    """About `count` sizes in geometric progression, both ends included, the others rounded to powers of two.

    >>> grid(1, 1347)
    [1, 4, 16, 64, 256, 1347]
    """
    ratio = (largest / smallest) ** (1 / (count - 1))
    inner = (2 ** round(math.log2(smallest * ratio**i)) for i in range(1, count - 1))
    return sorted({smallest, largest, *(size for size in inner if smallest < size < largest)})


def measure_step_times(
    workload: Workload,
    sizes: Sequence[int],
    *,
    seed: int = 0,
    seconds_per_size: float = 0.25,
    budget_s: float = 10.0,
    progress: Callable[[str], None] | None = None,
) -> Throughput:
    """Time full training steps, and their gradient part, at each micro-batch size.

    Each size: two warm-up steps, then up to eight timed ones on one batch of real examples, fewer once five agree or the
    time for the size is used up; never fewer than three. The clock waits for the device. Fetching examples is not in
    the step time; it is timed apart, and noted where it takes longer than the step.

    Args:
        workload: the task on its device.
        sizes: increasing micro-batch sizes, examples; those that would not fit must have been left out.
        seed: of the weights and the batches; the caller's generators are left as they were.
        seconds_per_size: time after which three steps of a size are enough.
        budget_s: no size is begun that is expected to exceed this in all.
        progress: receives a line before each size.

    Returns:
        One reading a size (median, median absolute deviation), and the seconds of all steps, warm-up included.

    Cost: at most ten steps a size. Sizes stop early beyond 16 knees, where the time is a straight line.
    """
    readings: list[Reading] = []
    notes: list[str] = []
    spent = 0.0
    with preserved_random_state(seed):
        trial = Trial(workload, seed=seed)
        for size in sizes:
            if readings and (reason := _reason_to_stop(readings, size, budget_s - spent)):
                notes.append(reason)
                break
            if progress:
                progress(f"time of a step of {size} examples")
            fetched = time.perf_counter()
            batch = trial.draw(size)
            fetched = time.perf_counter() - fetched
            reading, seconds = _time_size(trial, batch, size, seconds_per_size)
            spent += seconds
            readings.append(reading)
            if not workload.in_memory and (note := _loading_note(workload, reading, fetched)):
                notes.append(note)
    return Throughput(readings=tuple(readings), device_seconds=spent, notes=tuple(notes))


def _time_size(trial: Trial, batch: Batch, size: int, seconds_per_size: float) -> tuple[Reading, float]:
    """The reading at one size, and the seconds that its steps took."""
    began = trial.workload.device.clock()
    for _ in range(_WARM_UP_STEPS):
        _timed_step(trial, batch)
    steps: list[float] = []
    gradient_parts: list[float] = []
    while not _enough(steps, seconds_per_size):
        gradient, whole = _timed_step(trial, batch)
        steps.append(whole)
        gradient_parts.append(gradient)
    middle = median(steps)
    reading = Reading(
        micro_batch_size=size,
        step_time_s=middle,
        step_time_mad_s=median(abs(s - middle) for s in steps),
        steps_timed=len(steps),
        gradient_time_s=median(gradient_parts),
    )
    return reading, trial.workload.device.clock() - began


def _timed_step(trial: Trial, batch: Batch) -> tuple[float, float]:
    """Seconds of the gradient part and of the whole step."""
    clock = trial.workload.device.clock
    started = clock()
    trial.optimizer.zero_grad(set_to_none=True)
    trial.gradients(batch)
    middle = clock()
    trial.update()
    return middle - started, clock() - started


def _enough(steps: Sequence[float], seconds_per_size: float) -> bool:
    if len(steps) < _FEWEST_STEPS:
        return False
    if len(steps) >= _MOST_STEPS or sum(steps) >= seconds_per_size:
        return True
    middle = median(steps)
    deviation = 1.4826 * median(abs(s - middle) for s in steps)
    return len(steps) >= _ENOUGH_STEPS and deviation <= _STEADY * middle


def _reason_to_stop(readings: Sequence[Reading], size: int, budget_s: float) -> str:
    """Why the next size is not timed, or nothing."""
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


def _loading_note(workload: Workload, reading: Reading, fetched_s: float) -> str:
    workers = max(1, workload.loader_workers)
    if reading.step_time_s is None or fetched_s / workers <= reading.step_time_s:
        return ""
    return (
        f"loading a batch of {reading.micro_batch_size} takes {fetched_s / workers:.3g} s with {workers} worker"
        f"{'s' if workers > 1 else ''}, longer than its training step of {reading.step_time_s:.3g} s"
    )
