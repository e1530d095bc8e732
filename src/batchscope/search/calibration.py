"""How probable it is that a recipe is within 5 % of the best one; none is told where that is not calibrated.

The posterior of the law alone is too sure: over the searches of `benchmarks/search` it told 0.57 in the mean and 0.41
held (docs/log.md). What the law misses is missing from it. The intervals of steps carry that as `Law.misfit`, and so
does the probability: in each draw of the posterior the cost of every batch size is off by a normal of that standard
deviation in its logarithm, nearly the same for batch sizes close to one another, with the correlation
`exp(-d²/2)` at a distance of `d` octaves. Numbers only, no torch.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .recipe import beyond_law
from .state import SearchState

__all__ = ["probability_within_5_percent", "share_within_5_percent"]

_NEEDED_BATCH_SIZES = 2
_JITTER = 1e-6


def probability_within_5_percent(state: SearchState, batch_size: int, lr: float) -> float | None:
    """Probability that a recipe costs at most 5 % more than the best one; `None` where it was not calibrated.

    That is where the search was cut off, a length of training was given, another strategy chose the runs, fewer than
    two batch sizes were run, or the run at the recipe contradicts the law.
    """
    question, tried = state.question, {size for size, _ in state.tried}
    if state.cut_off or question.within is not None or question.search != "anchors":
        return None
    if len(tried) < _NEEDED_BATCH_SIZES or beyond_law(state, batch_size, lr):
        return None
    decision = state.decision
    if not state.law.misfit and (batch_size, lr) == (decision.batch_size, decision.lr):
        return decision.probability_within_5_percent
    return share_within_5_percent(state, batch_size, lr, state.law.misfit)


def share_within_5_percent(state: SearchState, batch_size: int, lr: float, misfit: float) -> float:
    """Share of the posterior's draws in which a recipe costs at most 5 % more than the best one.

    Args:
        state: of the search.
        batch_size: of the recipe.
        lr: of the recipe.
        misfit: standard deviation of what the law misses, in log steps; the draws of it are always the same.
    """
    sizes, posterior = sorted({*state.batch_sizes, batch_size}), state.posterior
    log_step_cost = state.choices().log_step_cost(sizes)
    own, best = posterior.log_steps(batch_size, lr), posterior.log_best_steps(np.array(sizes))
    missed = misfit * _missed(len(own), sizes)
    here = sizes.index(batch_size)
    own_cost = own + (log_step_cost + missed)[:, here]
    return float((own_cost - (best + log_step_cost + missed).min(axis=1) <= math.log(1.05)).mean())


def _missed(draws: int, batch_sizes: list[int]) -> NDArray[np.float64]:
    """Standard normals for each draw and batch size, correlated over neighbouring batch sizes."""
    octaves = np.log2(batch_sizes)
    correlation = np.exp(-0.5 * (octaves[:, None] - octaves[None, :]) ** 2) + _JITTER * np.eye(len(octaves))
    independent = np.random.default_rng(0).standard_normal((draws, len(octaves)))
    return independent @ np.linalg.cholesky(correlation).T
