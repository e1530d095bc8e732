"""Two groups of a step's backward passes, whose gradients are kept for norms that need them whole."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from ...store.records import Row
from ..geometry import DualNorms
from ..window import Window

__all__ = ["Halves"]


class Halves:
    """Sums of the gradients of every other backward pass of a step, and of those between.

    Args:
        norms: of the two groups.

    Cost: a copy of each gradient of the pass under way, and of the two sums.
    """

    def __init__(self, norms: DualNorms) -> None:
        self._norms = norms
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self._passes = 0
        self._sums: tuple[dict[int, Tensor], dict[int, Tensor]] = ({}, {})
        self.drop()

    def add(self, index: int, gradient: Tensor) -> None:
        """Copy what the pass under way adds to a parameter's gradient."""
        self._new[index] = gradient.to_dense().clone()

    def drop(self) -> None:
        """Forget the pass under way: nothing was added."""
        self._new: dict[int, Tensor] = {}

    def keep(self) -> None:
        """Count the pass under way to its group."""
        sums = self._sums[self._passes % 2]
        for index, gradient in self._new.items():
            sums[index] = sums[index].add_(gradient) if index in sums else gradient
        self._passes += 1
        self.drop()

    def row(self, window: Window, shares: Sequence[float] = ()) -> Row:
        """What a noise row holds of them; the gradients are finite.

        Args:
            window: of the step.
            shares: of each pass in the step's gradient, up to a common factor; default: equal ones.
        """
        parts = shares or [1.0] * self._passes
        whole = math.fsum(parts)
        of_halves = [math.fsum(parts[half::2]) / whole for half in (0, 1)]
        groups = [
            [
                None if (g := sums.get(index)) is None else g / (share * window.loss_scale)
                for index in range(self._norms.count)
            ]
            for sums, share in zip(self._sums, of_halves, strict=True)
        ]
        return self._norms.row(groups, [share * window.batch_size for share in of_halves])
