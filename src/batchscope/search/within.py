"""Trainings of a given length (`--within`): which to make next, which recipe is expected to end best, and where.

Every run has the whole length, whatever its evaluations say; only one that is hopelessly behind the best so far, or
never gets better than fresh weights, ends early. Where runs end is a law of batch size and learning rate
(`fits.end_values`); each run is the one of largest expected improvement for its time, until none is worth it or the
search has taken five trainings. The first is at the batch size √(examples of the training) / 4, and at the learning
rate of the range test. A run ends at the level of its last evaluations (`fits.evaluation_noise`), never at the best of
many; where the learning rate decays, at the last one. Numbers only, no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from ..fits.curves import curve_of, value_at
from ..fits.end_values import End, EndPosterior, Left, Start, fit
from ..fits.evaluation_noise import end_value
from ..fits.posterior import credible_interval
from ..store.records import Estimate, Metric, RunConfig, RunStatus, Target
from ..store.runs import StoredRun
from ..training.stopping import BehindRule, NoGainRule, StopRule
from ..wording import number
from .strategies.anchors import Decision
from .strategies.space import Pair

if TYPE_CHECKING:
    from .state import SearchState

__all__ = ["MOST_TRAININGS", "WORTH", "Lengths", "Next", "Whole", "first_batch_size", "lengths_of"]

Array = NDArray[np.float64]

MOST_TRAININGS = 5.0
_MOST_DIVERGED = 6
WORTH, _ALIKE = 0.003, 0.005
"""Share of the metric's value that a run must be expected to gain, and by which two recipes are taken to end alike."""
_COST_POWER, _CHEAP = 0.3, 1.0
_OWN = 0.5
"""Share of the difference between a run's end and the law that another run at the same recipe repeats. How well that is
known adds the same share of the variance over seeds."""
_SIZES_AROUND, _LRS_AROUND, _LR_STEPS = 6, 5, 2
_TRUSTED = 2.01
"""Octaves of batch size, and of learning rate beside what goes with it, from the recipe so far to the next run."""
_FIRST_SHARE = 4.0
_BEHIND, _BEHIND_FROM = 4.0, 0.2
"""Times the share of the length at which the best run was as good, after which share of its own a run is hopeless."""
_GAP_KEPT, _LEAST_GAP = 0.3, 0.02
_UNKNOWN_REST = 0.3
_QUANTILES = ndtri((np.arange(16) + 0.5) / 16)


@dataclass(frozen=True, kw_only=True)
class Next:
    """The next run.

    Attributes:
        batch_size: of the run.
        lr: its learning rate.
        why: in words.
    """

    batch_size: int
    lr: float
    why: str


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A run of the whole length.

    Attributes:
        run: as it is stored.
        steps: of its last evaluation within the length.
        last: value of the metric there.
        left: at the level of its last evaluations, by `Left.log`.
        spread: standard deviation of one evaluation about that level, likewise.
        curve: share of the length and value of its evaluations.
    """

    run: StoredRun
    steps: int
    last: float
    left: float
    spread: float
    curve: Sequence[tuple[float, float]] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Runs of one length.

    Attributes:
        metric: by which they are judged.
        scale: what that has left to its ideal.
        ends: of all runs so far.
        whole: runs of the whole length, by batch size and learning rate.
        start: what was expected before the first run.
        batch_sizes: to choose from.
        seconds: of the steps of a whole training at a batch size, on the hardware that the answer is for.
        spent_s: by range test and runs so far, likewise.
        seed: of the draws.
    """

    metric: Metric
    scale: Left
    ends: tuple[End, ...]
    whole: Mapping[Pair, Whole]
    start: Start
    batch_sizes: tuple[int, ...]
    seconds: Callable[[int], float] = field(repr=False)
    spent_s: float
    seed: int = 0

    @cached_property
    def posterior(self) -> EndPosterior:
        """Of the law of ends."""
        return fit(self.ends, self.start, seed=1000 * self.seed + len(self.ends))

    def expected(self, pairs: Sequence[Pair]) -> Array:
        """What is left at the end of trainings, the spread over seeds apart: of each draw; shape (draws, pairs).

        Where a run was made, half of the difference between its end and the law is taken to belong to its recipe.
        """
        law = self.posterior.left(np.array([b for b, _ in pairs]), np.array([lr for _, lr in pairs]))
        own = np.array([self.whole[pair].left if pair in self.whole else math.nan for pair in pairs])
        return np.where(np.isnan(own), law, law + _OWN * (np.nan_to_num(own) - law))

    @cached_property
    def best(self) -> Whole | None:
        """The run that left least."""
        return min(self.whole.values(), key=lambda whole: whole.left, default=None)

    def share(self, share: float) -> float:
        """Difference in logarithms of a share of the metric's value at the best end."""
        left = self.best.left if self.best else min((e.left for e in self.ends if e.left is not None), default=0.0)
        return self.scale.of_share(float(self.scale.value(np.array(left))), share)

    @cached_property
    def decision(self) -> Decision | None:
        """The recipe that is expected to end best, of those with a run of the whole length; the quickest of some alike.

        Where there is none, that of any run that trained; `None` where all diverged.
        """
        pairs = list(self.whole) or [(end.batch_size, end.lr) for end in self.ends if end.left is not None]
        if not pairs:
            return None
        left = self.expected(pairs)
        mean = left.mean(axis=0)
        alike = [i for i in range(len(pairs)) if mean[i] <= mean.min() + self.share(_ALIKE)]
        chosen = min(alike, key=lambda i: (self.seconds(pairs[i][0]), mean[i]))
        regret = left[:, chosen] - left.min(axis=1)
        return Decision(
            batch_size=pairs[chosen][0],
            lr=pairs[chosen][1],
            expected_regret=float(regret.mean()),
            probability_within_5_percent=float((regret <= self.share(0.05)).mean()),
        )

    @cached_property
    def candidates(self) -> list[Pair]:
        """Pairs to choose from: batch sizes by factors of 2, learning rates by factors of √2, around the start."""
        octaves = {size: abs(math.log2(size / self.start.batch_size)) for size in self.batch_sizes}
        sizes = [b for b in self.batch_sizes if octaves[b] <= _SIZES_AROUND and (b & (b - 1) == 0 or octaves[b] == 0)]
        steps = range(-_LRS_AROUND * _LR_STEPS, _LRS_AROUND * _LR_STEPS + 1)
        return [(b, float(f"{self.start.lr * 2.0 ** (k / _LR_STEPS):.3g}")) for b in sizes for k in steps]

    @cached_property
    def next(self) -> Next | None:
        """The next run; `None` where none is worth its time, or the search has taken its trainings."""
        if not self.ends:
            return Next(batch_size=self.start.batch_size, lr=self.start.lr, why="first look")
        decision = self.decision
        if decision is None:
            lowest = min(self.ends, key=lambda end: end.lr)
            lower = Next(batch_size=lowest.batch_size, lr=float(f"{lowest.lr / 8:.3g}"), why="all others diverged")
            return lower if len(self.ends) < _MOST_DIVERGED else None
        recipe, tried = (decision.batch_size, decision.lr), {(end.batch_size, end.lr) for end in self.ends}
        training_s = self.seconds(recipe[0])
        near = [pair for pair in self.candidates if pair not in tried and self._near(pair, recipe)]
        pairs = [pair for pair in near if self._can_pay(pair[0], training_s)]
        if not pairs:
            return None
        here = self.expected([recipe])
        gain = np.maximum(0.0, here - self.expected(pairs)).mean(axis=0)
        if self.whole and gain.max() < self.share(WORTH):
            return None
        price = np.array([self.seconds(b) for b, _ in pairs]) / training_s
        best = int((gain / np.maximum(price, _CHEAP) ** _COST_POWER).argmax())
        now, then = self.scale.value(here.mean() - np.array([0.0, gain[best]]))
        why = f"takes {number(price[best])} trainings, expected to gain {number(abs(now - then))} in {self.metric.name}"
        return Next(batch_size=pairs[best][0], lr=pairs[best][1], why=why)

    def _near(self, pair: Pair, recipe: Pair) -> bool:
        """Whether a pair is no further from the recipe so far than the law can be trusted."""
        sizes, lrs = math.log2(pair[0] / recipe[0]), math.log2(pair[1] / recipe[1])
        return max(abs(sizes), abs(lrs - self.start.slope * sizes)) <= _TRUSTED

    def _can_pay(self, batch_size: int, training_s: float) -> bool:
        """Whether the search with a run takes no more than its trainings at the recipe, or at that of the run."""
        run_s = self.seconds(batch_size)
        return self.spent_s + run_s <= MOST_TRAININGS * min(training_s, run_s)

    def rules(self, steps: int) -> list[StopRule]:
        """Rules that end a run of so many steps where it is hopeless."""
        rules: list[StopRule] = [NoGainRule(steps=math.ceil(_BEHIND_FROM * steps))]
        if self.best is not None:
            in_shares = BehindRule(
                reference=self.best.curve, step_time=1.0 / steps, factor=_BEHIND, from_share=_BEHIND_FROM
            )
            rules.append(in_shares)
        return rules

    @property
    def target(self) -> Target | None:
        """Where the run at the recipe ended, as a target; `None` before a run has an end."""
        decision, metric = self.decision, self.metric
        if decision is None:
            return None
        whole = self.whole.get((decision.batch_size, decision.lr))
        left = whole.left if whole else float(self.expected([(decision.batch_size, decision.lr)]).mean())
        return Target(metric=metric.name, value=float(self.scale.value(np.array(left))), mode=metric.mode)

    def end(self, batch_size: int, lr: float) -> Estimate:
        """Where a training at a recipe is expected to end, with the interval in which 90 % of them do."""
        of_evaluations = float(np.median([whole.spread for whole in self.whole.values()])) if self.whole else 0.0
        spread = np.hypot(math.sqrt(1.0 + _OWN) * self.posterior.spread, of_evaluations)
        left = self.expected([(batch_size, lr)]) + spread[:, None] * _QUANTILES
        return credible_interval(
            self.scale.value(left).ravel(),
            n=len(self.ends),
            unit="",
            method="law of where trainings of this length end, fitted to the runs, and the run at this recipe; 90 % "
            "credible interval for another run",
        )

    def gain(self, pair: Pair, over: Pair) -> tuple[float, float]:
        """Share of the metric's value by which a recipe ends better than another: mean, and 5 % quantile."""
        left = self.expected([over, pair])
        gain = (left[:, 0] - left[:, 1]) / self.share(1.0)
        return float(gain.mean()), float(np.quantile(gain, 0.05))


def first_batch_size(batch_sizes: Sequence[int], examples_of: Callable[[int], float]) -> int:
    """Batch size of the first run: nearest to √(examples of a training) / 4.

    So it is within a factor of 2 of the one that ends best in 11 of the 15 tables of `benchmarks/search/tables`.

    Args:
        batch_sizes: to choose from.
        examples_of: examples that a training of the length sees at a batch size.

    Example:
        >>> first_batch_size((1, 2, 4, 8, 16, 32, 64, 128), lambda batch_size: 30_000)
        32
    """
    return min(batch_sizes, key=lambda b: abs(math.log(b * _FIRST_SHARE / math.sqrt(examples_of(b)))))


def lengths_of(state: SearchState) -> Lengths:
    """What the runs of a search for a given length say."""

    def most(batch_size: int) -> int:
        return state.most_steps(batch_size) or 1

    runs = state.finished
    metric = state.question.judged_by
    curves = {run.id: _curve(run, metric, most(run.config.batch_size)) for run in runs}
    values = [value for curve in curves.values() for _, value in curve if math.isfinite(value)]
    scale = Left.of(values, rising=metric.mode == "max") if values else Left(kind="plain")
    whole = {_pair(run.config): _whole(run, curves[run.id], scale) for run in runs if _came_to_its_end(run)}
    best = min(whole.values(), key=lambda each: each.left, default=None)
    return Lengths(
        metric=metric,
        scale=scale,
        ends=tuple(_end(run, curves[run.id], scale, whole.get(_pair(run.config)), best) for run in runs),
        whole=whole,
        start=_start(state, lambda batch_size: float(batch_size * most(batch_size))),
        batch_sizes=state.batch_sizes,
        seconds=lambda batch_size: most(batch_size) * state.seconds_of(batch_size),
        spent_s=state.device_seconds() - (state.bench.device_seconds if state.bench_counts else 0.0),
        seed=state.question.seed,
    )


def _start(state: SearchState, examples_of: Callable[[int], float]) -> Start:
    """The current recipe, or the pair that follows from the range test."""
    current, test, slope = state.question.current, state.rate_range, state.prior.slope[0]
    within = state.question.within
    by_steps = within is not None and within.unit == "steps"
    if current is not None:
        return Start(batch_size=current.batch_size, lr=current.lr, slope=slope, equal_steps=by_steps)
    assert test is not None
    size = first_batch_size(state.batch_sizes, examples_of)
    lr = float(f"{test.pilot_lr * (size / test.batch_size) ** slope:.3g}")
    return Start(batch_size=size, lr=lr, slope=slope, equal_steps=by_steps)


def _curve(run: StoredRun, metric: Metric, most: int) -> list[tuple[int, float]]:
    """Steps and values of the evaluations within the length; a run may have been given more by an earlier clock."""
    aim = Target(metric=metric.name, value=0.0, mode=metric.mode)
    return [(step, value) for step, value in curve_of(run.rows, aim) if step <= most]


def _came_to_its_end(run: StoredRun) -> bool:
    return run.result is not None and run.result.status is RunStatus.OUT_OF_STEPS


def _whole(run: StoredRun, curve: Sequence[tuple[int, float]], scale: Left) -> Whole:
    steps, last = curve[-1]
    level, _, spread = _level(run, curve)
    return Whole(
        run=run,
        steps=steps,
        last=last,
        left=scale.log(level),
        spread=_in_logs(scale, level, spread),
        curve=[(step / steps, value) for step, value in curve],
    )


def _in_logs(scale: Left, value: float, deviation: float) -> float:
    """Standard deviation in `Left.log` of one of the metric, around a value."""
    return 0.5 * abs(scale.log(value + deviation) - scale.log(value - deviation))


def _level(run: StoredRun, curve: Sequence[tuple[int, float]]) -> tuple[float, float, float]:
    """Level at which a run ends, its standard error, and the standard deviation of one evaluation about it.

    Where the learning rate decays it is the last value.
    """
    found = end_value([float(step) for step, _ in curve], [value for _, value in curve])
    last = curve[-1][1]
    spread = (found.spread or 0.0) if found else 0.0
    if found is None or run.config.schedule != "constant":
        return last, spread, spread
    return found.value, found.standard_error or 0.0, spread


def _end(
    run: StoredRun, curve: Sequence[tuple[int, float]], scale: Left, whole: Whole | None, best: Whole | None
) -> End:
    """The end of a run; of one that was stopped, as far behind the best as it was there."""
    size, lr = _pair(run.config)
    if run.result is None or run.result.status is RunStatus.DIVERGED or not math.isfinite(curve[-1][1]):
        return End(batch_size=size, lr=lr, left=None)
    if whole is not None:
        level, error, _ = _level(run, curve)
        return End(batch_size=size, lr=lr, left=whole.left, sd=_in_logs(scale, level, error))
    steps, value = curve[-1]
    now = scale.log(value)
    there = None
    if best is not None:
        shares, values = zip(*best.curve, strict=True)
        there = value_at(shares, values, steps / run.config.max_steps)
    if best is None or there is None:
        return End(batch_size=size, lr=lr, left=now, sd=_UNKNOWN_REST)
    gap = max(0.0, now - scale.log(there))
    return End(batch_size=size, lr=lr, left=best.left + gap, sd=_GAP_KEPT * gap + _LEAST_GAP)


def _pair(config: RunConfig) -> Pair:
    return config.batch_size, config.lr
