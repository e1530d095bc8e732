"""The exponent of the best learning rate in the batch size: its interval over seeds, and what the grid hides.

Each seed chooses its own best learning rate at each batch size, by the metric that choices are made by, among the
learning rates at which it did not diverge; the exponent is the slope of a least squares line through log learning rate
against log batch size. Linear scaling is 1, the square root 0.5. A best learning rate at an end of the grid is a bound
only, and may bound the exponent. Numbers only.

Source: Goyal et al. 2017 (linear scaling); Krizhevsky 2014 and Hoffer et al. 2017 (square root); Chang and Pathak 2020.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ....fits import intervals
from ....store.records import Estimate
from ...published import is_above
from ...records import Study

__all__ = ["Scaling", "scaling_of"]

_HALFWAY = 0.75
"""Between the square root and linear scaling."""


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """The exponent of the best learning rate."""

    chosen: Mapping[int, tuple[float, ...]]
    """By batch size, what each seed chose."""
    exponent: Estimate
    at_least: bool
    """A best learning rate at an end of the grid hides a larger exponent, if any."""
    at_most: bool
    """A best learning rate at an end of the grid hides a smaller exponent, if any."""

    @property
    def rises(self) -> bool | None:
        """Whether a larger batch has a larger best learning rate; `None`: it is open."""
        return self._bounded(is_above(self.exponent))

    @property
    def linear(self) -> bool | None:
        """Whether the exponent is nearer to linear scaling than to the square root; `None`: it is open."""
        return self._bounded(is_above(self.exponent, _HALFWAY))

    def at_end(self, batch_size: int, rates: Sequence[float]) -> bool:
        """Whether a seed chose the first or the last of these learning rates."""
        return bool({min(rates), max(rates)} & set(self.chosen.get(batch_size, ())))

    def _bounded(self, above: bool | None) -> bool | None:
        hidden = self.at_most if above else self.at_least
        return None if hidden else above


def scaling_of(study: Study, variant: str = "") -> Scaling | None:
    """The scaling over all batch sizes of a variant.

    `None` where there is nothing to choose: fewer than two batch sizes with a learning rate in a common seed, or a
    batch size with one learning rate.
    """
    choices = _choices(study, variant)
    sizes = sorted({size for size, _ in choices})
    seeds = [seed for seed in study.question.seeds if all((size, seed) in choices for size in sizes)]
    tried = {size: {s.lr for s in study.summary if s.key[:2] == (variant, size)} for size in sizes}
    if len(sizes) < 2 or not seeds or min(map(len, tried.values())) < 2:
        return None
    logs = [math.log(size) for size in sizes]
    rates = [[math.log(choices[size, seed]) for size in sizes] for seed in seeds]
    exponents = [power for own in rates if (power := intervals.slope(logs, own).value) is not None]
    chosen = {size: tuple(choices[size, seed] for seed in seeds) for size in sizes}
    middle = math.sqrt(sizes[0] * sizes[-1])
    upper = [size for size in sizes if max(tried[size]) in chosen[size]]
    lower = [size for size in sizes if min(tried[size]) in chosen[size]]
    return Scaling(
        chosen=chosen,
        exponent=intervals.mean(exponents),
        at_least=any(size > middle for size in upper) or any(size < middle for size in lower),
        at_most=any(size < middle for size in upper) or any(size > middle for size in lower),
    )


def _choices(study: Study, variant: str) -> dict[tuple[int, int], float]:
    sign = -1.0 if study.larger_is_better else 1.0
    best: dict[tuple[int, int], tuple[float, float]] = {}
    for row in study.rows:
        value = row.values.get(f"best_{study.metric}")
        if row.variant == variant and row.status != "diverged" and value is not None:
            key, found = (row.batch_size, row.seed), (sign * value, row.lr)
            best[key] = min(found, best.get(key, found))
    return {key: lr for key, (_, lr) in best.items()}
