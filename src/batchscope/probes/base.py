"""What the training loop offers a probe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import nn

from ..records import Row

__all__ = ["Probe"]


class Probe(Protocol):
    """Reads gradients inside one training run, and never changes them.

    In a step for which `groups` is not 0, the loop draws the batch as that many equal micro-batches (more, where
    another probe wants more); the gradient of the step stays the mean over the batch.
    """

    def groups(self, step: int, batch_size: int, parts: int) -> int:
        """Micro-batches wanted in a step; 0 leaves it alone.

        Args:
            step: 0-based. The answer may depend on the arguments only: a loader with workers asks ahead of time.
            batch_size: examples of the step.
            parts: micro-batches that the configuration cuts every step into (accumulation times devices).

        Returns:
            0, or a number that divides `batch_size` and is a multiple of `parts`.
        """
        ...

    def after_micro_batch(self, parameters: Sequence[nn.Parameter]) -> None:
        """Called after each micro-batch's backward pass; `.grad` holds the sum so far of group gradient ÷ groups."""
        ...

    def after_step(self, step: int, batch_size: int) -> Row | None:
        """Called once the gradient is whole, before the optimizer; the row is stored with the run."""
        ...
