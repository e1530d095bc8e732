"""What the rows of a table are: runs, steps to target by batch size, their learning rates, step times."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...fits.steps_to_target import Observation
from ...store.records import RunConfig, RunResult, RunStatus, Target
from ...store.runs import StoredRun, run_id
from .measurement import Measurement, Table
from .repeats import step_times_of

__all__ = ["LrRule", "Runs", "runs_of"]

_SAME_LR = 1e-6
_MOST_STORED = 100
"""Runs of a table that are kept one by one, for the page; of more, as many evenly spaced ones."""


@dataclass(frozen=True, kw_only=True)
class LrRule:
    """Learning rates of a table against batch size: as they were; between and beyond, straight in logarithms."""

    points: tuple[tuple[int, float], ...]
    """Batch size and learning rate, ascending; empty: no learning rate is known."""

    @property
    def slope(self) -> float | None:
        """Slope of the log learning rate against the log batch size; `None`: not known."""
        if len(self.points) < 2:
            return None
        sizes, lrs = np.log(np.array(self.points, dtype=float)).T
        return float(np.polyfit(sizes, lrs, 1)[0])

    def at(self, batch_size: float) -> float:
        """The learning rate at a batch size; 1 where none is known."""
        if not self.points:
            return 1.0
        measured = dict(self.points)
        if batch_size in measured:
            return measured[int(batch_size)]
        sizes, lrs = np.log(np.array(self.points, dtype=float)).T
        nearest = float(np.clip(math.log(batch_size), sizes[0], sizes[-1]))
        beyond = (self.slope or 0.0) * (math.log(batch_size) - nearest)
        return float(f"{math.exp(float(np.interp(nearest, sizes, lrs)) + beyond):.3g}")


@dataclass(frozen=True, kw_only=True)
class Runs:
    """The rows that are used, in every shape that is asked for.

    Attributes:
        stored: as a search would have kept them; of many, some.
        observed: as the joint law takes them.
        steps: to target, by batch size; `None`: never reached.
        step_times: seconds by batch size, the median over its rows.
        lrs: one learning rate a batch size; where there are several, of the best.
        tuned: whether at least two batch sizes were run at several learning rates.
        dropped: how many rows were left out because their batch size has a better learning rate.
        too_short: how many, because they were not followed as far as the longest run that reached the target.
        notes: what to say of the step times.
    """

    stored: tuple[StoredRun, ...]
    observed: tuple[Observation, ...]
    steps: Mapping[int, Sequence[float | None]]
    step_times: tuple[tuple[int, float], ...]
    lrs: LrRule
    tuned: bool
    dropped: int
    too_short: int = 0
    notes: tuple[str, ...] = ()

    @property
    def made(self) -> Mapping[int, float]:
        """Steps that all runs made together, by batch size, as far as they are known."""
        found: dict[int, float] = {}
        for seen in self.observed:
            found[seen.batch_size] = found.get(seen.batch_size, 0.0) + math.ceil(seen.steps)
        return found

    @property
    def reached_at(self) -> tuple[int, ...]:
        """Batch sizes at which some run reached the target, ascending."""
        return tuple(b for b, runs in sorted(self.steps.items()) if any(s is not None for s in runs))

    def without_failure(self, batch_sizes: Sequence[int]) -> tuple[int, ...]:
        """Those batch sizes at which no run failed; all of them where each had one that did."""
        return tuple(b for b in batch_sizes if None not in self.steps.get(b, ())) or tuple(batch_sizes)


def runs_of(table: Table, examples: int | None, target: Target) -> Runs:
    """The runs of a table.

    Args:
        table: that was read.
        examples: in the training set, where they are known.
        target: that all runs were after.

    Raises:
        TableError: times of a step contradict each other.
    """
    by_lr = _by_lr(table, examples)
    several = [size for size, lrs in by_lr.items() if len(lrs) > 1]
    complete = all(row.lr is not None for row in table.rows)
    tuned = len(several) > 1 and complete
    kept = table.rows
    if several and not tuned:
        best = {size: min(lrs, key=lambda lr: _typical(lrs[lr])) for size, lrs in by_lr.items()}
        kept = tuple(row for row in table.rows if _near(row.lr, best[row.batch_size]))
    lrs = _rule(by_lr)
    given = _longest(table, kept, examples)
    dropped = len(table.rows) - len(kept)
    followed = kept if tuned else tuple(row for row in kept if not _too_short(table, row, examples, given))
    too_short, kept = len(kept) - len(followed), followed
    steps: dict[int, list[float | None]] = {}
    for row in kept:
        steps.setdefault(row.batch_size, []).append(table.steps(row, examples))
    times, notes = _step_times(table, examples)
    return Runs(
        stored=tuple(_stored(table, row, examples, target, given) for row in _some(kept)),
        observed=tuple(_observed(table, row, examples, given, lrs, tuned) for row in kept),
        steps=steps,
        step_times=times,
        lrs=lrs,
        tuned=tuned,
        dropped=dropped,
        too_short=too_short,
        notes=notes,
    )


_Lrs = dict[float | None, list[float | None]]


def _by_lr(table: Table, examples: int | None) -> dict[int, _Lrs]:
    """Steps to target by batch size and learning rate."""
    found: dict[int, _Lrs] = {}
    for row in table.rows:
        lrs = found.setdefault(row.batch_size, {})
        same = row.lr if row.lr in lrs else next((lr for lr in lrs if _near(row.lr, lr)), row.lr)
        lrs.setdefault(same, []).append(table.steps(row, examples))
    return found


def _near(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=_SAME_LR)


def _typical(steps: Sequence[float | None]) -> tuple[float, float]:
    """The share of runs that failed, then the median of the others: less is better."""
    reached = [s for s in steps if s is not None]
    return 1.0 - len(reached) / len(steps), statistics.median(reached) if reached else math.inf


def _rule(by_lr: Mapping[int, _Lrs]) -> LrRule:
    recorded = {b: {lr: steps for lr, steps in lrs.items() if lr is not None} for b, lrs in by_lr.items()}
    best = {b: min(lrs, key=lambda lr: _typical(lrs[lr])) for b, lrs in recorded.items() if lrs}
    return LrRule(points=tuple(sorted(best.items())))


def _longest(table: Table, rows: Sequence[Measurement], examples: int | None) -> float:
    """Examples that the longest successful run read; what those that failed are taken to have been given."""
    reached = [(table.steps(row, examples), row.batch_size) for row in rows]
    return max((steps * size for steps, size in reached if steps is not None), default=1.0)


def _too_short(table: Table, row: Measurement, examples: int | None, given: float) -> bool:
    """Whether a run that never reached the target is known to have been given less than the longest that did."""
    if row.to_target is not None or row.length is None:
        return False
    return (table.in_steps(row, row.length, examples) or 0.0) * row.batch_size < (1 - _SAME_LR) * given


def _some(rows: Sequence[Measurement]) -> Sequence[Measurement]:
    """All rows, or as many evenly spaced ones as are kept."""
    if len(rows) <= _MOST_STORED:
        return rows
    return [rows[i * len(rows) // _MOST_STORED] for i in range(_MOST_STORED)]


def _step_times(table: Table, examples: int | None) -> tuple[tuple[tuple[int, float], ...], tuple[str, ...]]:
    times: dict[int, list[tuple[float, int]]] = {}
    for row in table.rows:
        seconds = table.step_time(row, examples)
        if seconds is not None:
            times.setdefault(row.batch_size, []).append((seconds, row.line))
    return step_times_of(table.name, times)


def _length(table: Table, row: Measurement, examples: int | None, given: float) -> float:
    """Steps that a run made, as far as they are known."""
    steps = table.steps(row, examples)
    if steps is not None:
        return steps
    followed = table.in_steps(row, row.length, examples)
    return given / row.batch_size if followed is None else followed


def _observed(
    table: Table, row: Measurement, examples: int | None, given: float, lrs: LrRule, tuned: bool
) -> Observation:
    return Observation(
        batch_size=row.batch_size,
        lr=row.lr if tuned and row.lr is not None else lrs.at(row.batch_size),
        steps=_length(table, row, examples, given),
        kind="censored" if row.to_target is None else "reached",
    )


def _stored(table: Table, row: Measurement, examples: int | None, target: Target, given: float) -> StoredRun:
    steps, seconds = table.steps(row, examples), table.step_time(row, examples)
    made = math.ceil(_length(table, row, examples, given))
    config = RunConfig(
        task=Path(table.name).stem,
        settings={"table": table.name, "line": row.line},
        batch_size=row.batch_size,
        micro_batch_size=row.batch_size,
        lr=row.lr or 0.0,
        seed=row.seed or 0,
        target=target,
        max_steps=max(1, made),
        device="",
        purpose="table",
    )
    status = RunStatus.OUT_OF_STEPS if steps is None else RunStatus.REACHED
    metrics = {target.metric: math.nan if steps is None else target.value}
    result = RunResult(
        status=status,
        message="never reached the target" if steps is None else status.meaning,
        steps=made,
        examples=made * row.batch_size,
        device_seconds=made * (seconds or 0.0),
        steps_to_target=steps,
        last=metrics,
        best=metrics,
        best_step=made,
        first={},
    )
    return StoredRun(id=run_id(config), config=config, rows=(), result=result)
