"""Sharpness: how far the training loss can rise in a small box around the weights, Keskar's and a scale-aware one.

    φ = 100 · (max over z in C of f(w + z) − f(w)) / (1 + f(w))

    keskar      C = {z: abs(z_i) ≤ ε (abs(w_i) + 1)}    Keskar et al. 2017, metric 2.1
    relative    C = {z: abs(z_i) ≤ ε abs(w_i)}          Kwon et al. 2021 (ASAM), section 3, with the maximum norm:
                                                        ‖T⁻¹ z‖ ≤ ε, T = diag abs(w)

ReLU layers can be rescaled against each other (α θ₁, θ₂ / α) without a change of the function, and Keskar's box then
gives any value one likes (Dinh et al. 2017); the relative box is carried along, and its value stays. It is the same box
without the "+ 1", so that the pair shows what scale alone does; weights that are exactly zero are left out of it.
Neither says how well a model generalises: sharpness goes with the learning rate and the recipe more than with the gap
(Andriushchenko et al. 2023). A small φ bounds nothing: the maximum is searched, not known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, minimize
from torch import nn

from ..errors import TaskError, UsageError
from ..hardware.random_state import preserved_random_state
from ..store.not_applicable import NotApplicable
from ..tasks.workload import Workload
from .base import twin
from .fixed_loss import FixedLoss

__all__ = ["Ascent", "BoxSharpness", "Neighbourhood", "measure_box_sharpness"]

Array = NDArray[np.float64]
Neighbourhood = Literal["keskar", "relative"]


@dataclass(frozen=True, kw_only=True)
class Ascent:
    """Ascent: one search for the maximum."""

    start: str
    """Where it began: the weights (as published, or in units of the box), a random point, the best of a smaller box."""
    value: float
    """φ at the highest point that it passed, in per cent; at least that of its start."""
    passes: int
    """Forward-and-backward passes over the examples."""
    ended: str
    """What the optimizer says."""


@dataclass(frozen=True, kw_only=True)
class BoxSharpness:
    """Sharpness φ of one box, and how it was found."""

    neighbourhood: Neighbourhood
    eps: float
    value: float
    """φ in per cent: the largest of all starts, and a lower bound of the true maximum."""
    starts: tuple[Ascent, ...]
    loss: float
    """f(w)."""
    highest_loss: float
    """The largest loss found in the box."""
    weights: int
    """Trained numbers in the model."""
    dimensions: int
    """Of the space that was searched: as many, or those of the random subspace."""
    examples: int
    """Training examples that f is the mean over, in evaluation mode."""
    training_examples: int
    iterations: int
    """Of L-BFGS-B, at most, from each start."""


def measure_box_sharpness(
    workload: Workload,
    model: nn.Module,
    *,
    neighbourhood: Neighbourhood = "keskar",
    eps: Sequence[float] = (5e-4, 1e-3, 1e-2),
    random_starts: int = 2,
    iterations: int = 10,
    examples: int | None = 10_000,
    subspace: int | None = None,
    seed: int = 0,
    at_once: int = 512,
) -> tuple[BoxSharpness, ...] | NotApplicable:
    """Search the largest training loss in boxes around a model's weights.

    The maximum is searched by L-BFGS-B from several starts, loss and gradient being the mean over the same examples
    (the public code of Chang and Pathak 2020 sums the gradient and averages the loss). The published search begins at
    the weights, in their units; where the gradient is nearly zero, it can stop there, with a φ of nearly zero. So
    further searches begin at the weights in units of the box, at random points of it, and at the best point of the
    next smaller box: φ never falls as ε grows. For `relative` the published start is left out: units of the weights
    change with their scale.

    Args:
        workload: the task on its device.
        model: its weights are the centre of the box; it is copied, never changed.
        neighbourhood: `keskar` or `relative`, as in the module's table.
        eps: ε, one for each box. Keskar et al. use 0.001 and 0.0005, Chang and Pathak 0.01.
        random_starts: uniformly random points of each box to begin at.
        iterations: of L-BFGS-B at most from each start; 10 in the paper.
        examples: training examples at most that f is the mean over, a fixed draw; `None`: all.
        subspace: p, to search `w + A y` only, A an n × p matrix of standard normal numbers and the box
            `abs(y_i) ≤ ε (abs((A⁺w)_i) + 1)`; 100 in the paper. `None`: the full space.
        seed: of the draw of examples, of the random starts and of A.
        at_once: examples per forward and backward pass, for memory; the values are the same.

    Returns:
        One record for each ε, in their order; or why there is none: a loss that is not repeatable (dropout that does
        not follow the mode), not finite, or at −1 or below, where φ has no meaning.

    Raises:
        UsageError: a number makes no sense.

    Cost: with the defaults about 12 passes (forward and backward over the examples) from each of 4 to 5 starts (one
    fewer for `relative`), 170 in all for three boxes; `starts[].passes` has the exact number. Measured on one core: the
    perceptron of `digits` 1.4 s, as long as 140 epochs at batch size 64; SciPy adds 5 s a start and million weights.
    Memory: about 60 vectors of the weights in float64, and `8 n p` bytes for A.

    Valid when: the loss is repeatable in evaluation mode, and bounded below by 0 (φ compares to 1 + f). The weights
    need not be a minimum, but the words of the texts (flat, sharp *minimiser*) presume one. Compare models only on the
    same examples, boxes and starts.

    Source: Keskar et al. 2017, metric 2.1; Kwon et al. 2021, section 3; Dinh et al. 2017.
    """
    if not eps or min(eps) <= 0 or not all(map(math.isfinite, eps)):
        raise UsageError(f"eps is {tuple(eps)}; give the half-widths of the boxes, finite numbers above 0")
    if iterations < 1 or random_starts < 0 or (subspace is not None and subspace < 1):
        raise UsageError(
            f"{iterations} iterations from {random_starts} random starts in {subspace} dimensions make no sense; at "
            "least 1, 0 and 1 are needed"
        )
    with preserved_random_state(seed):
        try:
            loss = FixedLoss(workload, twin(workload, model), examples=examples, seed=seed, at_once=at_once)
            found = _all_boxes(loss, neighbourhood, eps, subspace, random_starts, iterations, seed)
        except TaskError as error:
            return NotApplicable(reason=str(error))
    return tuple(found[each] for each in eps)


def _all_boxes(
    loss: FixedLoss,
    neighbourhood: Neighbourhood,
    eps: Sequence[float],
    subspace: int | None,
    random_starts: int,
    iterations: int,
    seed: int,
) -> dict[float, BoxSharpness]:
    """Measure the boxes from the smallest to the largest, so that each can begin where the one before ended."""
    centre = loss.weights()
    f0, _ = loss.value_and_gradient(centre)
    if not 1 + f0 > 0:
        raise TaskError(f"the loss at the weights is {f0:.4g}: φ divides by 1 + loss, which must be above 0")
    space = _Space(centre, neighbourhood, subspace, seed)
    found: dict[float, BoxSharpness] = {}
    best: Array | None = None
    for each in sorted(set(eps)):
        box = _Box(loss, space, each, f0)
        carried = best / each if best is not None else None
        ascents, y = _ascend_from_all(box, carried, random_starts, iterations, seed)
        best = each * y
        found[each] = BoxSharpness(
            neighbourhood=neighbourhood,
            eps=each,
            value=max(ascent.value for ascent in ascents),
            starts=tuple(ascents),
            loss=f0,
            highest_loss=box.highest,
            weights=centre.size,
            dimensions=space.unit.size,
            examples=loss.examples,
            training_examples=loss.training_examples,
            iterations=iterations,
        )
    return found


class _Space:
    """Space of the box: the weights moved by `basis @ (ε · unit · y)`, y in [−1, 1]."""

    def __init__(self, centre: Array, neighbourhood: Neighbourhood, subspace: int | None, seed: int) -> None:
        self.centre, self.neighbourhood = centre, neighbourhood
        self.basis: Array | None = None
        coordinates = centre
        if subspace is not None:
            self.basis = np.random.default_rng(seed).standard_normal((centre.size, subspace))
            coordinates = np.linalg.lstsq(self.basis, centre)[0]
        self.unit: Array = np.abs(coordinates) + (1.0 if neighbourhood == "keskar" else 0.0)


class _Box:
    """Box and the rise of the loss over it, in coordinates in which it is [−1, 1]; keeps the highest point."""

    def __init__(self, loss: FixedLoss, space: _Space, eps: float, f0: float) -> None:
        self.loss, self.space, self.f0 = loss, space, f0
        self.half_widths = eps * space.unit
        self.highest, self.best = f0, np.zeros_like(self.half_widths)
        self.reached = f0
        """The highest loss since this was last set."""

    def rise(self, y: Array) -> tuple[float, Array]:
        """Rise `f(w + z(y)) − f(w)` and its gradient by y."""
        z, basis = self.half_widths * y, self.space.basis
        value, gradient = self.loss.value_and_gradient(self.space.centre + (z if basis is None else basis @ z))
        if not (math.isfinite(value) and np.isfinite(gradient).all()):
            raise TaskError(f"within the box the loss becomes {value}: take a smaller eps")
        self.reached = max(self.reached, value)
        if value > self.highest:
            self.highest, self.best = value, y.copy()
        return value - self.f0, self.half_widths * (gradient if basis is None else basis.T @ gradient)

    def percent(self, loss: float) -> float:
        """Sharpness φ, in per cent, of a loss in the box."""
        return 100.0 * max(0.0, loss - self.f0) / (1.0 + self.f0)


def _ascend_from_all(
    box: _Box, carried: Array | None, random_starts: int, iterations: int, seed: int
) -> tuple[list[Ascent], Array]:
    centre = np.zeros_like(box.half_widths)
    ascents: list[Ascent] = []
    if box.space.neighbourhood == "keskar":
        ascents.append(_ascend(box, "at the weights, as published", centre, iterations, published=True))
    ascents.append(_ascend(box, "at the weights, in units of the box", centre, iterations))
    draw = np.random.default_rng([seed, 1])
    for i in range(random_starts):
        start = draw.uniform(-1.0, 1.0, centre.size)
        ascents.append(_ascend(box, f"at random {i + 1}", start, iterations))
    if carried is not None:
        ascents.append(_ascend(box, "at the best of the smaller box", carried, iterations))
    return ascents, box.best


def _ascend(box: _Box, name: str, start: Array, iterations: int, *, published: bool = False) -> Ascent:
    """Ascend by L-BFGS-B from one start.

    As published: in units of the weights, with SciPy's tolerances. Otherwise in units of the box, the loss in units of
    its mean slope along them: the first step then crosses the box, however small the gradient is at the start.
    """
    before, box.reached = box.loss.passes, box.f0
    _, slope = box.rise(start)
    stretch = box.half_widths if published else np.ones_like(start)
    unit = 1.0 if published else float(np.abs(slope).mean()) or 1.0
    options: dict[str, float] = {"maxiter": iterations, "maxfun": 3 * iterations}
    if not published:
        options |= {"ftol": 0.0, "gtol": 0.0}

    def downhill(u: Array) -> tuple[float, Array]:
        value, gradient = box.rise(u / stretch)
        return -value / unit, -gradient / stretch / unit

    end = _minimize(downhill, start * stretch, stretch, options)
    return Ascent(start=name, value=box.percent(box.reached), passes=box.loss.passes - before, ended=end)


def _minimize(
    function: Callable[[Array], tuple[float, Array]], start: Array, bound: Array, options: dict[str, float]
) -> str:
    low, high = cast(Any, -bound), cast(Any, bound)  # SciPy's stubs know bounds of one dimension only
    bounds = Bounds(low, high)
    found = minimize(function, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return str(found.message).capitalize()
