"""Clock of one run: what a step took in it, how well that is known, and whether other work delayed it.

A run is a row of stretches, from one evaluation to the next. Its first steps do not count: workers start in them, and
what they load ahead comes at once. Where steps were timed one by one, those in which something was measured do not. Nor
does a single step between two evaluations, where others are left: it finds what the evaluation left in the caches.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..store.records import Row
from .curves import spread_of_paces
from .delays import is_delayed, is_starved, low_quantile

__all__ = ["RunClock", "run_clock"]

_FIRST_STEPS = 5
"""As many are left out, where no fewer are left; else the first stretch alone."""


@dataclass(frozen=True, kw_only=True)
class RunClock:
    """What a run's own clock says of a step, the next batch from the loader included and evaluations apart.

    Attributes:
        step_s: mean seconds.
        spread: standard error of its logarithm.
        delay: mean of the steps over their 20th percentile, as far as evaluations tell it.
        processors: processor time of the process over wall time; `None`: not known.
        busy: whether other work on the machine delayed the run.
        upper: whether `step_s` holds something beside a step, so that a step takes at most that long.
    """

    step_s: float
    spread: float
    delay: float
    processors: float | None
    busy: bool
    upper: bool


@dataclass(frozen=True, kw_only=True)
class _Stretch:
    begin: int
    steps: int
    wall_s: float
    step_s: float
    low_s: float
    processor_s: float | None
    measured: bool

    @property
    def cold(self) -> bool:
        """Whether it is a single step, with the caches and threads that an evaluation left."""
        return self.steps == 1


def run_clock(rows: Sequence[Row], *, waits: bool = False) -> RunClock | None:
    """What a run's own clock says of a step; `None` where no stretch is left that counts.

    The run counts as delayed by other work by the rules of `fits.delays`: its steps took twice their 20th percentile on
    average; or the process had less than 0.75 of a processor, in steps that were not all equal. A run that waits for a
    loader is not judged: it waits of itself, and examples may differ.

    Args:
        rows: of the run.
        waits: whether its steps wait for a loader.

    Example:
        >>> rows = [{"kind": "evaluation", "step": s, "device_seconds": 0.5 + 0.1 * s} for s in (0, 1, 5, 10, 20)]
        >>> clock = run_clock(rows)
        >>> round(clock.step_s, 6), clock.spread, clock.busy
        (0.1, 0.02, False)
    """
    counted = _counted(_stretches(rows))
    if not counted:
        return None
    stretches = [each for each in counted if not each.cold] or counted
    weights = [float(each.steps) for each in stretches]
    paces = [each.step_s for each in stretches]
    step_s = sum(w * pace for w, pace in zip(weights, paces, strict=True)) / sum(weights)
    delay = step_s / low_quantile([each.low_s for each in stretches], weights)
    worked = [each.processor_s for each in stretches if each.processor_s is not None]
    processors = sum(worked) / sum(each.wall_s for each in stretches) if len(worked) == len(stretches) else None
    return RunClock(
        step_s=step_s,
        spread=spread_of_paces([(w, math.log(pace)) for w, pace in zip(weights, paces, strict=True)]),
        delay=delay,
        processors=processors,
        busy=not waits and (is_delayed(delay) or is_starved(delay, processors)),
        upper=any(each.measured or each.cold for each in stretches),
    )


def _counted(stretches: Sequence[_Stretch]) -> list[_Stretch]:
    """Stretches without the first steps of the run."""
    late = [each for each in stretches if each.begin >= _FIRST_STEPS]
    if sum(each.steps for each in late) >= _FIRST_STEPS:
        return late
    return [each for each in stretches if each.begin > 0]


def _stretches(rows: Sequence[Row]) -> list[_Stretch]:
    evaluations = [row for row in rows if row["kind"] == "evaluation"]
    measured = [int(row["step"]) for row in rows if row["kind"] == "noise"]
    found: list[_Stretch] = []
    for before, after in itertools.pairwise(evaluations):
        begin, steps = int(before["step"]), int(after["step"]) - int(before["step"])
        wall_s = float(after["device_seconds"]) - float(before["device_seconds"])
        if steps < 1 or wall_s <= 0:
            continue
        own, low = after.get("step_s"), after.get("low_step_s")
        first, last = before.get("processor_seconds"), after.get("processor_seconds")
        found.append(
            _Stretch(
                begin=begin,
                steps=steps,
                wall_s=wall_s,
                step_s=own or wall_s / steps,
                low_s=low or own or wall_s / steps,
                processor_s=None if first is None or last is None else last - first,
                measured=own is None and any(begin <= step < begin + steps for step in measured),
            )
        )
    return found
