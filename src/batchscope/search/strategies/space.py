"""What every strategy is asked, and answers: a space of batch sizes and learning rates, trials in it, the next run.

A strategy is a function of what has been seen and of nothing else, so that a search that was killed comes to the same
next run from the same trials. It trains nothing and reads no clock: the price of a run is handed to it as a *cost*,
which is seconds on the hardware that the answer is for, or examples, whatever is to be minimised.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

__all__ = ["Offer", "Pair", "Request", "Space", "Strategy", "Trial", "best", "cut_off", "follow", "trial_at"]

_BELOW_CEILING = 3000.0
"""Highest learning rate ÷ lowest. On the tasks of `benchmarks/` the best one lies 4 to 60 times below the ceiling at
the batch size of the range test; smaller batches want lower ones, in proportion to the batch at most."""

_MOST_REQUESTS = 1000

Pair = tuple[int, float]
"""A batch size and a learning rate."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """Where to look: a list of batch sizes, and learning rates between two ends, of which the logarithm counts.

    Attributes:
        batch_sizes: ascending.
        lr_low: the lowest learning rate, above zero.
        lr_high: the highest.

    Raises:
        ValueError: there is no batch size, or the learning rates are not in order.
    """

    batch_sizes: tuple[int, ...]
    lr_low: float
    lr_high: float

    def __post_init__(self) -> None:
        if not self.batch_sizes or list(self.batch_sizes) != sorted(set(self.batch_sizes)):
            raise ValueError(f"batch sizes {self.batch_sizes} are not an ascending list of at least one")
        if not 0.0 < self.lr_low <= self.lr_high < math.inf:
            raise ValueError(
                f"learning rates from {self.lr_low:g} to {self.lr_high:g}: the first must be above 0, and lower"
            )

    @classmethod
    def below(cls, ceiling_lr: float, batch_sizes: Sequence[int]) -> Space:
        """The space that a range test leaves: learning rates from its ceiling down to a three-thousandth of it.

        Args:
            ceiling_lr: where training broke when the learning rate was doubled every step, or may as well have.
            batch_sizes: to choose from, ascending.

        Example:
            >>> Space.below(3.0, (16, 32))
            Space(batch_sizes=(16, 32), lr_low=0.001, lr_high=3.0)
        """
        return cls(batch_sizes=tuple(batch_sizes), lr_low=ceiling_lr / _BELOW_CEILING, lr_high=ceiling_lr)

    def lr_at(self, share: float) -> float:
        """The learning rate at a share of the way from the lowest to the highest, in logarithms, to three digits."""
        lr = float(f"{self.lr_low ** (1.0 - share) * self.lr_high**share:.3g}")
        return min(max(lr, self.lr_low), self.lr_high)

    def draw(self, rng: np.random.Generator) -> Pair:
        """A pair at random: the batch sizes of the list equally likely, the learning rate uniform in its logarithm."""
        index = int(rng.integers(len(self.batch_sizes)))
        return self.batch_sizes[index], self.lr_at(float(rng.random()))

    def holds(self, pair: Pair) -> bool:
        """Whether the pair lies in the space."""
        return pair[0] in self.batch_sizes and self.lr_low <= pair[1] <= self.lr_high


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run as a strategy sees it, however often it was paused and went on.

    Attributes:
        batch_size: of the run.
        lr: of the run.
        status: `reached` the target; `stopped` at the limit of its request, and could go on; `failed`: it ended by
            itself above the target (diverged, stalled, overfitted, out of steps).
        cost: spent so far.
        cost_to_target: at the first passage; `None` unless reached.
        curve: cost and target metric at each evaluation, in order, the one before the first step included.
        larger_is_better: of the metric.
    """

    batch_size: int
    lr: float
    status: Literal["reached", "stopped", "failed"]
    cost: float
    cost_to_target: float | None = None
    curve: Sequence[tuple[float, float]] = ()
    larger_is_better: bool = False

    @property
    def pair(self) -> Pair:
        """Batch size and learning rate of the run."""
        return self.batch_size, self.lr

    def loss_at(self, cost: float) -> float:
        """The best value of the metric up to a cost, as a loss: negated where larger is better; infinite if none."""
        values = [-v if self.larger_is_better else v for c, v in self.curve if c <= cost and math.isfinite(v)]
        return min(values, default=math.inf)


@dataclass(frozen=True, kw_only=True)
class Request:
    """The next run: a new one, or one that was stopped and goes on.

    Attributes:
        batch_size: of the run.
        lr: of the run.
        limit: total cost at which it is paused, counted from its first step; `None`: it goes on to its end.
        why: for whoever watches.
    """

    batch_size: int
    lr: float
    limit: float | None
    why: str


class Strategy(Protocol):
    """Says which run comes next."""

    def __call__(self, space: Space, trials: Sequence[Trial], seed: int) -> Request | None:
        """The next run, the same for the same arguments.

        Args:
            space: where to look.
            trials: one for each pair seen so far, in the order in which they were begun; runs that the strategy did
                not ask for may be among them, as long as they come first.
            seed: of everything drawn at random.

        Returns:
            The request; `None` when the strategy has finished.
        """
        ...


def _needs_nothing() -> None:
    """Nothing has to be installed."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What a strategy's file says of it, so that `--search` can name it.

    Attributes:
        words: the search in words, for the terminal and the page.
        typical_runs: what it costs, in trainings at its recipe; the predicted duration follows from it.
        build: makes the strategy; it is given the first run of the search, which is there before a strategy is asked.
        require: raises `UsageError` where a package is missing; called before anything is measured.
    """

    words: str
    typical_runs: float
    build: Callable[[Trial], Strategy]
    require: Callable[[], None] = _needs_nothing


def follow(
    strategy: Strategy,
    space: Space,
    make: Callable[[Request], Trial | None],
    seed: int = 0,
    given: Sequence[Trial] = (),
) -> list[Trial]:
    """Make the runs that a strategy asks for until it has finished.

    Args:
        strategy: asked for one run after another.
        space: where it looks.
        make: trains, or reads what is finished, and hands back the whole run as a trial; `None`: no time is left.
        seed: of everything drawn at random.
        given: runs that were there before it began.

    Returns:
        The trials, those given first, each pair once.
    """
    trials = {trial.pair: trial for trial in given}
    for _ in range(_MOST_REQUESTS):
        request = strategy(space, list(trials.values()), seed)
        made = None if request is None else make(request)
        if made is None:
            break
        trials[made.pair] = made
    return list(trials.values())


def best(trials: Sequence[Trial]) -> Trial | None:
    """The trial that reached the target at the lowest cost, the earlier one of two; `None` where none did."""
    return min((t for t in trials if t.cost_to_target is not None), key=_cost_to_target, default=None)


def cut_off(trials: Sequence[Trial], factor: float) -> float | None:
    """The cost from which a run cannot be the best any more: `factor` times the lowest so far; `None` if there is none.

    The adaptive capping of Hutter, Hoos, Leyton-Brown and Stützle (2009, section 4): what is searched for is a minimum
    time, so a run that has taken longer than another needed has lost, whatever it would show later.
    """
    found = best(trials)
    return None if found is None else factor * _cost_to_target(found)


def trial_at(trials: Sequence[Trial], pair: Pair) -> Trial | None:
    """The trial at a pair, if there is one."""
    return next((trial for trial in trials if trial.pair == pair), None)


def _cost_to_target(trial: Trial) -> float:
    return math.inf if trial.cost_to_target is None else trial.cost_to_target
