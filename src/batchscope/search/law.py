"""The law of steps to target: its posterior, what it misses, how a decision follows from it, and statements about it.

A search fits the joint law of batch size and learning rate. A table in which each batch size was run at one learning
rate does not identify that law, and brings another one (`table/untuned.py`) in its place. Numbers only, no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..fits.steps_to_target import Observation, Prior, StepsPosterior, fit, slope_of
from ..store.records import Estimate, Evidence, RateRange
from ..wording import with_interval
from .strategies.anchors import Choices, Decision, decide
from .strategies.space import Pair

__all__ = ["Law", "Posterior", "fit_joint", "joint_law", "prior_from"]

Array = NDArray[np.float64]

_LR_MAX_ABOVE_BEST = 1.2
_NOISE_SCALES = 3.0
"""B_c ÷ gradient noise scale: 2 to 6 on the tasks of `benchmarks/`; McCandlish et al. (2018) put it near 1."""
_NOISE_SCALE_FACTOR = 6.0
"""One standard deviation of that ratio, as a factor."""


class Posterior(Protocol):
    """Draws of steps to target against batch size and learning rate; the first axis of every array is the draws."""

    def log_best_steps(self, batch_size: ArrayLike) -> Array:
        """Logarithm of the steps at the best learning rate; shape (n, *batch_size.shape)."""
        ...

    def log_best_lr(self, batch_size: ArrayLike) -> Array:
        """Logarithm of the best learning rate; shape (n, *batch_size.shape)."""
        ...

    def log_steps(self, batch_size: ArrayLike, lr: ArrayLike) -> Array:
        """Logarithm of the steps at a learning rate; shape (n, *broadcast shape)."""
        ...

    def spread(self, batch_size: ArrayLike, lr: ArrayLike) -> Array:
        """Standard deviation of the logarithm of the steps over seeds; shape (n, *broadcast shape)."""
        ...

    def critical_batch_size(self) -> Estimate:
        """Critical batch size, in examples."""
        ...

    def knee_exponent(self) -> Estimate:
        """Exponent of the knee between few steps and few examples."""
        ...


@dataclass(frozen=True, kw_only=True)
class Law:
    """A fitted law of steps to target.

    Attributes:
        posterior: of its parameters.
        name: in words.
        misfit: standard deviation, in log steps, of what the law and its spread over seeds miss.
        decide: the choice of minimum expected regret, from the choices, the preferred pairs and those that failed; see
            `strategies.anchors.decide`.
        statements: about the fitted law, that a plan rests on.
    """

    posterior: Posterior
    name: str
    misfit: float
    decide: Callable[[Choices, Mapping[Pair, float], Collection[Pair]], Decision]
    statements: tuple[Evidence, ...]


def joint_law(posterior: StepsPosterior, *, misfit: float = 0.15) -> Law:
    """The joint law of steps against batch size and learning rate, which a search fits.

    With the misfit as it is nine of ten fresh runs fall inside their intervals on the tasks of `benchmarks/`, 86 %
    without (docs/log.md).
    """
    critical, knee = posterior.critical_batch_size(), posterior.knee_exponent()
    trade_off = Evidence(
        statement="steps to target follow S_min (1 + (B_c/B)^a)^(1/a) with a critical batch size of "
        f"{with_interval(critical)} examples and a knee exponent of {with_interval(knee)}",
        tag="fitted",
        source="McCandlish et al. 2018, equation 2.11, with a knee exponent; fitted together with the learning rate; "
        "90 % credible intervals",
    )
    off_the_best = Evidence(
        statement="steps grow as 1/lr far below the best learning rate, and without bound soon above it",
        tag="fitted",
        source="McCandlish et al. 2018, equation 2.5, with a free shape",
    )
    return Law(
        posterior=posterior,
        name="joint law of steps against batch size and learning rate, fitted to the runs",
        misfit=misfit,
        decide=partial(decide, posterior),
        statements=(trade_off, off_the_best),
    )


def prior_from(rate_range: RateRange | None, noise_scale: Estimate | None) -> Prior:
    """The prior of a search: a weak one, moved by the range test and by the noise scale.

    Args:
        rate_range: the range test; what it expects of the best learning rate at its batch size, and within which
            factor, is taken for that of large batches, which is a fifth higher.
        noise_scale: of the pilot; three times it is a hint at the critical batch size, within a factor of 6.
    """
    prior = Prior()
    if rate_range is not None:
        prior = replace(
            prior,
            slope=slope_of(rate_range.normalised),
            log_lr_max=(math.log(_LR_MAX_ABOVE_BEST * rate_range.best_lr), math.log(rate_range.expected_factor)),
        )
    if noise_scale is not None and noise_scale.value is not None and noise_scale.value >= 1.0:
        prior = prior.with_critical_batch_size(_NOISE_SCALES * noise_scale.value, _NOISE_SCALE_FACTOR)
    return prior


def fit_joint(observations: Sequence[Observation], prior: Prior, *, seed: int = 0) -> StepsPosterior:
    """The posterior of the joint law; its randomness follows from `seed` and the number of observations."""
    return fit(observations, prior, seed=1000 * seed + len(observations))
