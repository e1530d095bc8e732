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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ...errors import UsageError
from ..records import Length, note_name

if TYPE_CHECKING:
    from ...store.runs import StoredRun

__all__ = [
    "FEW",
    "FIXED",
    "LONG",
    "NORM",
    "ClaimsPlan",
    "NormPlace",
    "competition_note",
    "counts",
    "first_choices",
    "is_trial",
    "largest_plan",
    "later_choices",
    "norm_variant",
    "order_variant",
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

_LARGEST_SHARE = 2.5
_LARGEST = 1024
_FACTOR = 4
_COUNT = 4
_RATES = 6
_EPOCHS = (20, 14, 10, 7, 5)
_SEEDS = (7, 5, 4, 3)
_LONG_EPOCHS = 40
_ORDERS = 2
"""Of the data, for each seed."""


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
        """Epochs of a run that is to go past its validation minimum; they are few, and stay long in a short plan."""
        return max(5 * self.epochs, min(_LONG_EPOCHS, 10 * self.epochs))

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

    def orders_of(self, seed: int) -> range:
        """Numbers of the orders of the data that are trained on from the same weights with a seed of the plan."""
        at = seed - self.seeds[0]
        return range(_ORDERS * at, _ORDERS * (at + 1))

    @property
    def pilot(self) -> tuple[tuple[int, float], ...]:
        """Batch size and learning rate of the runs that are made first, and show the pace: one of each batch size."""
        return tuple((b, self.inside_out[0]) for b in reversed(self.batch_sizes))

    @property
    def inside_out(self) -> tuple[float, ...]:
        """The learning rates from the middle one on, where a budget that ends early leaves the most."""
        middle = len(self.lrs) // 2
        return tuple(sorted(self.lrs, key=lambda lr: abs(self.lrs.index(lr) - middle)))


def counts(plan: ClaimsPlan, run: StoredRun, examples: int) -> bool:
    """Whether a run belongs to a plan: a run of the grid that an earlier plan asked for may not."""
    config = run.config
    if config.settings.get("variant"):
        return True
    length = Length(unit="epochs", amount=plan.epochs).steps(examples, config.batch_size)
    grid = config.batch_size in plan.batch_sizes and config.lr in plan.lrs and config.seed in plan.seeds
    return grid and config.max_steps == length


def first_choices(
    examples: int,
    *,
    lrs: Sequence[float],
    seed: int,
    smallest: int = 1,
    batch_sizes: tuple[int, ...] = (),
    seeds: int | None = None,
    epochs: float | None = None,
    fixed_lrs: bool = False,
) -> list[ClaimsPlan]:
    """Plans from the largest on: batch sizes by a factor of 4 from 8 on, then fewer of everything, then from 16 on.

    Args:
        examples: in the training set.
        lrs: the learning rates.
        seed: the first of the seeds.
        smallest: batch size that the model can be trained on.
        batch_sizes: fixed beforehand; empty: free.
        seeds: how many, fixed beforehand; `None`: free.
        epochs: fixed beforehand; `None`: free.
        fixed_lrs: whether the learning rates were fixed beforehand.
    """
    sizes = [batch_sizes] if batch_sizes else _sizes(examples, smallest)
    return _choices(sizes, lrs, seed, smallest, seeds, epochs, fixed_lrs)


def later_choices(
    plan: ClaimsPlan,
    *,
    lrs: Sequence[float],
    batch_sizes: tuple[int, ...] = (),
    seeds: int | None = None,
    epochs: float | None = None,
    fixed_lrs: bool = False,
) -> list[ClaimsPlan]:
    """Plans from the largest on that keep the batch sizes of a plan, or drop the smallest ones, which take most steps.

    Args:
        plan: as it was.
        lrs: that it began with.
        batch_sizes: as in `first_choices`, like the following.
        seeds: how many.
        epochs: of a run.
        fixed_lrs: whether learning rates are fixed.
    """
    own = plan.batch_sizes
    sizes = [own] if batch_sizes else [own[i:] for i in range(max(1, len(own) - 1))]
    return _choices(sizes, lrs, plan.seeds[0], plan.least_batch_size, seeds, epochs, fixed_lrs)


def largest_plan(plans: Sequence[ClaimsPlan], cost: Callable[[ClaimsPlan], float], seconds: float) -> ClaimsPlan:
    """The first plan that fits; where none does the cheapest: it will be cut off, what decides most first."""
    return next((plan for plan in plans if cost(plan) <= seconds), None) or min(plans, key=cost)


def _choices(
    sizes: Sequence[tuple[int, ...]],
    lrs: Sequence[float],
    seed: int,
    smallest: int,
    seeds: int | None,
    epochs: float | None,
    fixed_lrs: bool,
) -> list[ClaimsPlan]:
    whole = tuple(sorted(lrs))
    rates = [whole] if fixed_lrs else list(dict.fromkeys([whole, whole[1:-1]]))
    rates = [each for each in rates if len(each) > 1] or [whole]
    lengths = [
        (n, length)
        for n in (_SEEDS if seeds is None else (seeds,))
        for length in (_EPOCHS if epochs is None else (epochs,))
    ]
    return [
        ClaimsPlan(
            batch_sizes=batch_sizes,
            lrs=of_grid,
            seeds=tuple(range(seed, seed + n)),
            epochs=length,
            least_batch_size=smallest,
        )
        for batch_sizes in sizes
        for of_grid in rates
        for n, length in lengths
    ]


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
