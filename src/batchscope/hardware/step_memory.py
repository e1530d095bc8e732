"""Peak memory of one training step: how it is read, and what it is at given batch sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import OutOfMemory, UsageError
from ..fits.memory import fit_memory
from .device import Device, lack_of_memory_named
from .live_bytes import tensors_in, unique_bytes
from .random_state import preserved_random_state
from .step import MeasuredStep, MeasuredTask
from .time_limit import NO_LIMIT, TimeLimit
from .trying import STEP, Trying, unannounced

__all__ = ["StepMemory", "measure_step_memory", "read_step"]

_MADE_AHEAD = 2
"""Batches that a `DataLoader` has each of its workers make ahead, where it is not told otherwise."""
_SMALL_SIZES = (4, 16)
"""Their memory is read first, so that the next size is foreseen before it is tried."""


@dataclass(frozen=True, kw_only=True)
class StepMemory:
    """What one step took."""

    gradient_peak: int
    """Bytes of the forward and backward pass, all that lasts included."""
    update_peak: int
    """Bytes of the optimizer's part."""
    seconds: float

    @property
    def peak(self) -> int:
        """Bytes of the whole step."""
        return max(self.gradient_peak, self.update_peak)


def read_step(disposable: MeasuredStep, batch: Any, *, accumulated: bool) -> StepMemory:
    """Run one training step and read its memory: weights, gradients, optimizer state, batch and what comes and goes.

    Args:
        disposable: the model that is trained and thrown away.
        batch: on the device.
        accumulated: as a further micro-batch of a step, whose gradients are there already, which is the most that a
            step needs; else as a whole step, which makes them.

    On the host, batches that loader workers have ready are counted too: they take of the same memory.
    """
    device = disposable.workload.device
    waiting = _waiting_bytes(disposable.workload, batch)
    if not accumulated:
        disposable.optimizer.zero_grad(set_to_none=True)
    with device.memory_watch([*disposable.lasting_tensors(), *tensors_in(batch)]) as watch:
        started = device.clock()
        if accumulated:
            disposable.optimizer.zero_grad(set_to_none=False)
        disposable.gradients(batch)
        gradient_peak = watch.peak_bytes()
        watch.restart()
        disposable.update()
        seconds = device.clock() - started
        update_peak = watch.peak_bytes()
        return StepMemory(gradient_peak=gradient_peak + waiting, update_peak=update_peak + waiting, seconds=seconds)


def _waiting_bytes(workload: MeasuredTask, batch: Any) -> int:
    """Bytes of the batches that loader workers make ahead, in this machine's memory; none on an accelerator."""
    if workload.device.works_ahead or workload.in_memory or not workload.loader_workers:
        return 0
    ahead = workload.loader_options.get("prefetch_factor") or _MADE_AHEAD
    return int(workload.loader_workers * ahead * unique_bytes(tensors_in(batch)))


def measure_step_memory(
    workload: MeasuredTask,
    sizes: Sequence[int],
    limit: int | None = None,
    *,
    smallest: int = 1,
    until: TimeLimit = NO_LIMIT,
    trying: Trying = unannounced,
    most: int | None = None,
) -> tuple[tuple[int, float], ...]:
    """Peak memory of one whole training step at each batch size.

    Args:
        workload: the task on its device.
        sizes: increasing.
        limit: bytes that a step may take; default: what is free on the device.
        smallest: batch that the model can be trained on.
        until: no size is begun that is expected to end after it; those from there on are left out.
        trying: announces each step.
        most: no larger batch is tried: an earlier process died in it.

    Returns:
        Batch sizes and bytes.

    Raises:
        UsageError: a step does not fit; a size is not tried whose need, on the line through the two before it, is
            beyond the limit.

    Cost: two training steps at each size, and at two small ones.
    """
    bound = workload.device.free_bytes() if limit is None else limit
    first = {s for s in _SMALL_SIZES if smallest <= s < sizes[-1]}
    readings: list[tuple[int, float]] = []
    example_s = 0.0
    for size in sorted({*sizes, *first}):
        if until.passed or example_s * size > until.left_s:
            break
        began = until.now
        expected = fit_memory(readings).peak_bytes(size) if len(readings) > 1 else 0.0
        smaller = [s for s in sizes if s < size]
        if most is not None and size > most:
            raise UsageError(
                f"a training step at batch size {size} is not tried: an earlier process died in such a step, and the "
                f"largest before it was {most}; {_smaller(smaller)}"
            )
        needed = expected if expected > bound else _announced_peak(workload, size, readings, trying)
        if needed > bound:
            raise _does_not_fit(workload.device, size, needed, bound, smaller)
        readings.append((size, needed))
        example_s = (until.now - began) / size
    return tuple((size, peak) for size, peak in readings if size in sizes)


def _announced_peak(workload: MeasuredTask, size: int, smaller: Sequence[tuple[int, float]], trying: Trying) -> float:
    """Bytes of a step at a batch size; infinite where it does not fit, or killed a process."""
    try:
        with trying(STEP, size, smaller[-1][0] if smaller else 0):
            return _peak(workload, size)
    except OutOfMemory:
        return math.inf


def _peak(workload: MeasuredTask, size: int) -> float:
    """Bytes of a step at a batch size, the second one of its model; infinite where it does not fit."""
    try:
        with preserved_random_state(0), lack_of_memory_named(workload.device, size):
            disposable = workload.disposable(0)
            batch = disposable.largest_batch(size)
            disposable.gradients(batch)
            disposable.update()
            return float(read_step(disposable, batch, accumulated=False).peak)
    except OutOfMemory:
        return math.inf


def _does_not_fit(device: Device, size: int, needed: float, bound: int, smaller: Sequence[int]) -> UsageError:
    need = "more than there is" if math.isinf(needed) else f"about {needed / 2**20:.0f} MiB"
    return UsageError(
        f"a training step at batch size {size} needs {need} on {device.name}, and {bound / 2**20:.0f} MiB may be used; "
        f"{_smaller(smaller)}"
    )


def _smaller(sizes: Sequence[int]) -> str:
    return f"give --batch-sizes of at most {sizes[-1]}" if sizes else "give smaller --batch-sizes"
