"""Disturbance of step times by what else the machine does: how it is recognised, and what the times are without it.

A step that is interrupted takes longer, never less; steps that were not interrupted tell its time, so long as there are
some. That is the 20th percentile of many steps, where their median may be one of interrupted ones. Threads of one step
wait for one another: where others have a processor, every step may be interrupted, and 0.1 ms take 112 ms for seconds
on end. One thread waits for nobody; so it is timed beside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

from ..fits.delays import is_delayed, is_starved, low_quantile
from ..wording import duration, percent
from .step import TimedStep

__all__ = ["BusyMachine", "TimedSize", "find_busy_machine"]

_SIZES_DELAYED = 0.5
"""Share of the sizes that must be disturbed, and at least two of them where there are two."""
_FIGHTING = 3.0
"""Steps of all threads in units of those of one thread: threads cost time to start, but not that much."""


@dataclass(frozen=True, kw_only=True)
class TimedSize:
    """Timed steps of one micro-batch size."""

    size: int
    steps: list[TimedStep] = field(default_factory=list)
    one_thread: list[TimedStep] = field(default_factory=list)
    """Steps with one thread; none where there is but one, or where they were not timed apart."""

    @property
    def low_s(self) -> float:
        """Low quantile of a step."""
        return low_quantile([step.seconds for step in self.steps])

    @property
    def mean_s(self) -> float:
        """Mean of a step."""
        return fmean(step.seconds for step in self.steps)

    @property
    def delay(self) -> float:
        """Mean in units of the low quantile."""
        return self.mean_s / self.low_s if self.low_s > 0 else 1.0

    @property
    def one_thread_low_s(self) -> float | None:
        """Low quantile of a step with one thread."""
        return low_quantile([step.seconds for step in self.one_thread]) if self.one_thread else None

    @property
    def fights(self) -> bool:
        """Whether even undelayed steps of all threads take far longer than one thread does."""
        return self.one_thread_low_s is not None and self.low_s >= _FIGHTING * self.one_thread_low_s

    @property
    def undisturbed_s(self) -> float:
        """A step as a quiet machine would take it: the low quantile, of one thread where threads fight."""
        return self.one_thread_low_s if self.fights and self.one_thread_low_s is not None else self.low_s


@dataclass(frozen=True, kw_only=True)
class BusyMachine:
    """What else the machine did while steps were timed, as far as the times show it."""

    worst: TimedSize
    """The size whose steps were delayed most."""
    fighting: TimedSize | None
    """The size at which threads waited for one another most."""
    processors: float | None
    """Processor time of all steps over their wall time; `None` where the device is not the processor."""
    steps: int
    """Timed at all sizes together, those of one thread included."""

    def in_words(self) -> str:
        """Sentence on what was seen and what was done, without a full stop."""
        worst = self.worst
        had = "" if self.processors is None else f" with {percent(self.processors)} of a processor"
        middle = median(step.seconds for step in worst.steps)
        sentence = (
            f"the machine was busy while steps were timed: at batch size {worst.size} the median step took "
            f"{duration(middle)}, the mean step {duration(worst.mean_s)}{had}. Step times are now 20th percentiles "
            f"of {self.steps} steps ({duration(worst.low_s)} at that size)"
        )
        if self.fighting is None or self.fighting.one_thread_low_s is None:
            return sentence
        return (
            f"{sentence}. Threads waited for one another (batch size {self.fighting.size}: "
            f"{duration(self.fighting.low_s)}, with one thread {duration(self.fighting.one_thread_low_s)}), and there "
            "the times are those of one thread. OMP_NUM_THREADS=1 avoids the waiting"
        )


def find_busy_machine(sizes: Sequence[TimedSize]) -> BusyMachine | None:
    """Busy machine, as far as the times of steps show; none on a machine that is quiet enough for their medians.

    The machine counts as busy in any of three cases. The steps of at least half of the sizes, and of two, took twice
    their 20th percentile on average: they waited as long as they computed. Or the process had less than 0.75 of one
    processor, though a step whose batch is there waits for nothing else, and at one size the mean is 1.25 times the
    20th percentile, for a task may wait of itself, for the same time in each step. Or the 20th percentile is three
    times that of one thread, at half of the sizes where one thread was timed.

    Args:
        sizes: each with its steps, at least one of each.

    Returns:
        What was seen of the other work, or `None`.
    """
    worst = max(sizes, key=lambda each: each.delay)
    delayed = sum(is_delayed(each.delay) for each in sizes)
    processors = _processors([step for each in sizes for step in each.steps])
    starved = is_starved(worst.delay, processors)
    compared, fighting = sum(bool(each.one_thread) for each in sizes), [each for each in sizes if each.fights]
    if not (
        delayed >= max(min(2, len(sizes)), math.ceil(_SIZES_DELAYED * len(sizes)))
        or starved
        or (fighting and len(fighting) >= _SIZES_DELAYED * compared)
    ):
        return None
    return BusyMachine(
        worst=worst,
        fighting=max(fighting, key=lambda each: each.low_s / (each.one_thread_low_s or math.inf), default=None),
        processors=processors,
        steps=sum(len(each.steps) + len(each.one_thread) for each in sizes),
    )


def _processors(steps: Sequence[TimedStep]) -> float | None:
    """Processor time over wall time of all the steps together."""
    wall = sum(step.seconds for step in steps)
    worked = [step.processor_s for step in steps if step.processor_s is not None]
    return sum(worked) / wall if worked and wall > 0 else None
