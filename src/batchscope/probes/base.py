"""What the training loop offers a probe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import nn

from ..records import Row

__all__ = ["Probe"]


class Probe(Protocol):
    """Reads gradients inside a training run, and never changes them.

    In a step for which `groups` is above 1, the loop cuts the batch into that many equal micro-batches; the gradient of
    the step stays the mean over the batch.
    """

    def groups(self, step: int, batch_size: int) -> int:
        """Micro-batches wanted in this step (0-based); 0 leaves the step alone."""
        ...

    def after_micro_batch(self, parameters: Sequence[nn.Parameter]) -> None:
        """Called after each micro-batch's backward pass; `.grad` holds the sum so far of group gradient ÷ groups."""
        ...

    def after_step(self, step: int, batch_size: int) -> Row | None:
        """Called once the gradient is whole, before the optimizer; the row is stored with the run."""
        ...
