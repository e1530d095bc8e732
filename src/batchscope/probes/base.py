"""What the training loop offers a probe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import nn
from torch.optim import Optimizer

from ..records import Row

__all__ = ["Observer", "Probe"]


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


class Observer(Protocol):
    """Looks at the weights of one training run, and never changes them.

    One observer watches one run. A run without observers pays nothing for them.
    """

    def begin(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Called once, before the first step; the initial weights are those of `model` now."""
        ...

    def after_update(self, step: int) -> Row | None:
        """Called after each optimizer step; `step` counts from 1. The row is stored with the run."""
        ...

    def at_evaluation(self, step: int) -> Row | None:
        """Called at each evaluation, the one before the first step included; the model may be run, not trained."""
        ...
