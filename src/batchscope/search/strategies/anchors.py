"""The default search: buy the run that is worth its price, stop when none is.

The posterior of steps to target (`fits.steps_to_target`) and the measured step times give, for each draw of the
posterior, the time to target of every batch size and learning rate, and so the *regret* of choosing it: time ÷ the
draw's best time - 1. The search

1. decides for the batch size and learning rate of minimum expected regret;
2. values a possible next run by how much the expected regret of the decision would fall, averaged over what the run
   might show (the value of information, Raiffa & Schlaifer 1961; each draw of the posterior plays the truth once);
3. buys the run with the largest value minus price. The price is the run's expected time in units of one training at the
   recipe; the value counts for `trainings` trainings, because a recipe is used more than once. When no run is worth its
   price, the search is over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

from ...fits.steps_to_target import StepsPosterior

__all__ = ["BEHIND", "LAG", "Choices", "Decision", "Proposal", "decide", "propose", "sizes_between"]

Array = NDArray[np.float64]

BEHIND, LAG = 1.75, 2.0
"""A probe is stopped when it has taken so many times what the best had, or lags behind it by this factor at its length,
and by more before: of the cells of 15 tables within 1.1 of the best one 98.5 % are kept, for 0.57 of a whole run a
probe (a lag of 1.25 from a share of 0.35 on kept 76 %, for 0.39)."""
_REGRET_CUT = 5.0
_LRS_AROUND = (0.9, 1.0, 1.12)
_DECISIONS = 160
_PROBES = 48


def _no_lowest_lr(batch_size: int) -> float:
    return 0.0


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What can be chosen, and what a step of each batch size costs.

    Attributes:
        batch_sizes: ascending candidates.
        step_cost: seconds of one step (or examples, when the objective is examples) for a batch size.
        step_time: seconds of one step, which is what a probe is paid with.
        trainings: how often the recipe will be used.
        by_milestone: whether a probe goes as far as the milestone only.
        log_cost_draws: logarithm of step costs at some batch sizes for each draw of the posterior, shape (draws, batch
            sizes), where step times are uncertain; `None`: `step_cost` is all there is.
        lowest_lr: the lowest learning rate that is looked at, for a batch size. Where no run gets to the target the
            posterior moves to ever lower ones, for each run that stalls says that its own is too high.
    """

    batch_sizes: tuple[int, ...]
    step_cost: Callable[[int], float]
    step_time: Callable[[int], float]
    trainings: float
    by_milestone: bool = False
    log_cost_draws: Callable[[Sequence[int]], Array] | None = None
    lowest_lr: Callable[[int], float] = _no_lowest_lr

    def log_step_cost(self, batch_sizes: Sequence[int]) -> Array:
        """Logarithm of step costs; shape (batch sizes,), or (draws, batch sizes) where step times are uncertain."""
        if self.log_cost_draws is not None:
            return self.log_cost_draws(batch_sizes)
        return np.log([self.step_cost(b) for b in batch_sizes])


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The choice of minimum expected regret under a posterior."""

    batch_size: int
    lr: float
    expected_regret: float
    probability_within_5_percent: float
    """By the posterior alone, what the law misses left out (`search.calibration`)."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """The next run, and why it is worth its price.

    Attributes:
        batch_size: of the run.
        lr: of the run.
        value: expected saving over all trainings, in units of one training at the recipe.
        price: of the run, in the same unit.
        reason: what it is made for, where that is not its value alone.
        needs_s: seconds that must be left of the budget for it to be made.
    """

    batch_size: int
    lr: float
    value: float
    price: float
    reason: str = ""
    needs_s: float = 0.0

    @property
    def why(self) -> str:
        """Why the run is made, in words."""
        if self.value <= self.price:
            return "no run has got far enough yet"
        reason = f"{self.reason}: " if self.reason else ""
        return f"{reason}may save {_trainings(self.value)} later, costs {_trainings(self.price)}"


@dataclass(frozen=True)
class _Grid:
    """All pairs of batch size and learning rate that deserve a look, with their log cost for each draw."""

    batch_size: NDArray[np.int64]
    lr: Array
    log_steps: Array
    lowest: Array
    """For each draw, the log cost of its best pair."""
    regret: Array = field(repr=False)

    @classmethod
    def of(cls, posterior: StepsPosterior, choices: Choices) -> _Grid:
        sizes = np.array(choices.batch_sizes)
        log_cost = choices.log_step_cost(choices.batch_sizes)
        best = posterior.log_best_steps(sizes) + log_cost
        worth = np.quantile(best - best.min(axis=1, keepdims=True), 0.1, axis=0) < math.log(1.5)
        pairs = [(int(b), lr) for b in sizes[worth] for lr in _lrs(posterior, int(b), choices.lowest_lr(int(b)))]
        batch_size, lr = np.array([b for b, _ in pairs]), np.array([r for _, r in pairs])
        cost = _log_cost(posterior, choices, batch_size, lr)
        lowest = cost.min(axis=1)
        return cls(batch_size, lr, posterior.log_steps(batch_size, lr), lowest, _regret(cost, lowest[:, None]))


def sizes_between(smallest: int, largest: int) -> tuple[int, ...]:
    """Batch sizes people use: powers of two and one and a half times them, with both ends.

    >>> sizes_between(1, 20)
    (1, 2, 3, 4, 6, 8, 12, 16, 20)
    """
    grid = {2**k for k in range(31)} | {3 * 2**k for k in range(30)}
    inside = {b for b in grid if smallest <= b <= largest}
    return tuple(sorted(inside | {smallest, largest}))


def decide(
    posterior: StepsPosterior,
    choices: Choices,
    preferred: Mapping[tuple[int, float], float] | None = None,
    failed: Collection[tuple[int, float]] = (),
) -> Decision:
    """The batch size and learning rate of minimum expected regret.

    Args:
        posterior: of steps to target.
        choices: what can be chosen.
        preferred: pairs that a run stands behind; one of them is chosen while its expected regret exceeds the minimum
            by no more than this much.
        failed: pairs that no run got through at; they are not chosen.

    Returns:
        The decision.
    """
    grid = _Grid.of(posterior, choices)
    expected = grid.regret.mean(axis=0)
    pairs = zip(grid.batch_size.tolist(), grid.lr.tolist(), strict=True)
    expected[[i for i, pair in enumerate(pairs) if pair in failed]] += _REGRET_CUT
    index = int(expected.argmin())
    chosen = (int(grid.batch_size[index]), float(grid.lr[index]), grid.regret[:, index])
    tried = [(pair, tolerance) for pair, tolerance in (preferred or {}).items() if pair[0] in choices.batch_sizes]
    if tried:
        size, lr = np.array([b for (b, _), _ in tried]), np.array([lr for (_, lr), _ in tried])
        regrets = _regret(_log_cost(posterior, choices, size, lr), grid.lowest[:, None]).T
        excess = regrets.mean(axis=1) - expected[index] - np.minimum([tolerance for _, tolerance in tried], 2.0)
        best = int(excess.argmin())
        if excess[best] <= 0.0 or math.isinf(tried[best][1]):
            chosen = (*tried[best][0], regrets[best])
    batch_size, lr, regret = chosen
    return Decision(
        batch_size=batch_size,
        lr=lr,
        expected_regret=float(regret.mean()),
        probability_within_5_percent=float((regret <= 0.05).mean()),
    )


def propose(
    posterior: StepsPosterior,
    choices: Choices,
    tried: Sequence[tuple[int, float]] = (),
    *,
    seed: int = 0,
    must: bool = False,
) -> Proposal | None:
    """The next run to buy, or `None` when none is worth its price.

    Args:
        posterior: of steps to target.
        choices: what can be chosen.
        tried: pairs already run with this seed; they would only repeat what is known.
        seed: of the simulated outcomes.
        must: name the best run even if it is not worth its price, because no recipe stands without one.

    Returns:
        The run of largest value minus price. Cost: about 0.2 s.
    """
    grid = _Grid.of(posterior, choices)
    expected = grid.regret.mean(axis=0)
    decisions = np.argsort(expected)[:_DECISIONS]
    now = float(expected[decisions[0]])
    best_time = np.exp((grid.log_steps + np.log([choices.step_time(int(b)) for b in grid.batch_size])).min(axis=1))
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal(len(posterior.draws))
    seen = posterior.log_milestone_steps(grid.batch_size, grid.lr) if choices.by_milestone else grid.log_steps
    step_time = np.array([choices.step_time(int(b)) for b in grid.batch_size])
    typical_best = float(np.median(np.exp((seen + np.log(step_time)).min(axis=1))))
    best: Proposal | None = None
    for index in _probes(grid, expected, tried):
        batch_size, lr = int(grid.batch_size[index]), float(grid.lr[index])
        limit = BEHIND * typical_best / choices.step_time(batch_size)
        spread = (posterior.milestone_spread if choices.by_milestone else posterior.spread)(batch_size, lr)
        shown = _Shown(seen[:, index], spread, math.log(limit))
        value = choices.trainings * (now - _expected_after(grid, decisions, shown, normal))
        steps = np.minimum(np.exp(np.minimum(seen[:, index], 50.0)), limit)
        price = float((steps * choices.step_time(batch_size) / best_time).mean())
        if best is None or value - price > best.value - best.price:
            best = Proposal(batch_size=batch_size, lr=lr, value=value, price=price)
    return best if best is not None and (must or best.value > best.price) else None


@dataclass(frozen=True)
class _Shown:
    """What a probe will show: log steps with their spread over seeds, or that they are beyond a limit."""

    log_steps: Array
    spread: Array
    log_limit: float


def _expected_after(grid: _Grid, decisions: NDArray[np.intp], shown: _Shown, normal: Array) -> float:
    """Expected regret of the decision made after the probe, each draw playing the truth once."""
    predicted, spread = shown.log_steps, shown.spread
    seen = predicted + spread * normal
    z = (seen[:, None] - predicted[None, :]) / spread[None, :]
    log_weight = -0.5 * z**2 - np.log(spread)[None, :]
    stopped = seen > shown.log_limit
    beyond = log_ndtr((predicted - shown.log_limit) / spread)
    log_weight = np.where(stopped[:, None], beyond[None, :], log_weight)
    np.fill_diagonal(log_weight, -np.inf)
    weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    choice = (weight @ grid.regret[:, decisions]).argmin(axis=1)
    return float(grid.regret[np.arange(len(choice)), decisions[choice]].mean())


def _probes(grid: _Grid, expected: Array, tried: Sequence[tuple[int, float]]) -> list[int]:
    """The pairs worth simulating: the best few learning rates of each batch size, spread over batch sizes."""
    fresh = [
        i
        for i in np.argsort(expected)
        if not any(b == grid.batch_size[i] and abs(math.log(lr / grid.lr[i])) < 0.08 for b, lr in tried)
    ]
    per_size: dict[int, int] = {}
    chosen: list[int] = []
    for i in fresh:
        size = int(grid.batch_size[i])
        if per_size.get(size, 0) < 6 and len(chosen) < _PROBES:
            chosen.append(int(i))
            per_size[size] = per_size.get(size, 0) + 1
    return chosen


def _lrs(posterior: StepsPosterior, batch_size: int, lowest: float) -> list[float]:
    """Learning rates by a factor of 2^(1/4) over the range in which the best one may lie, to three digits."""
    low, high = np.quantile(posterior.log_best_lr(batch_size), (0.02, 0.95))
    if lowest > 0.0:
        low, high = max(low, math.log(lowest)), max(high, math.log(lowest))
    first, last = math.floor(4 * (low / math.log(2))), math.ceil(4 * (high / math.log(2)))
    stride = max(1, (last - first) // 24)
    return [float(f"{2 ** (k / 4):.3g}") for k in range(first, last + 1, stride)]


def _log_cost(posterior: StepsPosterior, choices: Choices, batch_size: NDArray[np.int64], lr: Array) -> Array:
    """Log of the expected cost of each pair; shape (draws, pairs).

    Seeds do not all break at the same learning rate, so one counts with the mean over itself and a tenth above and
    below: a learning rate at the very edge, which some seeds survive and others do not, is no good choice.
    """
    steps = np.logaddexp.reduce([posterior.log_steps(batch_size, lr * factor) for factor in _LRS_AROUND])
    return steps - math.log(len(_LRS_AROUND)) + choices.log_step_cost(batch_size.tolist())


def _regret(log_cost: Array, lowest: Array) -> Array:
    return np.clip(np.exp(np.minimum(log_cost - lowest, 5.0)) - 1.0, 0.0, _REGRET_CUT)


def _trainings(number: float) -> str:
    if number < 0.95:
        return f"{number:.1f} of a training" if number >= 0.05 else "under 0.1 of a training"
    return "1 training" if number < 1.05 else f"{number:.1f} trainings"
