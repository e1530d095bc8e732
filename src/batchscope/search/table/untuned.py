"""The law of a table in which each batch size was run at one learning rate: those learning rates are taken as they are.

The law over learning rates is not identified then, and `fits.untuned_steps` is fitted instead of the joint law.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...fits.posterior import credible_interval
from ...fits.untuned_steps import UntunedPosterior, UntunedPrior, fit_untuned
from ...store.records import Estimate, Evidence
from ...wording import with_interval
from ..law import Law
from ..strategies.anchors import Choices, Decision
from .runs import LrRule, Runs

__all__ = ["OneLrPosterior", "UntunedFit"]

Array = NDArray[np.float64]

_NAME = "law of steps against batch size, learning rates as they were, fitted to the table"
_REGRET_CUT = 5.0
_RUN_PREFERRED = 0.02


@dataclass(frozen=True, kw_only=True)
class OneLrPosterior:
    """Posterior of steps to target where each batch size has one learning rate, the best that is known of.

    Attributes:
        steps: posterior of the steps against batch size.
        lrs: learning rates of the batch sizes.
    """

    steps: UntunedPosterior
    lrs: LrRule

    def log_best_steps(self, batch_size: ArrayLike) -> Array:
        """Logarithm of the steps; shape (n, *batch_size.shape)."""
        return self.steps.log_steps(batch_size)

    def log_best_lr(self, batch_size: ArrayLike) -> Array:
        """Logarithm of the learning rate of the table, the same for all draws."""
        size = np.asarray(batch_size, dtype=float)
        lrs = np.log([self.lrs.at(float(b)) for b in size.ravel()]).reshape(size.shape)
        return np.broadcast_to(lrs, (len(self.steps.draws), *size.shape))

    def log_steps(self, batch_size: ArrayLike, lr: ArrayLike) -> Array:
        """Logarithm of the steps at the learning rate of the table, whatever the given one."""
        return self.steps.log_steps(batch_size)

    def spread(self, batch_size: ArrayLike, lr: ArrayLike) -> Array:
        """Standard deviation of the logarithm of the steps over repeats, the same everywhere."""
        return np.full((len(self.steps.draws), *np.shape(batch_size)), self.steps.seed_spread)

    def critical_batch_size(self) -> Estimate:
        """Critical batch size, in examples."""
        return self.steps.critical_batch_size()

    def knee_exponent(self) -> Estimate:
        """Exponent of the knee between few steps and few examples."""
        return self.steps.knee_exponent()


@dataclass(frozen=True, kw_only=True)
class UntunedFit:
    """The law of steps against batch size alone, fitted to the runs of a table, and the decision that it leads to.

    Attributes:
        posterior: of the law.
        runs: of the table.
        within_reach: batch sizes among which the best one may lie; regret counts from the best of them.
    """

    posterior: OneLrPosterior
    runs: Runs
    within_reach: tuple[int, ...]

    @classmethod
    def of(cls, runs: Runs, within_reach: tuple[int, ...], *, grain: float, seed: int) -> UntunedFit:
        """The fit to runs of which at least one reached the target; `grain` and `seed` as for `fit_untuned`."""
        steps = fit_untuned(runs.steps, UntunedPrior.for_rates(runs.lrs.slope), grain=grain, seed=seed)
        posterior = OneLrPosterior(steps=steps, lrs=runs.lrs)
        return cls(posterior=posterior, runs=runs, within_reach=runs.without_failure(within_reach))

    @property
    def law(self) -> Law:
        """The law, as a state takes it; what it misses is part of the posterior."""
        critical, knee = self.posterior.critical_batch_size(), self.posterior.knee_exponent()
        trade_off = Evidence(
            statement="examples to the target follow E_min (1 + (B/B_c)^a)^(1/a) with a critical batch size of "
            f"{with_interval(critical)} examples and a knee exponent of {with_interval(knee)}, and rise without "
            "bound towards batch sizes that are too small or too large for their learning rates",
            tag="fitted",
            source="McCandlish et al. 2018, equation 2.11, with a knee exponent and two walls; 90 % credible intervals",
        )
        return Law(posterior=self.posterior, name=_NAME, misfit=0.0, decide=self.decide, statements=(trade_off,))

    def decide(self, choices: Choices, preferred: object = None, failed: object = None) -> Decision:
        """The batch size of minimum expected regret; a measured one is preferred to one that is better by under 2 %.

        Batch sizes at which some run never reached the target are not chosen, unless no others can be. So the table
        alone tells what is preferred or failed, and these arguments change nothing.
        """
        sizes = self.runs.without_failure(choices.batch_sizes)
        regret = self.regret(sizes, choices)
        expected = regret.mean(axis=0)
        close = expected <= expected.min() + _RUN_PREFERRED
        measured = [i for i, b in enumerate(sizes) if b in self.runs.steps and close[i]]
        index = min(measured or [int(expected.argmin())], key=lambda i: float(expected[i]))
        return Decision(
            batch_size=sizes[index],
            lr=self.runs.lrs.at(sizes[index]),
            expected_regret=float(expected[index]),
            probability_within_5_percent=float((regret[:, index] <= 0.05).mean()),
        )

    def regret(self, batch_sizes: tuple[int, ...], choices: Choices) -> Array:
        """Cost ÷ the draw's lowest cost within reach - 1; shape (draws, batch sizes)."""
        lowest = self._log_cost(self.within_reach, choices).min(axis=1, keepdims=True)
        return np.clip(np.expm1(np.minimum(self._log_cost(batch_sizes, choices) - lowest, 10.0)), 0.0, _REGRET_CUT)

    def best_batch_size(self, choices: Choices) -> Estimate:
        """The batch size of lowest cost within reach, in examples, with its 90 % credible interval."""
        best = np.array(self.within_reach)[self._log_cost(self.within_reach, choices).argmin(axis=1)]
        return credible_interval(best, n=len(self.runs.observed), unit="examples", method=_NAME, discrete=True)

    def _log_cost(self, batch_sizes: tuple[int, ...], choices: Choices) -> Array:
        """Logarithm of what a training costs; shape (draws, batch sizes)."""
        return self.posterior.log_best_steps(np.array(batch_sizes)) + choices.log_step_cost(batch_sizes)
