"""From a table of measurements to findings: the same state that a search comes to, so that one plan fits both.

Where batch sizes were run at several rates, the joint law of `fits.steps_to_target` is fitted, as in a search. Where
each has one rate, tuned or not, the law over rates is not identified, and `fits.untuned_steps` is fitted instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...fits.step_time import accumulation, draw_log_seconds
from ...fits.steps_to_target import Observation, StepsPosterior
from ...fits.untuned_steps import UntunedPosterior, UntunedPrior, fit_untuned
from ...store.records import Estimate
from ..state import Findings
from ..strategies.anchors import Decision, sizes_between
from .reading import Table
from .runs import RateRule

__all__ = ["TableFindings", "UntunedFindings"]

Array = NDArray[np.float64]

_EXTRAPOLATED = 8
"""Largest factor beyond the measured sizes at which a batch size may still be recommended."""
_WIDE = 32
"""And up to which the best one may lie."""
_REGRET_CUT = 5.0
_LEAST_TIME_SPREAD = 0.02
_RUN_PREFERRED = 0.02
_TOO_SLOW = 1.4
_TOO_WIDE = 8.0


@dataclass(frozen=True, kw_only=True)
class TableFindings(Findings):
    """What a table says, in the place of what a search has found; the rates are tuned by the joint law.

    Attributes:
        table: that was read.
        seen: what each run says.
        steps: to target of the runs at each batch size; `None`: never reached.
        examples_known: whether `examples` is the size of the training set, or stands in for it.
        times_known: whether step times are known.
    """

    table: Table
    seen: tuple[Observation, ...]
    steps: Mapping[int, Sequence[float | None]]
    examples_known: bool
    times_known: bool

    @cached_property
    def observations(self) -> list[Observation]:
        """What the runs say about steps to target."""
        return list(self.seen)

    @cached_property
    def batch_sizes(self) -> tuple[int, ...]:
        """Batch sizes to choose from."""
        return self._sizes(_EXTRAPOLATED)

    @cached_property
    def reached_at(self) -> tuple[int, ...]:
        """Batch sizes at which some run reached the target, ascending."""
        return tuple(b for b, runs in sorted(self.steps.items()) if any(s is not None for s in runs))

    @property
    def doubt(self) -> str | None:
        """Why no batch size can be recommended; `None`: one can."""
        only, *others = self.reached_at
        if others:
            return None
        return (
            f"only batch size {only} reached the target: one size cannot tell what another would need. "
            f"Safe choice: {only}; measure at {2 * only} and {4 * only} too"
        )

    @cached_property
    def safe(self) -> int:
        """The measured batch size of least cost, by the runs alone."""
        sound = self._open(self.reached_at) or self.reached_at
        costs = {b: float(np.mean([s for s in self.steps[b] if s is not None])) * self.cost_of(b) for b in sound}
        return min(costs, key=lambda b: costs[b])

    def lr_at(self, batch_size: int) -> float:
        """The rate at a measured batch size that took the fewest steps."""
        found = [(sum(steps) / len(steps), lr) for (size, lr), steps in self.reached.items() if size == batch_size]
        return min(found)[1]

    def _open(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Those at which no run failed."""
        return tuple(b for b in sizes if None not in self.steps.get(b, ()))

    def _sizes(self, factor: int) -> tuple[int, ...]:
        """Powers of two, one and a half times them and the measured sizes, up to a factor outside these."""
        low, high = max(1, min(self.steps) // 8), factor * max(self.reached_at)
        cap = min(self.examples if self.examples_known else high, self.question.max_batch_size or high)
        inside = {b for b in sizes_between(1, 2**30) if low <= b <= min(high, cap)}
        return tuple(sorted(inside | {b for b in self.steps if b <= cap} | ({cap} if cap < high else set())))


@dataclass(frozen=True, kw_only=True)
class UntunedFindings(TableFindings):
    """What a table says where each batch size had one rate: those rates are taken as they are.

    Attributes:
        rates: of the table.
    """

    rates: RateRule

    @property
    def law(self) -> str:
        """What steps are predicted by, in words."""
        return "law of steps against batch size, rates as they were, fitted to the table"

    @property
    def misfit(self) -> float:
        """Nothing more: what the law misses is part of the belief."""
        return 0.0

    def step_time_spread(self, batch_size: int) -> float:
        """Standard deviation of log seconds."""
        if not self.times_known:
            return 0.0
        return max(_LEAST_TIME_SPREAD, float(self._log_seconds((batch_size,)).std()))

    @cached_property
    def belief(self) -> StepsPosterior:
        """About steps to target."""
        grain = float(self.examples) if self.table.counts_whole_epochs else 0.0
        prior = UntunedPrior.for_rates(self.rates.slope)
        return _Belief.of(fit_untuned(self.steps, prior, grain=grain, seed=self.question.seed), self.rates)

    def decide(
        self,
        *,
        batch_sizes: tuple[int, ...] | None = None,
        cost: Callable[[int], float] | None = None,
        known: Mapping[tuple[int, float], float] | None = None,
        failed: Collection[tuple[int, float]] = (),
    ) -> Decision:
        """The batch size of least expected regret; a measured one is preferred to one that is better by under 2 %.

        Batch sizes at which some run never reached the target are not chosen, unless no others are asked for.
        """
        asked = batch_sizes or self.batch_sizes
        sizes = tuple(b for b in asked if None not in self.steps.get(b, ())) or asked
        regret = self._regret(sizes, cost)
        expected = regret.mean(axis=0)
        measured = [
            i for i, b in enumerate(sizes) if b in self.steps and expected[i] <= expected.min() + _RUN_PREFERRED
        ]
        index = min(measured or [int(expected.argmin())], key=lambda i: float(expected[i]))
        return Decision(
            batch_size=sizes[index],
            lr=self.rates.at(sizes[index]),
            expected_regret=float(expected[index]),
            probability_within_5_percent=float((regret[:, index] <= 0.05).mean()),
        )

    @cached_property
    def candidate(self) -> Decision:
        """The choice of least expected regret."""
        return self.decide()

    @cached_property
    def decision(self) -> Decision:
        """What is answered."""
        return self.candidate

    @cached_property
    def best_batch_size(self) -> Estimate:
        """Where the best batch size lies."""
        sizes = self._within_reach
        best = np.array(sizes)[self._log_cost(sizes).argmin(axis=1)]
        low, value, high = (float(v) for v in np.quantile(best, (0.05, 0.5, 0.95), method="nearest"))
        n = len(self.observations)
        return Estimate(value=value, low=low, high=high, n=n, unit="examples", method=self.law)

    @property
    def doubt(self) -> str | None:
        """Why no batch size can be recommended; `None`: one can."""
        if (too_few := super().doubt) is not None:
            return too_few
        guess = self.decision.batch_size
        risk = float((self._regret((guess,), None)[:, 0] > _TOO_SLOW - 1.0).mean())
        low, high = self.best_batch_size.low or 1.0, self.best_batch_size.high or math.inf
        if risk <= 0.5 or high <= _TOO_WIDE * low:
            return None
        further = 4 * max(self.reached_at) if high > max(self.reached_at) else round(math.sqrt(low * high))
        return (
            f"the data cannot say: the best batch size lies between {low:.0f} and {high:.0f} (90 %), and the best "
            f"guess, {guess}, is more likely than not over {_TOO_SLOW} times as dear as the best. "
            f"Safe choice: {self.safe}, the best of those that were measured; measure at about {further} too"
        )

    @cached_property
    def _within_reach(self) -> tuple[int, ...]:
        wide = self._sizes(_WIDE)
        return self._open(wide) or wide

    def _regret(self, sizes: tuple[int, ...], cost: Callable[[int], float] | None) -> Array:
        """Cost ÷ the draw's least cost within reach - 1; shape (draws, sizes)."""
        least = self._log_cost(self._within_reach, cost).min(axis=1, keepdims=True)
        return np.clip(np.expm1(np.minimum(self._log_cost(sizes, cost) - least, 10.0)), 0.0, _REGRET_CUT)

    def _log_cost(self, sizes: tuple[int, ...], cost: Callable[[int], float] | None = None) -> Array:
        """Log of what a training costs; shape (draws, sizes)."""
        steps = self.belief.log_best_steps(np.array(sizes))
        if cost is None and not self.question.counts_examples:
            return steps + self._log_seconds(sizes)
        price = cost or self.cost_of
        return steps + np.log([price(b) for b in sizes])

    def _log_seconds(self, sizes: tuple[int, ...]) -> Array:
        """Log of a step's seconds, for the draws of the belief."""
        most = self.bench.largest_micro_batch_size
        micro, parts = np.array([accumulation(b, most) for b in sizes]).T
        points = self.bench.profile.step_time_s
        drawn = draw_log_seconds(points, micro.tolist(), draws=len(self.belief.draws), seed=self.question.seed + 1)
        return drawn + np.log(parts)


@dataclass(frozen=True)
class _Belief(StepsPosterior):
    """The law of batch size alone, where a belief about batch size and rate is asked for."""

    posterior: UntunedPosterior
    rates: RateRule

    @classmethod
    def of(cls, posterior: UntunedPosterior, rates: RateRule) -> _Belief:
        return cls(posterior.draws, posterior.observations, posterior, rates)

    def log_best_steps(self, batch_size: ArrayLike) -> Array:
        return self.posterior.log_steps(batch_size)

    def log_best_lr(self, batch_size: ArrayLike) -> Array:
        size = np.asarray(batch_size, dtype=float)
        rates = np.log([self.rates.at(float(b)) for b in size.ravel()]).reshape(size.shape)
        return np.broadcast_to(rates, (len(self.draws), *size.shape))

    def log_steps(self, batch_size: ArrayLike, lr: ArrayLike) -> Array:
        return self.posterior.log_steps(batch_size)

    def spread(self, batch_size: ArrayLike, lr: ArrayLike) -> Array:
        return np.full((len(self.draws), *np.shape(batch_size)), self.posterior.seed_spread)

    def critical_batch_size(self) -> Estimate:
        return self.posterior.critical_batch_size()

    def knee_exponent(self) -> Estimate:
        return self.posterior.knee_exponent()
