"""Laws without doubt, and runs that follow them: the way to the milestone, and the whole way."""

from __future__ import annotations

import math

import numpy as np

from batchscope.fits.steps_to_target import Prior, StepsPosterior

_ALONG = 0.325
"""Correlation of the way to the milestone with the whole, which makes the spreads of both and of the rest the law's."""


def law(
    *,
    steps_min: float = 100.0,
    critical: float = 64.0,
    alpha: float = 1.0,
    lr_max: float = 0.4,
    slope: float = 1.0,
    shape: float = 1.0,
    spread: float = 0.1,
    steps_growth: float = 3.0,
    critical_growth: float = 2.0,
    lr_growth: float = 1.1,
    plateau: float = 1e-9,
) -> StepsPosterior:
    """A belief without doubt; the plateau is its half width in log rates."""
    growths = (steps_growth, critical_growth, lr_growth)
    logs = np.log([steps_min, critical, alpha, lr_max, 1.0, shape, spread, *growths, plateau])
    logs[4] = slope
    return StepsPosterior(logs[None, :], 0)


def drawn_from(prior: Prior, rng: np.random.Generator) -> StepsPosterior:
    """A law drawn from a prior."""
    mean, sd = prior.arrays()
    return StepsPosterior((mean + sd * rng.standard_normal(len(mean)))[None, :], 0)


def trained(truth: StepsPosterior, batch_size: int, lr: float, rng: np.random.Generator) -> tuple[float, float]:
    """Steps to the milestone and to the target of one run."""
    first, other = rng.standard_normal(2)
    whole = _ALONG * first + math.sqrt(1 - _ALONG**2) * other
    to_milestone = truth.log_milestone_steps(batch_size, lr)[0] + truth.milestone_spread(batch_size, lr)[0] * first
    to_target = truth.log_steps(batch_size, lr)[0] + truth.spread(batch_size, lr)[0] * whole
    return math.exp(min(to_milestone, to_target - 0.02, 600.0)), math.exp(min(to_target, 600.0))
