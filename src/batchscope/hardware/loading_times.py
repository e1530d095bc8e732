"""Time to load a batch, by its size, at the pace at which a training would get one after another.

What is timed is the task's own stream of batches: the same examples in the same kind of order, the same workers,
collation and copy to the device. Nothing is computed meanwhile, so that the pace is the loader's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from ..fits.delays import low_quantile
from ..fits.step_time import fit_step_time
from ..wording import duration
from .step import MeasuredTask
from .time_limit import NO_LIMIT, TimeLimit

__all__ = ["LoadingTimes", "measure_loading_times"]

_FEWEST, _MOST = 3, 8
"""Batches that are timed at each size, after a first one."""
_LONG_S = 0.15
"""This many seconds of loading are enough, of three batches or more."""
_STARTING_S = 0.5
"""Seconds that opening a loader may take, its workers included."""
_DIFFERENT = 3.0
"""Slowest batch over their mean at one size, from which on a note says that examples differ."""
_NEGLIGIBLE = 0.02
"""Share of a step below which loading from memory counts as nothing."""


@dataclass(frozen=True, kw_only=True)
class LoadingTimes:
    """Result of timing the loader."""

    seconds: tuple[float, ...]
    """Of a batch of each size; 0 at all of them where it is too little to count."""
    spent_s: float
    notes: tuple[str, ...] = ()


def measure_loading_times(
    workload: MeasuredTask,
    sizes: Sequence[int],
    step_s: Sequence[float],
    *,
    seed: int = 0,
    budget_s: float = 2.0,
    threads: Sequence[int | None] = (),
    busy: bool = False,
    example_s: float = 0.0,
    until: TimeLimit = NO_LIMIT,
) -> LoadingTimes:
    """Time the next batch of the task's own stream, at each size.

    With workers the clock runs from the first batch over as many as all workers load together, once or more, so that
    what they load side by side is counted at the pace at which it comes; as starting workers and filling their queues
    takes longer than that, every other size is timed, the largest among them, and those between follow from the line.
    Without, over three to eight batches: their mean, as examples may differ, but for tensors in memory their median.

    Args:
        workload: the task on its device.
        sizes: increasing micro-batch sizes, examples.
        step_s: seconds of computing a step of each size.
        seed: of the order of the examples.
        budget_s: no size but the first is begun that is expected to exceed it in all; larger sizes follow from the
            line through those that were timed, in proportion to the examples at the end.
        threads: of a step of each size; default: as many as there are.
        busy: whether other work disturbs the machine: tensors in memory are then cut by one thread, which waits for no
            other, and the 20th percentile counts.
        example_s: seconds to load an example in one process.
        until: no batch but the first two of the first size is waited for after it, and no size is begun that is
            expected to end after it. Where it comes too soon for a loader to be opened, the seconds are those of
            `example_s`, shared by the workers.

    Returns:
        Seconds of a batch of each size, and what the timing took.

    Cost: at each of them about two batches of every worker and one for those that are left when the workers end.
    """
    if not workload.in_memory and until.left_s < _STARTING_S:
        each_s = example_s / max(1, workload.loader_workers)
        said = f"no time was left to open the loader: batches are taken to need {duration(each_s)} for each example"
        return LoadingTimes(seconds=tuple(each_s * size for size in sizes), spent_s=0.0, notes=(said,))
    clock = workload.device.clock
    began, timed = clock(), list[tuple[int, float]]()
    notes, differ = list[str](), list[tuple[float, int, list[float]]]()
    stride = 2 if workload.loader_workers else 1
    for i in range((len(sizes) - 1) % stride, len(sizes), stride):
        size = sizes[i]
        if timed and _expected_s(workload, timed[-1], size) > min(budget_s - (clock() - began), until.left_s):
            notes.append(
                f"loading was timed up to batches of {timed[-1][0]}; beyond, it is taken to grow with the examples"
            )
            break
        in_one = busy and workload.in_memory
        with workload.device.using_threads(1 if in_one else threads[i] if threads else None):
            each = _timed(workload, size, seed, until)
        timed.append((size, low_quantile(each) if in_one else median(each) if workload.in_memory else fmean(each)))
        if not workload.in_memory and not busy:
            differ.append((max(each) / fmean(each), size, each))
    spent = clock() - began
    steps = dict(zip(sizes, step_s, strict=True))
    little = workload.in_memory and all(seconds < _NEGLIGIBLE * steps[size] for size, seconds in timed)
    if little or not all(seconds > 0 for _, seconds in timed):
        return LoadingTimes(seconds=(0.0,) * len(sizes), spent_s=spent)
    notes += _very_different(differ)
    model = fit_step_time(timed)
    known = dict(timed)
    return LoadingTimes(
        seconds=tuple(known.get(size) or model.seconds(size) for size in sizes), spent_s=spent, notes=tuple(notes)
    )


def _very_different(differ: Sequence[tuple[float, int, list[float]]]) -> list[str]:
    """Remark on batches of one size that take very different times, in a list; empty where none do."""
    share, size, each = max(differ, default=(0.0, 0, []))
    if share < _DIFFERENT:
        return []
    return [
        f"examples take very different times to load: of {len(each)} batches of {size} the slowest took "
        f"{duration(max(each))}, the fastest {duration(min(each))}; step times hold their mean, {duration(fmean(each))}"
    ]


def _timed(workload: MeasuredTask, size: int, seed: int, until: TimeLimit) -> list[float]:
    """Seconds of each of some batches, or of each round of all workers, a batch."""
    clock, workers = workload.device.clock, workload.loader_workers
    stream = workload.micro_batches(size, 1, seed)
    try:
        next(stream)
        each: list[float] = []
        while len(each) < _MOST and not (len(each) >= _FEWEST and sum(each) >= _LONG_S and not workers):
            started = clock()
            for _ in range(max(1, workers)):
                next(stream)
            each.append((clock() - started) / max(1, workers))
            if until.passed or (workers and sum(each) * workers >= _LONG_S):
                break
        return each
    finally:
        stream.close()


def _expected_s(workload: MeasuredTask, last: tuple[int, float], size: int) -> float:
    """Seconds that timing a size will take: the first batch, those that are timed, and one that a worker ends with."""
    batch = last[1] * size / last[0]
    workers = workload.loader_workers
    timed = math.ceil(min(_MOST, _LONG_S / batch)) if batch > 0 else _MOST
    return batch * (workers * (timed + 2) if workers else max(_FEWEST, timed) + 1)
