"""A run at another batch size, before a search ends that has run one batch size only. Numbers only, no torch.

After runs at one batch size the posterior knows the learning rate there, and of other batch sizes what the prior says.
Its expected saving, by which runs are bought (`strategies.anchors.propose`), then rests on that prior alone, and can be
below the price of a run while a factor is still open. So one run is judged by what it could save *at best*.
"""

from __future__ import annotations

import math

import numpy as np

from .law import fit_joint
from .remaining_time import wall_seconds
from .state import SearchState
from .strategies.anchors import BEHIND, Proposal

__all__ = ["neighbour"]

_NEAREST, _FARTHEST = 2.0, 4.0
_AT_BEST = 0.9
"""Quantile, over the prior, of the speed-up that a batch size may bring."""


def neighbour(state: SearchState) -> Proposal | None:
    """The run at a neighbouring batch size that can pay, where only one batch size was run; else `None`.

    Of the batch sizes a factor of 2 to 4 away it is the one with the lowest cost in the posterior's median. Its price
    is its way to the milestone. At best it saves, over all trainings, what the 90 % quantile of the speed-up would,
    with step times as measured and the steps of the prior: S(B) ∝ (1 + (B_c/B)^a)^(1/a), moved by the noise scale
    alone.
    """
    tried = {size for size, _ in state.tried}
    if len(tried) != 1 or not (state.reached or state.paused):
        return None
    (own,) = tried
    sizes = [b for b in state.batch_sizes if _NEAREST <= max(b / own, own / b) <= _FARTHEST]
    if not sizes:
        return None
    cost, posterior = state.choices().step_cost, state.joint_posterior
    expected = np.median(posterior.log_best_steps(np.array(sizes)), axis=0) + np.log([cost(b) for b in sizes])
    size = sizes[int(expected.argmin())]
    lr = float(f"{math.exp(float(np.median(posterior.log_best_lr(size)))):.3g}")
    at_recipe_s = math.exp(float(np.median(posterior.log_best_steps(own)))) * state.seconds_of(own)
    price = _price(state, size, lr) / at_recipe_s
    saved = state.question.trainings * (1.0 - 1.0 / max(1.0, _speedup_at_best(state, own, size)))
    if saved <= price:
        return None
    return Proposal(
        batch_size=size,
        lr=lr,
        value=saved,
        price=price,
        reason=f"only batch size {own} was run so far",
        needs_s=wall_seconds(state, (price + 1.0) * at_recipe_s),
    )


def _speedup_at_best(state: SearchState, own: int, other: int) -> float:
    """Cost of a training at one batch size ÷ at another, the 90 % quantile over the prior of the law."""
    prior, cost = fit_joint((), state.prior, seed=state.question.seed), state.choices().step_cost
    log_ratio = prior.log_best_steps(own) - prior.log_best_steps(other) + math.log(cost(own) / cost(other))
    return math.exp(float(np.quantile(log_ratio, _AT_BEST)))


def _price(state: SearchState, batch_size: int, lr: float) -> float:
    """Seconds of the run to the milestone (where there is none, to the target), at most until it has fallen behind."""
    posterior, step_s = state.joint_posterior, state.seconds_of(batch_size)
    to = posterior.log_milestone_steps if state.milestone is not None else posterior.log_steps
    best = min(float(np.median(to(b, r))) + math.log(state.seconds_of(b)) for b, r in state.tried)
    return min(math.exp(float(np.median(to(batch_size, lr)))) * step_s, BEHIND * math.exp(best))
