"""Time of a training step against micro-batch size: sizes from small to large, and again in rounds over all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, TypeVar

from ..fits.delays import low_quantile
from ..fits.step_time import fit_step_time
from ..store.records import Reading
from ..wording import duration
from .disturbance import BusyMachine, TimedSize, find_busy_machine
from .loading_times import measure_loading_times
from .random_state import preserved_random_state
from .step import MeasuredStep, MeasuredTask, TimedStep
from .threads import one_thread_is_faster
from .time_limit import NO_LIMIT, TimeLimit

__all__ = ["Throughput", "grid", "in_turn", "measure_step_times", "time_step"]

Timed = TypeVar("Timed")

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
_QUIET_ROUNDS, _MOST_ROUNDS = 3, 20
"""After the first steps of each size: on a quiet machine, and on a busy one."""
_SETTLED = 0.05
"""On a busy machine rounds end, after three, once no size's time changes by more than this share in one of them."""
_BUSY_S = 8.0
"""Of all steps; no round is begun on a busy machine beyond."""
_ROUND_S = 0.01
"""Seconds of steps of each size in a round, one step at least."""
_STEPS_IN_A_ROUND = 10
_SHARE_FOR_ONE_THREAD = 0.05
"""Of the budget: sizes at which a step with one thread might take longer are not timed with one."""
_SHARE_AT_FIRST = 0.25
"""The same of the first size, which decides whether any is: threads that wait for one another take hundreds of ms."""
_SHARE_FOR_QUIET_ROUNDS = 0.05
"""Of the budget: rounds that do not fit are left out, so long as the machine looks quiet."""


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Result of the step-time bench."""

    readings: tuple[Reading, ...]
    device_seconds: float
    notes: tuple[str, ...]
    disturbance: str = ""
    """What the steps showed of other work on the machine, and what was done about it; empty: it was quiet."""
    short: bool = False
    """Whether the time was too short for all that would have been measured."""


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
    until: TimeLimit = NO_LIMIT,
    progress: Callable[[str], None] | None = None,
) -> Throughput:
    """Time full training steps at each micro-batch size: their computing, its gradient part, and loading the batch.

    Each size: a warm-up step, then three to eight timed ones on one batch of real examples, the fewer the longer they
    take. Then rounds over all sizes in turn, so that what else the machine does falls on all of them: three rounds of
    up to ten steps a size, where they fit into a twentieth of the budget; while the machine looks busy
    (`disturbance.find_busy_machine`) up to 20, within the budget and 8 s, until the times settle. The time of a size is
    the median of all its steps; on a busy machine their 20th percentile, or that of a larger size where it is less.
    Where several threads share a step, sizes whose steps are short are timed with one thread beside; that time counts
    where it is clearly shorter (`threads.one_thread_is_faster`), and the reading says so.

    The clock waits for the device. Loading is timed apart (`loading_times`), and the step time is that of both: the
    longer of the two where workers load, else their sum.

    Args:
        workload: the task on its device.
        sizes: increasing micro-batch sizes, examples; those that do not fit must have been left out.
        seed: of the weights and the batches; the caller's generators are left as they were.
        budget_s: no size and no round is begun that is expected to exceed this in all; a quarter of it is for loading.
        until: the same by the clock, with making batches; from there on nothing is begun but a first step, if none is
            timed yet, and loading a first batch.
        progress: receives a line before each size.

    Returns:
        One reading a size (median, median absolute deviation, 20th percentile), and the seconds of all steps, warm-up
        and loading included, except for the very first step, in which libraries are loaded.

    Cost: four to nine steps a size, on a quiet machine a twentieth of the budget more at most, and loading a few
    batches of each size. A batch of each size is in memory during the rounds, but on an accelerator not the largest,
    which has no rounds there. Ends beyond 16 knees, where the time is a straight line.
    """
    notes: list[str] = []
    with preserved_random_state(seed):
        timing = until.share(1.0 - _SHARE_FOR_LOADING)
        steps, short = _Steps(workload, sizes[0], seed, timing), False
        for size in sizes:
            left_s = min(budget_s - steps.spent_s, timing.left_s)
            if steps.sizes and (reason := _reason_to_stop(steps.sizes, size, left_s)):
                notes.append(reason)
                short = left_s < budget_s - steps.spent_s
                break
            if progress:
                progress(f"time of a step of batch size {size}")
            steps.time_next(size, budget_s)
        disturbance = steps.take_rounds(budget_s, progress)
        threads = None if workload.device.works_ahead else workload.device.threads
        readings = _readings(steps.sizes, threads, busy=disturbance is not None)
        computing = [r.compute_time_s or 0.0 for r in readings]
        loading = measure_loading_times(
            workload,
            [r.micro_batch_size for r in readings],
            computing,
            seed=seed,
            budget_s=_SHARE_FOR_LOADING * budget_s,
            threads=[r.num_threads for r in readings],
            busy=disturbance is not None,
            example_s=steps.example_s,
            until=until,
        )
    busy = disturbance.in_words() if disturbance else ""
    return Throughput(
        readings=tuple(
            replace(
                r, step_time_s=max(compute, load) if workload.loader_workers else compute + load, loading_time_s=load
            )
            for r, compute, load in zip(readings, computing, loading.seconds, strict=True)
        ),
        device_seconds=steps.spent_s + loading.spent_s,
        notes=(*filter(None, [busy]), *_faster_with_one(readings, steps.sizes, threads), *notes, *loading.notes),
        disturbance=busy,
        short=short or until.passed,
    )


class _Steps:
    """Timed steps of each size, as they are made.

    Attributes:
        sizes: that have been timed, with their steps.
        spent_s: seconds of all steps, warm-up included, but for the very first one.
    """

    def __init__(self, workload: MeasuredTask, first_size: int, seed: int, until: TimeLimit) -> None:
        self._disposable: MeasuredStep = workload.disposable(seed)
        self._device, self._batches = workload.device, list[Any]()
        self.sizes, self.spent_s, self._until = list[TimedSize](), 0.0, until
        self._first = time_step(self._disposable, self._disposable.draw(first_size), parts=True)

    @property
    def example_s(self) -> float:
        """Seconds to load an example in one process."""
        return self._disposable.loading_s

    def time_next(self, size: int, budget_s: float) -> None:
        """Time a few steps of the next size, after those that are not counted.

        Where threads fought at the size before, a single step of all threads is enough: it may take a thousand times as
        long as it should, and that of one thread tells how long.
        """
        if not self.sizes and self._until.passed:
            self.sizes.append(TimedSize(size=size, steps=[self._first]))
            return
        enough_s = _TIME_FOR_A_SIZE * self.sizes[0].undisturbed_s if self.sizes else budget_s
        fight = bool(self.sizes) and self.sizes[-1].fights
        batch = self._disposable.draw(size)
        began, new = self._device.clock(), TimedSize(size=size)
        with self._device.using_threads(1) if fight else nullcontext():
            for _ in range(_WARM_UP_STEPS):
                time_step(self._disposable, batch)
        while not (fight and new.steps) and not _enough([step.seconds for step in new.steps], enough_s):
            new.steps.append(time_step(self._disposable, batch, parts=True))
            if self._until.passed:
                break
        share = _SHARE_FOR_ONE_THREAD if self.sizes else _SHARE_AT_FIRST
        if self._one_thread_expected_s(new) <= min(share * budget_s, self._until.left_s):
            with self._device.using_threads(1):
                time_step(self._disposable, batch)
                new.one_thread.append(time_step(self._disposable, batch, parts=True))
        self.spent_s += self._device.clock() - began
        self.sizes.append(new)
        if not self._device.works_ahead:
            self._batches.append(batch)

    def take_rounds(self, budget_s: float, progress: Callable[[str], None] | None) -> BusyMachine | None:
        """Time steps of all sizes in turn, round by round, and say whether the machine was busy."""
        if self._device.works_ahead:
            self._batches = [self._disposable.draw(each.size) for each in self.sizes[:-1]]
        found, rounds, before = find_busy_machine(self.sizes), 0, self.spent_s
        announced = settled = False
        while self._batches and rounds < (_MOST_ROUNDS if found and not settled else _QUIET_ROUNDS):
            each_s = (self.spent_s - before) / rounds if rounds else self._round_expected_s()
            limit = min(budget_s, _BUSY_S if found else before + _SHARE_FOR_QUIET_ROUNDS * budget_s)
            if self.spent_s + each_s > limit or each_s > self._until.left_s:
                break
            if found and progress and not announced:
                progress("the machine is busy: more steps are timed")
                announced = True
            lows = [each.undisturbed_s for each in self.sizes]
            self._take_round()
            settled = all(
                abs(each.undisturbed_s - low) <= _SETTLED * low for each, low in zip(self.sizes, lows, strict=True)
            )
            found, rounds = find_busy_machine(self.sizes), rounds + 1
        return found

    def _take_round(self) -> None:
        """Time steps of each size with all threads, and then with one."""
        began = self._device.clock()

        def timed(index: int) -> TimedStep:
            return time_step(self._disposable, self._batches[index], parts=True)

        counts, alone = self._counts()
        for each, new in zip(self.sizes, in_turn(timed, counts), strict=False):
            each.steps.extend(new)
        with self._device.using_threads(1) if any(alone) else nullcontext():
            for each, new in zip(self.sizes, in_turn(timed, alone), strict=False):
                each.one_thread.extend(new)
        self.spent_s += self._device.clock() - began

    def _one_thread_expected_s(self, new: TimedSize) -> float:
        """Seconds of a step with one thread, at most; infinite where there is but one, or the size before had none."""
        if self._device.threads == 1:
            return math.inf
        if not self.sizes:
            return self._device.threads * new.low_s
        before = self.sizes[-1]
        return math.inf if before.one_thread_low_s is None else before.one_thread_low_s * new.size / before.size

    def _counts(self) -> tuple[list[int], list[int]]:
        """Steps of each size in a round, of all threads and of one; a size takes no longer than any larger one."""
        sizes = self.sizes[: len(self._batches)]
        counts = [_steps_in_a_round(min(larger.low_s for larger in sizes[i:])) for i in range(len(sizes))]
        return counts, [_steps_in_a_round(s) if (s := each.one_thread_low_s) is not None else 0 for each in sizes]

    def _round_expected_s(self) -> float:
        counts, alone = self._counts()
        return sum(
            n * each.low_s + m * (each.one_thread_low_s or 0.0)
            for each, n, m in zip(self.sizes, counts, alone, strict=False)
        )


def _steps_in_a_round(step_s: float) -> int:
    return max(1, min(_STEPS_IN_A_ROUND, int(_ROUND_S / step_s))) if step_s > 0 else 1


def _reading(timed: TimedSize, threads: int | None, *, at_most_s: float | None) -> Reading:
    """Reading of one size: the median of its steps; on a busy machine their low quantile.

    Args:
        timed: the size, with its steps.
        threads: that torch has; `None` where steps run elsewhere.
        at_most_s: what a larger size takes on a busy machine; `None` on a quiet one.
    """
    busy = at_most_s is not None
    steps, alone = _counted(timed, busy=busy)
    typical = low_quantile if busy else median
    seconds = [step.seconds for step in steps]
    own, middle = typical(seconds), median(seconds)
    computing = own if at_most_s is None else min(own, at_most_s)
    share = computing / own if own > 0 else 1.0
    return Reading(
        micro_batch_size=timed.size,
        step_time_s=computing,
        compute_time_s=computing,
        step_time_mad_s=median(abs(each - middle) for each in seconds),
        step_time_median_s=median(step.seconds for step in timed.steps),
        step_time_low_s=timed.low_s,
        step_time_method=("20th percentile" if busy else "median") + (", one thread" if alone else ""),
        steps_timed=len(steps),
        gradient_time_s=min(computing, share * typical([step.gradient_s or 0.0 for step in steps])),
        num_threads=1 if alone else threads,
    )


def _counted(timed: TimedSize, *, busy: bool) -> tuple[list[TimedStep], bool]:
    """The steps that tell the time of a size, and whether they are those of one thread, because these are faster."""
    every, one = ([step.seconds for step in steps] for steps in (timed.steps, timed.one_thread))
    alone = one_thread_is_faster(every, one, low_quantile if busy else median)
    return (timed.one_thread if alone else timed.steps), alone


def _readings(sizes: Sequence[TimedSize], threads: int | None, *, busy: bool) -> list[Reading]:
    """Reading of each size; on a busy machine a size takes no longer than any larger one was seen to take."""
    lows = [low_quantile([step.seconds for step in _counted(each, busy=busy)[0]]) for each in sizes]
    return [_reading(each, threads, at_most_s=min(lows[i:]) if busy else None) for i, each in enumerate(sizes)]


def _faster_with_one(readings: Sequence[Reading], sizes: Sequence[TimedSize], threads: int | None) -> list[str]:
    """Remark on sizes at which one thread is faster than all, in a list; empty where none is."""
    faster = [
        (reading, timed)
        for reading, timed in zip(readings, sizes, strict=True)
        if threads is not None and threads > 1 and reading.num_threads == 1
    ]
    if not faster:
        return []
    reading, timed = max(faster, key=lambda pair: pair[1].low_s / (pair[1].one_thread_low_s or math.inf))
    where = ", ".join(str(each.micro_batch_size) for each, _ in faster)
    return [
        f"computing is faster with one thread than with {threads} at batch size {where} (at "
        f"{reading.micro_batch_size}: "
        f"{duration(median(step.seconds for step in timed.one_thread))} a step against "
        f"{duration(reading.step_time_median_s)}), so steps there are those of torch.set_num_threads(1)"
    ]


def _enough(steps: Sequence[float], enough_s: float) -> bool:
    if len(steps) < _ENOUGH_STEPS:
        return len(steps) >= _FEWEST_STEPS and sum(steps) >= _LONG_S
    middle = median(steps)
    steady = median(abs(s - middle) for s in steps) <= _STEADY * middle
    return steady or len(steps) >= _MOST_STEPS or sum(steps) >= enough_s


def _reason_to_stop(timed: Sequence[TimedSize], size: int, budget_s: float) -> str:
    """Reason why the next size is not timed; empty where it is."""
    points = [(each.size, each.undisturbed_s) for each in timed]
    last, seconds = points[-1]
    expected = seconds * size / last
    if expected * (_WARM_UP_STEPS + _FEWEST_STEPS) > budget_s:
        return f"sizes from {size} on were not timed: a step there was expected to take {expected:.3g} s"
    if len(points) >= _FEWEST_SIZES:
        knee = fit_step_time(points).hardware_knee
        if knee.high is not None and last >= _LINEAR_FROM * knee.high:
            return f"sizes from {size} on were not timed: beyond {last} examples the time grows in proportion"
    return ""


def time_step(disposable: MeasuredStep, batch: Any, *, parts: bool = False) -> TimedStep:
    """Time one full step; the device is waited for before and after it.

    Args:
        disposable: the model and its step.
        batch: on the device.
        parts: whether its gradient part is timed too. Where work is handed to the device ahead, looking at the clock in
            the middle of a step would slow it down: the gradient part is then timed in a pass of its own.
    """
    device = disposable.workload.device
    gradient_s = _time_gradient(disposable, batch) if parts and device.works_ahead else None
    worked, started = device.processor_seconds(), device.clock()
    disposable.optimizer.zero_grad(set_to_none=True)
    disposable.gradients(batch)
    if parts and not device.works_ahead:
        gradient_s = device.clock() - started
    disposable.update()
    seconds, worked_then = device.clock() - started, device.processor_seconds()
    return TimedStep(
        seconds=seconds,
        gradient_s=gradient_s,
        processor_s=None if worked is None or worked_then is None else worked_then - worked,
    )


def _time_gradient(disposable: MeasuredStep, batch: Any) -> float:
    """Seconds of the forward and backward pass."""
    clock = disposable.workload.device.clock
    started = clock()
    disposable.optimizer.zero_grad(set_to_none=True)
    disposable.gradients(batch)
    return clock() - started


def in_turn(timed: Callable[[int], Timed], steps: Sequence[int]) -> list[list[Timed]]:
    """Make one round: so many steps of the first size, then of the second, and so on; `timed` gets the index.

    >>> in_turn(str, [2, 1])
    [['0', '0'], ['1']]
    """
    return [[timed(i) for _ in range(count)] for i, count in enumerate(steps)]
