"""Successive halving: many runs a little way, the best third of them further, until one is left.

The fixed-budget algorithm of Karnin, Koren & Somekh (2013), which Jamieson & Talwalkar (2016, algorithm 1) carry over
to the tuning of iterative training: no run's final value is needed, only how it compares on the way. It assumes that
the order on the way is that at the end; across batch sizes and learning rates this fails where low ones or small
batches look better early and worse late.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .space import Offer, Pair, Request, Space, Trial, cut_off, trial_at

__all__ = ["OFFER", "Halving", "Rung"]

_EXACT = 1.0 - 1e-9
_BUDGET = 6.0
"""In first runs. The last three configurations then get as far as the first run, if they are as fast."""


class Rung(NamedTuple):
    """How many runs go on, and up to which total cost each."""

    runs: int
    limit: float


@dataclass(frozen=True, kw_only=True)
class Halving:
    """Draws configurations at random and drops all but the best `1 / factor` of them at each rung.

    Cost: at most `budget` over all rungs, an equal share for each, and then what the last one still needs to its
    target. As the answer is a minimum time, no run goes on beyond the cost at which another has reached the target.

    Attributes:
        budget: cost of all rungs together.
        configurations: drawn at first.
        factor: runs on one rung ÷ runs on the next.

    Raises:
        ValueError: there is no budget, no configuration, or the factor drops nothing.
    """

    budget: float
    configurations: int = 27
    factor: int = 3

    def __post_init__(self) -> None:
        if self.budget <= 0 or self.configurations < 1 or self.factor < 2:
            raise ValueError(
                f"budget {self.budget:g}, configurations {self.configurations}, factor {self.factor}: "
                "they must be above 0, at least 1 and at least 2"
            )

    def rungs(self) -> list[Rung]:
        """The rungs: n / factor^k of n configurations reach rung k, rounded up; all get equal shares of the budget.

        Example:
            >>> [rung.runs for rung in Halving(budget=1.0).rungs()]
            [27, 9, 3]
        """
        runs = [self.configurations]
        while runs[-1] > 1:
            runs.append(math.ceil(runs[-1] / self.factor))
        rounds = len(runs) - 1
        limits = np.cumsum([self.budget / (rounds * number) for number in runs[:-1]]).tolist()
        return [Rung(number, limit) for number, limit in zip(runs[:-1], limits, strict=True)]

    def drawn(self, space: Space, seed: int) -> list[Pair]:
        """The configurations, no two the same; fewer where the space holds no more."""
        rng = np.random.default_rng(seed)
        pairs: dict[Pair, None] = {}
        for _ in range(100 * self.configurations):
            pairs[space.draw(rng)] = None
            if len(pairs) == self.configurations:
                break
        return list(pairs)

    def __call__(self, space: Space, trials: Sequence[Trial], seed: int) -> Request | None:
        """The first run of the lowest rung that is not complete; then the best that is left, to its end."""
        order, rungs = self.drawn(space, seed), self.rungs()
        fastest = cut_off(trials, 1.0)
        for number, (runs, limit) in enumerate(rungs, start=1):
            far = limit if fastest is None else min(limit, fastest)
            alive = order[:runs]
            for place, pair in enumerate(alive, start=1):
                if _goes_on(trial_at(trials, pair), far):
                    why = f"rung {number} of {len(rungs)}, run {place} of {len(alive)}"
                    return Request(batch_size=pair[0], lr=pair[1], limit=far, why=why)
            order = sorted(alive, key=lambda pair: _rank(trial_at(trials, pair), far)) + order[runs:]
        end = math.inf if fastest is None else fastest
        for batch_size, lr in order if fastest is None else order[:1]:
            if _goes_on(trial_at(trials, (batch_size, lr)), end):
                return Request(batch_size=batch_size, lr=lr, limit=fastest, why="the best of the last rung, to its end")
        return None


def _goes_on(trial: Trial | None, limit: float) -> bool:
    """Whether a run has not been made as far as the limit, and can be."""
    return trial is None or (trial.status == "stopped" and trial.cost < _EXACT * limit)


def _rank(trial: Trial | None, limit: float) -> tuple[int, float]:
    """How a run stood at a cost, whatever came later: at the target, or on its way, by its metric, or failed."""
    if trial is None:
        return 3, 0.0
    if trial.cost_to_target is not None and trial.cost_to_target <= limit:
        return 0, trial.cost_to_target
    return (2 if trial.status == "failed" and trial.cost < _EXACT * limit else 1), trial.loss_at(limit)


OFFER = Offer(
    words="successive halving",
    typical_runs=8.0,
    build=lambda first: Halving(budget=_BUDGET * (first.cost_to_target or first.cost)),
)
