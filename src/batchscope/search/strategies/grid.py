"""The grid: every fourth power of two of the batch size, every half decade of the learning rate, the centre first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .space import Offer, Pair, Request, Space, Trial, cut_off, trial_at

__all__ = ["OFFER", "Grid"]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Tries the points of a grid, from the centre outwards.

    Cost: one training for each point, those that are slower than the best so far cut off when they have taken `slower`
    times as long. With learning rates over a factor of 3000 and batch sizes from 1 to 4096 there are 7 x 8 points. The
    best of them lies within half a step of the true best pair on both axes: a factor of 2 in batch size, 1.8 in the
    learning rate.

    Attributes:
        size_factor: between neighbouring batch sizes.
        lr_factor: between neighbouring learning rates, at most.
        points: tried at most, those next to the centre.
        slower: than the best so far by this factor, and a run is cut off.
    """

    size_factor: float = 4.0
    lr_factor: float = math.sqrt(10.0)
    points: int = 100
    slower: float = 1.1

    def __call__(self, space: Space, trials: Sequence[Trial], seed: int = 0) -> Request | None:
        """The first point without a trial; the seed changes nothing."""
        order = self.order(space)
        for number, pair in enumerate(order, start=1):
            if trial_at(trials, pair) is None:
                limit = cut_off(trials, self.slower)
                return Request(batch_size=pair[0], lr=pair[1], limit=limit, why=f"grid point {number} of {len(order)}")
        return None

    def order(self, space: Space) -> list[Pair]:
        """The points, by their distance from the centre in steps of the grid; of two as far, the larger batch first."""
        sizes, lrs = self._sizes(space), self._lrs(space)
        centre = (len(sizes) - 1) / 2, (len(lrs) - 1) / 2
        places = [(i, j) for i in range(len(sizes)) for j in range(len(lrs))]
        places.sort(key=lambda p: (round(math.dist(p, centre), 9), -p[0], p[1]))
        return [(sizes[i], lrs[j]) for i, j in places[: self.points]]

    def _sizes(self, space: Space) -> list[int]:
        """Batch sizes from the smallest up by the factor, each the nearest of the list."""
        smallest, largest = space.batch_sizes[0], space.batch_sizes[-1]
        steps = round(math.log(largest / smallest) / math.log(self.size_factor))
        wanted = [smallest * self.size_factor**k for k in range(steps + 1)]
        return sorted({min(space.batch_sizes, key=lambda b: abs(math.log(b / w))) for w in wanted})

    def _lrs(self, space: Space) -> list[float]:
        """Both ends and evenly between them."""
        span = math.log(space.lr_high / space.lr_low)
        steps = math.ceil(span / math.log(self.lr_factor) - 1e-9)
        return [space.lr_at(k / steps) for k in range(steps + 1)] if steps else [space.lr_high]


OFFER = Offer(words="a grid", typical_runs=60.0, build=lambda first: Grid())
