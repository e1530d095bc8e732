"""The runs' own clocks against the bench: by how much a step in a training takes longer, or less, than it was timed.

The bench times steps on one batch, and loading when nothing is computed; a run has both at once. So where runs were
made on the hardware that the answer is for, their clocks correct the bench. For one batch size, with y the logarithm of
run over bench, s its standard error and t the relative spread of the bench:

    log factor = y v / (v + s²),   v = max(t², y² - s²)

What lies within the spreads is shrunk towards none, by both; what lies beyond them is taken from the run (positive-part
shrinkage, after James and Stein 1961). Between the batch sizes of runs the factor is interpolated in the logarithm of
the size, beyond them it is kept. Times of a busy machine count only where they are shorter. Numbers only, no torch; it
follows from stored rows and the kept bench alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..fits.run_clock import RunClock, run_clock
from ..fits.step_time import StepTime
from ..store.records import Bench
from ..store.runs import StoredRun
from ..wording import times

__all__ = ["NORMAL_90", "Correction", "clock_of_run", "correction_of"]

_LEAST_SPREAD = 0.02
"""Relative; a smaller difference is none."""
NORMAL_90 = 1.645
"""Standard deviations from the middle of a normal distribution to either end of its 90 % interval."""


@dataclass(frozen=True, kw_only=True)
class Correction:
    """Correction of the bench's step times by the runs' own clocks.

    Attributes:
        factors: batch sizes of runs whose clocks count, ascending, and the step time in training over that of the
            bench; empty: nothing is corrected.
        spreads: standard deviation of the logarithm of each.
        clear: whether run and bench differ by more than their 90 % intervals, at each.
    """

    factors: tuple[tuple[int, float], ...] = ()
    spreads: tuple[float, ...] = ()
    clear: tuple[bool, ...] = ()

    def spread(self, batch_size: int, bench_spread: float) -> float:
        """Relative spread of a corrected step time: that of the run where there is one, else of both.

        Example:
            >>> correction = Correction(factors=((16, 1.0), (64, 1.5)), spreads=(0.03, 0.04), clear=(False, True))
            >>> correction.spread(16, 0.5), correction.spread(128, 0.03)
            (0.03, 0.05)
        """
        if not self.factors:
            return bench_spread
        sizes = [size for size, _ in self.factors]
        own = float(np.interp(math.log(batch_size), np.log(sizes), self.spreads))
        return own if batch_size in sizes else math.hypot(own, bench_spread)

    def in_words(self) -> str:
        """Remark on the batch sizes at which runs and bench clearly differ; empty where there is none."""
        found = [pair for pair, clear in zip(self.factors, self.clear, strict=True) if clear]
        if not found:
            return ""
        size, factor = max(found, key=lambda pair: abs(math.log(pair[1])))
        return (
            f"by the runs' own clocks a step takes {times(factor)} as long as it was timed before them (at batch size "
            f"{size}, the most of {len(self.factors)}); times and choices count with the runs"
        )


def correction_of(runs: Sequence[StoredRun], bench: Bench, step_time: StepTime) -> Correction:
    """Correction that follows from the runs so far, each on the hardware of the bench."""
    found: dict[int, list[tuple[float, float]]] = {}
    for run in runs:
        size, clock = run.config.batch_size, clock_of_run(run, step_time)
        if clock is None:
            continue
        log_ratio = math.log(clock.step_s / step_time.of_batch(size))
        if log_ratio > 0 and (bench.disturbance or clock.busy or clock.upper):
            continue
        found.setdefault(size, []).append((log_ratio, clock.spread))
    sizes = tuple(sorted(found))
    corrected = [_corrected(found[size], step_time.spread_of_batch(size)) for size in sizes]
    return Correction(
        factors=tuple((size, math.exp(log_factor)) for size, (log_factor, _, _) in zip(sizes, corrected, strict=True)),
        spreads=tuple(spread for _, spread, _ in corrected),
        clear=tuple(clear for _, _, clear in corrected),
    )


def clock_of_run(run: StoredRun, step_time: StepTime) -> RunClock | None:
    """What a run's own clock says of a step; a step that needs a loader may wait for it."""
    return run_clock(run.rows, waits=step_time.loading is not None)


def _corrected(seen: Sequence[tuple[float, float]], bench_spread: float) -> tuple[float, float, bool]:
    """Log factor, its standard deviation, and whether the difference is clear, of the runs at one batch size."""
    weights = [1.0 / spread**2 for _, spread in seen]
    total = sum(weights)
    y = sum(w * ratio for w, (ratio, _) in zip(weights, seen, strict=True)) / total
    between = sum(w * (ratio - y) ** 2 for w, (ratio, _) in zip(weights, seen, strict=True)) / total
    square = max(1.0 / total, between / max(1, len(seen) - 1))
    variance = max(bench_spread**2, y**2 - square)
    kept = variance / (variance + square)
    clear = abs(y) > NORMAL_90 * (bench_spread + math.sqrt(square))
    return 0.0 if abs(y) <= _LEAST_SPREAD else y * kept, max(_LEAST_SPREAD, math.sqrt(kept * square)), clear
