"""From a table of measurements to the state of a search, put together from other parts, so that one plan fits both.

Where batch sizes were run at several learning rates, the law is the joint one, as in a search. Where each has one,
tuned or not, it is that of `untuned`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...fits.step_time import accumulation, draw_log_seconds
from ...store.records import Bench, Environment, HardwareProfile
from ..question import Question
from ..state import Parts, Recorded, SearchState
from ..strategies.anchors import sizes_between
from .measurement import Table
from .runs import Runs
from .untuned import UntunedFit

__all__ = ["NO_LIMIT", "TableState", "bench_of", "state_of"]

Array = NDArray[np.float64]

NO_LIMIT = 2**30
"""Micro-batch size of hardware of whose memory nothing is known."""
_NOT_TIMED = ((1, 1.0),)
_EXTRAPOLATED = 8
"""Largest factor beyond the measured sizes at which a batch size may still be recommended."""
_WIDE = 32
"""Largest factor beyond them at which the best one may lie."""
_DRAWN_WITHIN = 30.0
_TOO_SLOW = 1.4
_TOO_WIDE = 8.0


@dataclass(frozen=True, kw_only=True)
class TableState:
    """A table of measurements and the state of a search that is made of it.

    Attributes:
        table: that was read.
        runs: of the table.
        state: for the plan.
        untuned: the fit, where each batch size has one learning rate; `None`: others have several, or no run got there.
    """

    table: Table
    runs: Runs
    state: SearchState
    untuned: UntunedFit | None

    @property
    def safe_pair(self) -> tuple[int, float]:
        """The measured batch size and learning rate of lowest cost, by the runs alone."""
        sound = self.runs.without_failure(self.runs.reached_at)
        costs = {b: _mean(self.runs.steps[b]) * self.state.cost_of(b) for b in sound}
        safe = min(costs, key=lambda b: costs[b])
        return safe, min((_mean(taken), lr) for (size, lr), taken in self.state.reached.items() if size == safe)[1]

    @property
    def doubt(self) -> str | None:
        """Why no batch size can be recommended; `None`: one can."""
        only, *others = self.runs.reached_at
        if not others:
            return (
                f"only batch size {only} reached the target: one size cannot tell what another would need. "
                f"Safe choice: {only}; measure at {2 * only} and {4 * only} too"
            )
        if self.untuned is None:
            return None
        guess, choices = self.state.decision.batch_size, self.state.choices()
        risk = float((self.untuned.regret((guess,), choices)[:, 0] > _TOO_SLOW - 1.0).mean())
        best = self.untuned.best_batch_size(choices)
        low, high = best.low or 1.0, best.high or math.inf
        if risk <= 0.5 or high <= _TOO_WIDE * low:
            return None
        largest = max(self.runs.reached_at)
        further = 4 * largest if high > largest else round(math.sqrt(low * high))
        return (
            f"the data cannot tell: the best batch size lies between {low:.0f} and {high:.0f} (90 % credible "
            f"interval), and the best guess, {guess}, more likely than not costs over {_TOO_SLOW} times the minimum. "
            f"Safe choice: {self.safe_pair[0]}, the best of those that were measured; measure at about {further} too"
        )


def state_of(
    table: Table,
    runs: Runs,
    question: Question,
    *,
    examples: int | None,
    bench: Bench | None,
    environment: Environment,
    notes: tuple[str, ...],
) -> TableState:
    """The state that a table stands for.

    Args:
        table: that was read.
        runs: of the table.
        question: what was asked.
        examples: in the training set; `None`: not known.
        bench: of the hardware that the answer is for; `None`: nothing is known of it.
        environment: of this process.
        notes: for whoever reads the plan.
    """
    timed, reached = bench is not None, bool(runs.reached_at)
    bench = bench or bench_of(table.name, _NOT_TIMED)
    untuned = None
    if reached and not runs.tuned:
        grain = float(examples or 1) if table.counts_whole_epochs else 0.0
        reach = _batch_sizes(runs, question, examples, _WIDE)
        untuned = UntunedFit.of(runs, reach, grain=grain, seed=question.seed)
    parts = Parts(
        observations=runs.observed,
        batch_sizes=_batch_sizes(runs, question, examples, _EXTRAPOLATED) if reached else (),
        law=untuned.law if untuned is not None else None,
        log_seconds=_log_seconds(bench, untuned, question.seed) if untuned is not None and timed else None,
    )
    state = SearchState(
        task=Path(table.name).stem,
        question=question,
        target=question.target,
        examples=examples,
        bench=bench,
        bench_counts=False,
        rate_range=None,
        runs=runs.stored,
        seconds=0.0,
        environment=environment,
        notes=notes,
        parts=parts,
        recorded=Recorded(
            step_times=timed,
            memory=bench.memory_bound or bool(bench.profile.peak_memory_bytes),
            lrs=runs.tuned or bool(runs.lrs.points),
            evaluations=False,
        ),
        drawn_within=_DRAWN_WITHIN,
    )
    return TableState(table=table, runs=runs, state=state, untuned=untuned)


def bench_of(name: str, step_times: tuple[tuple[int, float], ...]) -> Bench:
    """The hardware of a table, of which nothing but step times is known."""
    return Bench(
        profile=HardwareProfile(name=f"the hardware of {name}", step_time_s=step_times),
        readings=(),
        split=None,
        largest_micro_batch_size=NO_LIMIT,
        largest_verified=False,
    )


def _batch_sizes(runs: Runs, question: Question, examples: int | None, factor: int) -> tuple[int, ...]:
    """Powers of two, one and a half times them and the measured sizes, up to a factor outside these."""
    low, high = max(1, min(runs.steps) // 8), factor * max(runs.reached_at)
    cap = min(examples or high, question.max_batch_size or high)
    inside = {b for b in sizes_between(1, 2**30) if low <= b <= min(high, cap)}
    return tuple(sorted(inside | {b for b in runs.steps if b <= cap} | ({cap} if cap < high else set())))


def _log_seconds(bench: Bench, untuned: UntunedFit, seed: int) -> Callable[[Sequence[int]], Array]:
    """Log step times of batch sizes for the draws of the fit, as far as the timed sizes tell."""
    points, draws = bench.profile.step_time_s, len(untuned.posterior.steps.draws)

    def of(batch_sizes: Sequence[int]) -> Array:
        micro, parts = np.array([accumulation(b, bench.largest_micro_batch_size) for b in batch_sizes]).T
        return draw_log_seconds(points, micro.tolist(), draws=draws, seed=seed + 1) + np.log(parts)

    return of


def _mean(steps: Sequence[float | None]) -> float:
    """Mean over the runs that reached the target."""
    return float(np.mean([s for s in steps if s is not None]))
