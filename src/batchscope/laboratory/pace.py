"""Pace of a laboratory: what runs cost here by the clock, with evaluations, probes, loading and set-up. Numbers only.

Before the first run there are step times and one timed evaluation; what a run adds to them is only known when some
were made. So whoever plans runs by their time plans again then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..search.question import as_option
from ..store.runs import StoredRun

__all__ = ["Pace", "RunTime", "budget_for", "pace_of", "run_time"]


@dataclass(frozen=True, kw_only=True)
class RunTime:
    """Time that one run took."""

    batch_size: int
    steps: int
    evaluations: int
    training_s: float
    """Of its training steps alone."""
    seconds: float
    """By the clock, from its set-up until it was stored."""


def run_time(run: StoredRun, seconds: float) -> RunTime:
    """The time of a run that was just made and took so many seconds."""
    found = [row for row in run.rows if row.get("kind") == "evaluation"]
    training_s = float(found[-1]["device_seconds"]) if found else 0.0
    return RunTime(
        batch_size=run.config.batch_size,
        steps=int(found[-1]["step"]) if found else 0,
        evaluations=len(found),
        training_s=training_s,
        seconds=max(seconds, training_s),
    )


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds of a step and of an evaluation, as runs had them."""

    runs: int
    """That it rests on; 0: it was only timed beforehand."""
    step_s: tuple[tuple[int, float], ...]
    """Batch size and seconds of a step, where runs were made."""
    step_factor: float
    """By which steps took longer than was measured before, over all runs: for the other batch sizes."""
    evaluation_s: float
    """Of an evaluation with all that is not a training step: probes, files, and the set-up in equal parts."""

    def of_step(self, before: Callable[[int], float]) -> Callable[[int], float]:
        """Seconds of a step at a batch size.

        Args:
            before: as they were measured before the first run.
        """
        known = dict(self.step_s)
        return lambda batch_size: known.get(batch_size) or self.step_factor * before(batch_size)


def pace_of(times: Iterable[RunTime], before: Callable[[int], float], evaluation_s: float) -> Pace:
    """The pace of some runs: sums over sums, so that long runs weigh more.

    Args:
        times: of the runs; none: the pace is as it was measured before.
        before: seconds of a step at a batch size, as they were measured before the first run.
        evaluation_s: seconds of an evaluation, as timed then.

    Example:
        >>> times = [RunTime(batch_size=8, steps=100, evaluations=5, training_s=2.0, seconds=3.0)]
        >>> pace = pace_of(times, lambda b: 0.01, 0.05)
        >>> pace.step_factor, pace.evaluation_s, pace.of_step(lambda b: 0.01)(8), pace.of_step(lambda b: 0.03)(64)
        (2.0, 0.2, 0.02, 0.06)
        >>> pace_of([], lambda b: 0.01, 0.05).evaluation_s
        0.05
    """
    made = list(times)
    steps: dict[int, list[RunTime]] = {}
    for each in made:
        if each.steps:
            steps.setdefault(each.batch_size, []).append(each)
    expected = math.fsum(t.steps * before(t.batch_size) for t in made)
    evaluations = sum(t.evaluations for t in made)
    return Pace(
        runs=len(made),
        step_s=tuple(
            (size, math.fsum(t.training_s for t in own) / sum(t.steps for t in own))
            for size, own in sorted(steps.items())
        ),
        step_factor=math.fsum(t.training_s for t in made) / expected if expected else 1.0,
        evaluation_s=math.fsum(t.seconds - t.training_s for t in made) / evaluations if evaluations else evaluation_s,
    )


def budget_for(seconds: float) -> str:
    """A budget that so many seconds fit into, as it is written on the command line.

    >>> budget_for(42.3), budget_for(200.0), budget_for(7300.0)
    ('43s', '4m', '122m')
    """
    return as_option(seconds if seconds < 90.0 else 60.0 * math.ceil(seconds / 60.0))
