"""Simulation by the noisy quadratic model: training whose true course is known, for testing fits and searches against.

Each coordinate `i` has the loss `h_i θ_i² / 2` and the stochastic gradient `h_i θ_i + ξ_i` with independent Gaussian
`ξ_i` of variance `c_i / batch_size`. Under SGD with momentum `m` (PyTorch's form: `v ← m v + g`, `θ ← θ - lr v`) the
pair `(θ_i, v_i)` stays Gaussian, so its mean and its 2 x 2 covariance are exact:

    (θ, v) ← T (θ, v) + noise,   T = [[1 - lr h, -lr m], [h, m]],   noise covariance = c/B [[lr², -lr], [-lr, 1]],

and `k` steps at once are the same map with `T^k` and the covariances summed. Steps are visited on a grid whose gaps are
powers of two, one doubling of the map each octave, so that a million steps cost some hundreds of updates.

Source: Zhang et al. 2019, "Which algorithmic choices matter at which batch sizes? Insights from a noisy quadratic
model", section 3 (spectrum `h_i = 1/i`, noise `c_i = h_i`, start `E θ_i² = 1`).

Valid when it is used as what it is: noise that does not depend on θ, training loss only, no interpolation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..fits.curves import between

__all__ = ["NoisyQuadratic", "SimulatedRun", "Tuned"]

Array = NDArray[np.float64]


class Tuned(NamedTuple):
    """Tuned training: the best constant learning rate at a batch size, and what it reaches the target in."""

    lr: float
    steps: float


@dataclass(frozen=True, kw_only=True)
class SimulatedRun:
    """Simulated evaluations of one run, or their expectation; the last axis runs along `steps`."""

    steps: Array
    """Shape (evaluations,)."""
    loss: Array
    """Shape (learning rates or seeds, evaluations)."""
    square_gradient: Array
    """`|G|²` of the noiseless gradient, shape as `loss`."""


@dataclass(frozen=True, kw_only=True)
class NoisyQuadratic:
    """Noisy quadratic model with a target for its loss.

    Raises:
        ValueError: momentum is outside [0, 1), or the target is not between 0 and 1 times the first loss.

    Example:
        >>> model = NoisyQuadratic(dimensions=1)
        >>> model.expected(math.inf, 0.5, max_steps=3).loss  # without noise (1 - lr h)^(2 step) / 2
        array([[0.5      , 0.125    , 0.03125  , 0.0078125]])
    """

    dimensions: int = 100
    exponent: float = 1.0
    """Curvatures fall as `h_i = i^-exponent`."""
    noise: Literal["hessian", "identity"] = "hessian"
    """Whether the noise covariance is proportional to the curvature or to the identity."""
    noise_level: float = 1.0
    """tr(Σ) ÷ tr(H)."""
    momentum: float = 0.0
    target_share: float = 0.02
    """The target ÷ the loss before training."""
    resolution: int = 32
    """Evaluations come at least every 1/resolution of the steps so far."""

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum {self.momentum} is outside [0, 1)")
        if not 0 < self.target_share < 1:
            raise ValueError(f"target_share {self.target_share} is outside (0, 1)")

    @cached_property
    def curvature(self) -> Array:
        """The eigenvalues `h`, largest first, shape (dimensions,)."""
        return np.arange(1, self.dimensions + 1, dtype=np.float64) ** -self.exponent

    @cached_property
    def variance(self) -> Array:
        """The per-example gradient variance `c` of each coordinate; its sum is tr(Σ). Shape (dimensions,)."""
        shape = self.curvature if self.noise == "hessian" else np.full(self.dimensions, self.curvature.mean())
        return self.noise_level * shape

    @property
    def target(self) -> float:
        """The loss at which training is done; every coordinate starts at 1."""
        return self.target_share * 0.5 * float(self.curvature.sum())

    @property
    def highest_lr(self) -> float:
        """The learning rate at which the noiseless iteration stops converging: `2 (1 + m) / h_max`."""
        return 2.0 * (1.0 + self.momentum) / float(self.curvature[0])

    def noise_scale(self, square_gradient: ArrayLike) -> Array:
        """Gradient noise scale tr(Σ) ÷ |G|², in examples, for the squared gradients of a `SimulatedRun`."""
        return float(self.variance.sum()) / np.asarray(square_gradient, dtype=np.float64)

    def expected(self, batch_size: float, lr: ArrayLike, *, max_steps: int = 1_000_000) -> SimulatedRun:
        """The exact expected loss and expected squared gradient along training.

        Args:
            batch_size: examples a step; `inf` switches the noise off.
            lr: one learning rate or several, shape (learning rates,).
            max_steps: where to stop.

        Returns:
            The course of every learning rate, step 0 included. A diverging learning rate ends in infinities.

        Cost: about `resolution · log2(max_steps)` updates of (learning rates x dimensions) 2 x 2 matrices.
        """
        return _course(list(self._expected_points(batch_size, lr, max_steps)))

    def steps_to_target(self, batch_size: float, lr: ArrayLike, *, max_steps: int = 1_000_000) -> Array:
        """First passage of the expected loss, interpolated in log steps as the training loop does.

        Args:
            batch_size: examples a step; `inf` switches the noise off.
            lr: one learning rate or several, shape (learning rates,).
            max_steps: a learning rate that has not arrived by then gets `inf`.

        Returns:
            Steps for every learning rate, shape (learning rates,).
        """
        passage = _Passage(self.target, np.size(lr))
        for step, loss, _ in self._expected_points(batch_size, lr, max_steps):
            passage.add(step, loss)
            if passage.over:
                break
        return passage.steps

    def tuned(self, batch_size: float, *, max_steps: int = 1_000_000) -> Tuned:
        """The constant learning rate that reaches the target soonest in expectation.

        Args:
            batch_size: examples a step; `inf` switches the noise off.
            max_steps: no learning rate may need more.

        Returns:
            The learning rate, within 0.5 %, and its steps; steps are `inf` where no learning rate arrives.
        """
        ratio = math.sqrt(2.0)
        best = self._fastest(batch_size, self.highest_lr * ratio ** np.arange(-32, 0.5), max_steps)
        while math.isfinite(best.steps) and ratio > 1.005:
            best = self._fastest(batch_size, best.lr * ratio ** np.linspace(-1.0, 1.0, 9), max_steps)
            ratio **= 0.25
        return best

    def sample(
        self, batch_size: float, lr: float, *, seeds: int = 1, seed: int = 0, max_steps: int = 1_000_000
    ) -> SimulatedRun:
        """Sample runs with their noise drawn, exact in distribution at the evaluated steps.

        Args:
            batch_size: examples a step.
            lr: the learning rate.
            seeds: how many independent runs.
            seed: of the first; the others follow from it.
            max_steps: where to stop.

        Returns:
            Their courses, shape (seeds, evaluations): the loss is the true loss at the parameters reached.
        """
        return _course(list(self._sampled_points(batch_size, lr, seeds, seed, max_steps)))

    def sampled_steps_to_target(
        self, batch_size: float, lr: float, *, seeds: int = 1, seed: int = 0, max_steps: int = 1_000_000
    ) -> Array:
        """First passages of sampled runs, with the noise of a seed in them.

        Args:
            batch_size: examples a step.
            lr: the learning rate.
            seeds: how many independent runs.
            seed: of the first; the others follow from it.
            max_steps: a run that has not arrived by then gets `inf`.

        Returns:
            Steps, shape (seeds,).
        """
        passage = _Passage(self.target, seeds)
        for step, loss, _ in self._sampled_points(batch_size, lr, seeds, seed, max_steps):
            passage.add(step, loss)
            if passage.over:
                break
        return passage.steps

    def _fastest(self, batch_size: float, lrs: Array, max_steps: int) -> Tuned:
        passage = _Passage(self.target, lrs.size)
        for step, loss, _ in self._expected_points(batch_size, lrs, max_steps):
            passage.add(step, loss)
            if np.isfinite(passage.steps).any():
                break
        return Tuned(float(lrs[np.argmin(passage.steps)]), float(passage.steps.min()))

    def _expected_points(self, batch_size: float, lr: ArrayLike, max_steps: int) -> Iterator[tuple[int, Array, Array]]:
        lrs = np.atleast_1d(np.asarray(lr, dtype=np.float64))
        mean = self._start(lrs.size)
        covariance = np.zeros((2, 2, lrs.size, self.dimensions))
        with np.errstate(over="ignore", invalid="ignore"):
            yield 0, *self._readings(mean[0] ** 2)
            for step, jump in self._jumps(batch_size, lrs, max_steps):
                mean = np.einsum("ij...,j...->i...", jump.transition, mean)
                covariance = jump.spread(covariance)
                yield step, *self._readings(mean[0] ** 2 + covariance[0, 0])

    def _sampled_points(
        self, batch_size: float, lr: float, seeds: int, seed: int, max_steps: int
    ) -> Iterator[tuple[int, Array, Array]]:
        generator = np.random.default_rng(seed)
        state = self._start(seeds)
        with np.errstate(over="ignore", invalid="ignore"):
            yield 0, *self._readings(state[0] ** 2)
            for step, jump in self._jumps(batch_size, np.array([lr]), max_steps):
                state = np.einsum("ij...,j...->i...", jump.transition, state)
                state += np.einsum("ij...,j...->i...", _root(jump.noise), generator.standard_normal(state.shape))
                yield step, *self._readings(state[0] ** 2)

    def _start(self, rows: int) -> Array:
        return np.stack([np.ones((rows, self.dimensions)), np.zeros((rows, self.dimensions))])

    def _readings(self, second_moment: Array) -> tuple[Array, Array]:
        return 0.5 * second_moment @ self.curvature, second_moment @ self.curvature**2

    def _jumps(self, batch_size: float, lrs: Array, max_steps: int) -> Iterator[tuple[int, _Jump]]:
        jump, gap, step = self._one_step(batch_size, lrs), 1, 0
        while step < max_steps:
            if step >= 2 * gap * self.resolution and step % (2 * gap) == 0:
                jump, gap = jump.doubled(), 2 * gap
            step += gap
            yield step, jump

    def _one_step(self, batch_size: float, lrs: Array) -> _Jump:
        lr, h = np.broadcast_arrays(lrs[:, None], self.curvature)
        ones = np.ones_like(h)
        transition = np.stack([np.stack([1 - lr * h, -lr * self.momentum]), np.stack([h, self.momentum * ones])])
        shape = np.stack([np.stack([lr**2, -lr]), np.stack([-lr, ones])])
        return _Jump(transition, shape * (self.variance / batch_size))


@dataclass(frozen=True)
class _Jump:
    """Jump of some steps at once: `x ← transition x + noise`; both arrays have shape (2, 2, lrs, dimensions)."""

    transition: Array
    noise: Array

    def spread(self, covariance: Array) -> Array:
        """The covariance after the jump, of that before it: `T P Tᵀ + Q`."""
        carried = np.einsum("ij...,jk...->ik...", self.transition, covariance)
        return np.einsum("ij...,kj...->ik...", carried, self.transition) + self.noise

    def doubled(self) -> _Jump:
        twice = np.einsum("ij...,jk...->ik...", self.transition, self.transition)
        return _Jump(twice, self.spread(self.noise))


class _Passage:
    """First passages of several curves below a target, interpolated in log steps."""

    def __init__(self, target: float, curves: int) -> None:
        self.target = target
        self.steps = np.full(curves, math.inf)
        self._last: tuple[int, Array] | None = None

    def add(self, step: int, loss: Array) -> None:
        """Take one evaluation of all curves."""
        now = (loss <= self.target) & np.isinf(self.steps)
        if self._last is not None and now.any():
            before, previous = self._last
            share = (previous[now] - self.target) / (previous[now] - loss[now])
            self.steps[now] = between(before, step, share)
        self._last = step, loss

    @property
    def over(self) -> bool:
        """Whether every curve has passed or left the range of numbers."""
        return self._last is not None and bool((np.isfinite(self.steps) | ~np.isfinite(self._last[1])).all())


def _root(covariance: Array) -> Array:
    """Lower triangular roots of 2 x 2 covariances (the leading axes); semidefinite ones included."""
    first = np.sqrt(covariance[0, 0])
    cross = np.divide(covariance[1, 0], first, out=np.zeros_like(first), where=first > 0)
    second = np.sqrt(np.maximum(covariance[1, 1] - cross**2, 0.0))
    return np.stack([np.stack([first, np.zeros_like(first)]), np.stack([cross, second])])


def _course(points: list[tuple[int, Array, Array]]) -> SimulatedRun:
    steps, losses, squares = zip(*points, strict=True)
    return SimulatedRun(
        steps=np.array(steps, dtype=np.float64), loss=np.stack(losses, -1), square_gradient=np.stack(squares, -1)
    )
