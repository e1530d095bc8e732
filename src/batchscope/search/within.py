"""Trainings of a given length (`--within`): which to make next, which recipe is expected to end best, and where.

Every run has the whole length, whatever its evaluations say; only one that is hopelessly behind the best so far, or
never gets better than fresh weights, ends early. Where runs end is a law of batch size and learning rate
(`fits.end_values`); each run is the one of largest expected improvement for its time, until none is worth it or the
search has taken five trainings. The first is at the batch size √(examples of the training) / 4, or at equal steps at a
large one, and at the learning rate of the range test; from there the learning rate climbs until training is found
(`ladder`). Nothing is answered that was not clearly better than fresh weights, and no run that ended clearly worse
than another. A run ends at the level of its last evaluations (`fits.evaluation_noise`), never at the best of
many; where the learning rate decays, at the last one. Numbers only, no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from ..fits.end_values import End, EndPosterior, Left, Start, fit
from ..fits.posterior import credible_interval
from ..store.endings import LEAST_GAIN
from ..store.ranges import ANY, Range
from ..store.records import Estimate, Metric, Target
from ..store.runs import StoredRun
from ..training.stopping import BehindRule, NoGainRule, StopRule
from ..wording import number
from .ladder import Climb
from .strategies.anchors import Decision
from .strategies.space import Pair

__all__ = ["MOST_TRAININGS", "WORTH", "Lengths", "Next", "Whole"]

Array = NDArray[np.float64]

MOST_TRAININGS = 5.0
_TRAINED, _DOUBT = 0.02, 2.0
"""Share of what is left with fresh weights that a run must gain to have trained, and standard deviations of its end."""
_CLEARLY_WORSE = 0.05
WORTH, _ALIKE = 0.003, 0.005
"""Share of the metric's value that a run must be expected to gain, and by which two recipes are taken to end alike."""
_COST_POWER, _CHEAP = 0.3, 1.0
_OWN = 0.5
"""Share of the difference between a run's end and the law that another run at the same recipe repeats. How well that is
known adds the same share of the variance over seeds."""
_SIZES_AROUND, _LRS_AROUND, _LR_STEPS = 6, 5, 2
_TRUSTED = 2.01
"""Octaves of batch size, and of learning rate beside what goes with it, from the recipe so far to the next run."""
_OTHER_SIZE = 4.0
"""Factor to the second batch size of a search that has run one alone."""
_FAR = 2.5
"""Octaves of learning rate from the first run to the best of the climb, from which the range test was wrong."""
_GAINS = ((0.1, 0.0), (0.25, LEAST_GAIN))
"""Shares of its length, after the warm-up, from which a run must have gained more than a share of fresh weights' value.
"""
_BEHIND, _BEHIND_FROM = 4.0, 0.2
"""Times the share of the length at which the best run was as good, after which share of its own a run is hopeless."""
_SAYS_NOTHING = 3.0
"""Width of an interval, in logarithms of what is left, from which it is said that it is not known."""
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
        error: standard error of that level, likewise.
        curve: share of the length and value of its evaluations.
    """

    run: StoredRun
    steps: int
    last: float
    left: float
    spread: float
    error: float
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
        fresh: what fresh weights leave, by `Left.log`; `None`: not known.
        limits: what the metric can be.
        costs_s: of each run, likewise.
        seed: of the draws.
        current: the recipe in use, which is run to compare with.
    """

    metric: Metric
    scale: Left
    ends: tuple[End, ...]
    whole: Mapping[Pair, Whole]
    start: Start
    batch_sizes: tuple[int, ...]
    seconds: Callable[[int], float] = field(repr=False)
    spent_s: float
    fresh: float | None = None
    limits: Range = ANY
    costs_s: tuple[float, ...] = ()
    seed: int = 0
    current: Pair | None = None

    @cached_property
    def centre(self) -> Start:
        """What the law expects: the start, at the learning rate that the climb came to where that is far from it."""
        climbed = [end for end in self.trained if end.batch_size == self.start.batch_size]
        best = min(climbed, key=lambda end: end.left or 0.0, default=None)
        if best is None or abs(math.log2(best.lr / self.start.lr)) < _FAR:
            return self.start
        return replace(self.start, lr=best.lr)

    @cached_property
    def posterior(self) -> EndPosterior:
        """Of the law of ends."""
        return fit(self.ends, self.centre, seed=1000 * self.seed + len(self.ends))

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

    @property
    def fresh_value(self) -> float | None:
        """The metric with fresh weights; `None`: not known."""
        return None if self.fresh is None else float(self.scale.value(np.array(self.fresh)))

    @cached_property
    def trained(self) -> tuple[End, ...]:
        """Ends of runs that were clearly better than fresh weights."""
        return tuple(end for end in self.ends if self._gained(end))

    def _gained(self, end: End) -> bool:
        if end.left is None:
            return False
        return self.fresh is None or self.fresh - end.left > max(self._least_gain, _DOUBT * end.sd)

    @property
    def _least_gain(self) -> float:
        """Gain over fresh weights, in logarithms, below which a run has not trained."""
        if self.fresh is None:
            return 0.0
        return _TRAINED if self.scale.kind != "plain" else max(_TRAINED, self.share(_TRAINED))

    @cached_property
    def answers(self) -> list[Pair]:
        """Pairs that may be answered: those of whole runs, none of which ended clearly worse than another.

        Where there is none, those of any run that trained.
        """
        trained = [(end.batch_size, end.lr) for end in self.trained]
        whole = {pair: self.whole[pair] for pair in trained if pair in self.whole}
        if not whole:
            return trained
        best = min(whole.values(), key=lambda each: each.left)

        def clearly_worse(each: Whole) -> bool:
            return each.left - best.left > max(self.share(_CLEARLY_WORSE), math.hypot(each.error, best.error))

        return [pair for pair, each in whole.items() if not clearly_worse(each)]

    @cached_property
    def decision(self) -> Decision | None:
        """The recipe that is expected to end best of those that may be answered; the quickest of some alike.

        `None` where no run was clearly better than fresh weights.
        """
        pairs = self.answers
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
        """Pairs to choose from: batch sizes by factors of 2, learning rates by factors of √2, around the centre."""
        octaves = {size: abs(math.log2(size / self.start.batch_size)) for size in self.batch_sizes}
        sizes = [b for b in self.batch_sizes if octaves[b] <= _SIZES_AROUND and (b & (b - 1) == 0 or octaves[b] == 0)]
        steps = range(-_LRS_AROUND * _LR_STEPS, _LRS_AROUND * _LR_STEPS + 1)
        return [(b, float(f"{self.centre.lr * 2.0 ** (k / _LR_STEPS):.3g}")) for b in sizes for k in steps]

    @cached_property
    def next(self) -> Next | None:
        """The next run; `None` where none is worth its time, or the search has taken its trainings."""
        if not self.ends:
            return Next(batch_size=self.start.batch_size, lr=self.start.lr, why="first run")
        tried = {(end.batch_size, end.lr) for end in self.ends}
        if self.current is not None and self.current not in tried:
            return Next(batch_size=self.current[0], lr=self.current[1], why="the current recipe, to compare with")
        first = self.ends[0] if self.current is None else self._first
        climb = [end for end in self.ends if end.batch_size == first.batch_size]
        if rung := Climb(first=first.lr, ends=climb, fresh=self.fresh, least=self._least_gain).next:
            return Next(batch_size=first.batch_size, lr=rung.lr, why=rung.why)
        decision = self.decision
        return None if decision is None else self._by_law((decision.batch_size, decision.lr), tried)

    @property
    def _first(self) -> End:
        """The end of the run that the climb began at: the first that is not the current recipe's."""
        return next((end for end in self.ends if (end.batch_size, end.lr) != self.current), self.ends[0])

    def _by_law(self, recipe: Pair, tried: set[Pair]) -> Next | None:
        """The run of largest expected improvement for its time, at another batch size where only one was run."""
        training_s = self.seconds(recipe[0])
        if len({end.batch_size for end in self.trained}) == 1 and len({b for b, _ in tried}) == 1:
            return self._other_size(recipe)
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
        why = f"may improve {self.metric.name} by {number(abs(now - then))}"
        return Next(batch_size=pairs[best][0], lr=pairs[best][1], why=why)

    def _other_size(self, recipe: Pair) -> Next | None:
        """A run at a batch size a factor of 4 away, where it is expected to end better of what can be paid, or cheaper.

        Its learning rate is what goes with it. There is none where one batch size can be chosen.
        """
        size = recipe[0]
        nearest = [
            min(self.batch_sizes, key=lambda b: abs(math.log(b / (size * factor))))
            for factor in (_OTHER_SIZE, 1.0 / _OTHER_SIZE)
        ]
        pairs = [(b, float(f"{recipe[1] * (b / size) ** self.start.slope:.3g}")) for b in nearest if b != size]
        if not pairs:
            return None
        can_pay = [pair for pair in pairs if self._can_pay(pair[0], self.seconds(size))]
        pairs = can_pay or [min(pairs, key=lambda pair: self.seconds(pair[0]))]
        best = int(self.expected(pairs).mean(axis=0).argmin())
        return Next(batch_size=pairs[best][0], lr=pairs[best][1], why="does another batch size end better?")

    def _near(self, pair: Pair, recipe: Pair) -> bool:
        """Whether a pair is no further from the recipe so far than the law can be trusted."""
        sizes, lrs = math.log2(pair[0] / recipe[0]), math.log2(pair[1] / recipe[1])
        return max(abs(sizes), abs(lrs - self.start.slope * sizes)) <= _TRUSTED

    def _can_pay(self, batch_size: int, training_s: float) -> bool:
        """Whether the search with a run takes no more than its trainings at the recipe, or at that of the run.

        Runs that did not train, or far from where the climb came to, are not counted: they were to find that.
        """
        run_s = self.seconds(batch_size)
        lost_s = sum(cost for cost, end in zip(self.costs_s, self.ends, strict=False) if self._only_led_on(end))
        return self.spent_s - lost_s + run_s <= MOST_TRAININGS * min(training_s, run_s)

    def _only_led_on(self, end: End) -> bool:
        """Whether a run did not train, or was a far rung of the climb."""
        rung = end.batch_size == self.start.batch_size
        return not self._gained(end) or (rung and abs(math.log2(end.lr / self.centre.lr)) > _FAR)

    def rules(self, steps: int, warmup_steps: int = 0) -> list[StopRule]:
        """Rules that end a run of so many steps where it is hopeless."""
        after = max(0, steps - warmup_steps)
        rules: list[StopRule] = [
            NoGainRule(steps=warmup_steps + math.ceil(share * after), gain=gain) for share, gain in _GAINS
        ]
        if self.best is not None and self.trained:
            far: dict[str, Any] = {"end": _BEHIND, "lag": _BEHIND, "falls": 0.0, "from_share": _BEHIND_FROM}
            rules.append(BehindRule(reference=self.best.curve, step_time=1.0 / steps, **far))
        return rules

    @property
    def target(self) -> Target | None:
        """Where the run at the recipe ended, as a target; `None` before a run has an end."""
        decision, metric = self.decision, self.metric
        if decision is None:
            return None
        value = self._own_value(decision.batch_size, decision.lr)
        return Target(metric=metric.name, value=value, mode=metric.mode)

    def end(self, batch_size: int, lr: float) -> Estimate:
        """Where a training at a recipe is expected to end, with the interval in which 90 % of them do."""
        of_evaluations = float(np.median([whole.spread for whole in self.whole.values()])) if self.whole else 0.0
        spread = np.hypot(math.sqrt(1.0 + _OWN) * self.posterior.spread, of_evaluations)
        left = (self.expected([(batch_size, lr)]) + spread[:, None] * _QUANTILES).ravel()
        found = credible_interval(
            self.scale.value(left),
            n=len(self.ends),
            unit="",
            method="law of where trainings of this length end, fitted to the runs, and the run at this recipe; 90 % "
            "credible interval for another run",
        )
        low, high = np.quantile(left, (0.05, 0.95))
        if high - low > _SAYS_NOTHING:
            return replace(found, value=self._own_value(batch_size, lr), low=None, high=None)
        value, low, high = (None if end is None else self.limits.clipped(end) for end in _ends(found))
        return replace(found, value=value, low=low, high=high)

    def _own_value(self, batch_size: int, lr: float) -> float:
        """Where the run at a recipe ended, or in the middle of the law."""
        whole = self.whole.get((batch_size, lr))
        left = whole.left if whole else float(np.median(self.expected([(batch_size, lr)])))
        return self.limits.clipped(float(self.scale.value(np.array(left))))

    def gain(self, pair: Pair, over: Pair) -> tuple[float, float]:
        """Share of the metric's value by which a recipe ends better than another: mean, and 5 % quantile."""
        left = self.expected([over, pair])
        gain = (left[:, 0] - left[:, 1]) / self.share(1.0)
        return float(gain.mean()), float(np.quantile(gain, 0.05))


def _ends(found: Estimate) -> tuple[float | None, float | None, float | None]:
    return found.value, found.low, found.high
