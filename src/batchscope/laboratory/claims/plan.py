"""What is run to decide all statements on a task, and how it is made to fit into a budget. Numbers only, no torch.

One grid of batch sizes, learning rates and seeds serves most statements. Beside it, from the grid's own results:

    fixed steps     every batch size the same number of updates, at one learning rate
    long            a batch size and eight times as many, several times as many epochs, at one learning rate
    few examples    batch sizes and learning rates on a small part of the training data
    norm            batch normalisation before and after the activation, at two batch sizes and all learning rates
    orders          the same initial weights in many orders of the data, with and without batch normalisation
    trials          the advice to begin small and grow

*One learning rate* is the learning rate at which the smallest batch size is best, as in the published experiments: a
learning rate that suits small batches. All lengths follow from the grid's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ...errors import UsageError
from ..records import note_name

__all__ = [
    "FEW",
    "FIXED",
    "LONG",
    "NORM",
    "PART_OF_BUDGET",
    "ClaimsPlan",
    "NormPlace",
    "competition_note",
    "is_trial",
    "norm_variant",
    "order_variant",
    "plan_for",
    "rates_below",
    "robustness_note",
    "sharpness_note",
    "trial_variant",
]

FIXED, LONG, FEW = "fixed steps", "long", "few examples"
"""How the runs beside the grid are named; functions name those that there are several of."""

NORM = "norm"
"""The measurement that is there, not applicable, where batch normalisation cannot be configured in the model."""

NormPlace = Literal["none", "before", "after"]
"""Where batch normalisation stands: nowhere, in front of each activation, or behind it."""

_TRIAL = "trial, "

PART_OF_BUDGET = 0.6
"""Of the budget that the plan is made to fill, as predicted: step times drift, and probes and pages come on top."""

_LARGEST_SHARE = 2.5
_LARGEST = 1024
_FACTOR = 4
_COUNT = 4
_RATES = 6
_EPOCHS = (20, 14, 10, 7, 5)
_SEEDS = (7, 5, 4, 3)


@dataclass(frozen=True, kw_only=True)
class ClaimsPlan:
    """The numbers of all runs."""

    batch_sizes: tuple[int, ...]
    """Increasing; two at least."""
    lrs: tuple[float, ...]
    """Increasing; two at least."""
    seeds: tuple[int, ...]
    epochs: float
    """Of a run of the grid."""
    least_batch_size: int = 1
    """Examples that the model needs to be trained at all: 2 with batch normalisation."""

    def __post_init__(self) -> None:
        if len(self.batch_sizes) < 2 or len(self.lrs) < 2:
            raise UsageError(
                f"the statements compare batch sizes and learning rates: {len(self.batch_sizes)} batch sizes and "
                f"{len(self.lrs)} learning rates are too few; give at least two of each"
            )
        if len(self.seeds) < 2:
            raise UsageError(f"{len(self.seeds)} seed has no spread to decide by; give --seeds of at least 2, better 5")

    @property
    def smallest(self) -> int:
        """The smallest batch size of the grid."""
        return self.batch_sizes[0]

    @property
    def largest(self) -> int:
        """The largest batch size of the grid."""
        return self.batch_sizes[-1]

    @property
    def middle(self) -> int:
        """The second smallest batch size: steps enough, at a price that is bearable; of two, the larger."""
        return self.batch_sizes[1]

    @property
    def long_sizes(self) -> tuple[int, ...]:
        """The middle batch size and eight times as many, no more than the largest; both, where there are two."""
        return (self.middle, min(8 * self.middle, self.largest)) if len(self.batch_sizes) > 2 else self.batch_sizes[:2]

    @property
    def norm_sizes(self) -> tuple[int, ...]:
        """Batch sizes of the runs with batch normalisation."""
        return (self.middle, self.largest) if len(self.batch_sizes) > 2 else self.batch_sizes

    @property
    def long_epochs(self) -> float:
        """Epochs of a run that is to go past its validation minimum."""
        return 5 * self.epochs

    def fixed_steps(self, examples: int) -> int:
        """Updates that every batch size gets: what the largest but one makes in the grid."""
        return max(30, round(self.epochs * examples / self.batch_sizes[-2]))

    def few(self, examples: int) -> int:
        """Training examples of the runs with little data: a fifth, 300 at most, room for the batch sizes at least."""
        return min(examples, max(4 * self.smallest, min(300, examples // 5)))

    def few_sizes(self, examples: int) -> tuple[int, ...]:
        """Batch sizes that fit into them twice."""
        sizes = [b for b in self.batch_sizes if 2 * b <= self.few(examples)]
        if len(sizes) > 1:
            return tuple(sizes)
        least = max(self.least_batch_size, min(self.smallest, self.few(examples) // 8))
        return least, max(least + 1, min(4 * least, self.few(examples)))

    @property
    def few_epochs(self) -> float:
        """Epochs of a run with little data."""
        return 2.5 * self.epochs

    @property
    def orders(self) -> int:
        """Number of orders of the data that are trained on from the same weights."""
        return 2 * len(self.seeds)

    def steps(self, examples: int) -> Iterator[tuple[int, float]]:
        """Batch size and number of steps, of everything that is run, roughly."""
        rates, seeds = len(self.lrs), len(self.seeds)

        def of(sizes: Sequence[int], epochs: float, n: int, runs: int) -> Iterator[tuple[int, float]]:
            return ((b, runs * epochs * n / b) for b in sizes)

        yield from of(self.batch_sizes, self.epochs, examples, rates * seeds)
        yield from of(self.norm_sizes, self.epochs, examples, 2 * rates * seeds)
        yield from of(self.long_sizes, self.long_epochs, examples, seeds)
        yield from of((self.middle,), self.epochs / 2, examples, 2 * self.orders)
        yield from of(self.few_sizes(examples), self.few_epochs, self.few(examples), rates * seeds)
        yield from of(self.batch_sizes[:2], 2 * self.epochs, examples, seeds)
        yield from ((b, seeds * self.fixed_steps(examples)) for b in self.batch_sizes)

    def runs(self, examples: int) -> int:
        """Number of runs, trials apart, whose number nobody knows beforehand."""
        seeds, rates = len(self.seeds), len(self.lrs)
        grids = len(self.batch_sizes) + 2 * len(set(self.norm_sizes)) + len(self.few_sizes(examples))
        return seeds * (rates * grids + len(self.batch_sizes) + len(set(self.long_sizes))) + 2 * self.orders

    def seconds(self, examples: int, step_s: Callable[[int], float], evaluation_s: float) -> float:
        """How long the runs take, roughly."""
        evaluations = self.runs(examples) * self.epochs + 2 * len(self.seeds) * self.long_epochs
        return sum(n * step_s(b) for b, n in self.steps(examples)) + evaluations * evaluation_s


def plan_for(
    examples: int,
    *,
    lrs: Sequence[float],
    seed: int,
    seconds_to_use: float,
    step_s: Callable[[int], float],
    evaluation_s: float,
    smallest: int = 1,
    batch_sizes: tuple[int, ...] = (),
    seeds: int | None = None,
    epochs: float | None = None,
) -> ClaimsPlan:
    """The largest plan that fits: batch sizes by a factor of 4 from 8 on, then fewer epochs and seeds, then from 16 on.

    Args:
        examples: in the training set.
        lrs: the learning rates.
        seed: the first of the seeds.
        seconds_to_use: how long the runs may take.
        step_s: seconds of a step at a batch size.
        evaluation_s: seconds of an evaluation.
        smallest: batch size that the model can be trained on.
        batch_sizes: fixed beforehand; empty: free.
        seeds: how many, fixed beforehand; `None`: free.
        epochs: fixed beforehand; `None`: free.

    Returns:
        The first that fits; where none does, the smallest one: it will be cut off, most important runs first.
    """
    options = [
        ClaimsPlan(
            batch_sizes=sizes,
            lrs=tuple(sorted(lrs)),
            seeds=tuple(range(seed, seed + n)),
            epochs=length,
            least_batch_size=smallest,
        )
        for sizes in ([batch_sizes] if batch_sizes else _sizes(examples, smallest))
        for n in (_SEEDS if seeds is None else (seeds,))
        for length in (_EPOCHS if epochs is None else (epochs,))
    ]
    fits = (plan for plan in options if plan.seconds(examples, step_s, evaluation_s) <= seconds_to_use)
    return next(fits, None) or min(options, key=lambda plan: plan.seconds(examples, step_s, evaluation_s))


def _sizes(examples: int, smallest: int) -> list[tuple[int, ...]]:
    """Choices of batch sizes, from the widest range to the narrowest."""
    largest = max(2 * smallest, min(_LARGEST, int(examples / _LARGEST_SHARE)))
    found: list[tuple[int, ...]] = []
    for first in (8, 16, 32, 64):
        start = min(max(first, smallest), max(smallest, largest // 4))
        sizes = [start * _FACTOR**i for i in range(_COUNT)]
        inside = tuple(b for b in sizes if b <= largest)
        sizes = inside if len(inside) > 1 else (start, largest)
        if sizes not in found:
            found.append(sizes)
    return found


def rates_below(ceiling: float, count: int = _RATES) -> tuple[float, ...]:
    """Learning rates by a factor of √10 on the fixed points 1, 3.16, 10, ..., the highest at or below a ceiling.

    Fixed points, so that two seeds, whose ceilings differ a little, compare the same learning rates.

    >>> rates_below(8.3, 4)
    (0.1, 0.316, 1.0, 3.16)
    """
    top = math.floor(2 * math.log10(ceiling))
    return tuple(float(f"{10 ** ((top - i) / 2):.3g}") for i in reversed(range(count)))


def trial_variant(epochs: float) -> str:
    """The name of trials of one length.

    >>> trial_variant(2.5)
    'trial, 2.5 epochs'
    """
    return f"{_TRIAL}{epochs:g} epochs"


def is_trial(variant: str) -> bool:
    """Whether a variant is that of trials, of any length.

    >>> is_trial(trial_variant(2.5)), is_trial(FIXED)
    (True, False)
    """
    return variant.startswith(_TRIAL)


def norm_variant(where: NormPlace) -> str:
    """The name of runs of the grid with batch normalisation configured."""
    return f"norm {where}"


def order_variant(where: NormPlace) -> str:
    """The name of runs in many orders of the data, all from the same weights."""
    return f"order, {norm_variant(where)}"


def competition_note(batch_size: int) -> str:
    """The name of the measurement of how gradients of two batches compete."""
    return note_name("competition", batch_size)


def robustness_note(where: NormPlace, seed: int) -> str:
    """The name of the measurement of a run's answers to disturbed inputs."""
    return note_name("robustness", f"{where if where == 'none' else norm_variant(where)}-{seed}")


def sharpness_note(batch_size: int, lr: float, seed: int) -> str:
    """The name of the measurement of the sharpness at the end of a run."""
    return note_name("sharpness", f"{batch_size}-{lr:g}-{seed}")
