"""A fresh model with its optimizer, for the few training steps whose time or memory is measured."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..hardware.live_bytes import bytes_of, tensors_in
from .protocol import Batch
from .update import Update
from .values import rows_of

if TYPE_CHECKING:
    from .workload import Workload

__all__ = ["DisposableModel"]

_RATE = 1e-4
"""Small enough that a few steps leave the weights where they were; time and memory do not depend on it."""

_EXAMPLES_LOOKED_AT = 128
_LOOKING_S = 0.1
_LOADING_S = 0.1
_SAME_SIZE = 1.02


class DisposableModel:
    """A model made for measuring and thrown away: nothing of the user's is trained, restored or left changed.

    Args:
        workload: the task on its device.
        seed: of the weights and of the order in which examples are drawn.

    Attributes:
        loading_s: seconds to load one example in one process; 0 for tensors in memory.
        notes: what a reader should know of the examples that were used.
    """

    def __init__(self, workload: Workload, *, seed: int) -> None:
        self.workload = workload
        self.model = workload.model(seed)
        self._update = Update(workload, self.model, _RATE)
        self.optimizer = self._update.optimizer
        self.loading_s = 0.0
        self.notes: list[str] = []
        self._order = torch.Generator().manual_seed(seed)
        self._largest_example: int | None = None
        if not workload.in_memory:
            self._look_at_examples()

    def draw(self, size: int) -> Batch:
        """A batch of `size` training examples drawn at random.

        Different ones, unless loading them takes over a tenth of a second, or a stream has not given as many: then
        those that load in that time, or that there are, are repeated.
        """
        order = self._shuffled()
        order = order[torch.arange(size) % len(order)]
        loaded = size if self.loading_s * size <= _LOADING_S else max(1, int(_LOADING_S / self.loading_s))
        batch = self.workload.batch(order[:loaded])
        if loaded < size:
            repeated = rows_of(batch, [i % loaded for i in range(size)], loaded)
            return self.workload.batch(order) if repeated is None else repeated
        return batch

    def largest_batch(self, size: int) -> Batch:
        """A batch that takes as much memory as any: where examples differ in size, the largest seen, repeated."""
        if self._largest_example is None:
            return self.draw(size)
        batch = self.workload.batch(torch.tensor([self._largest_example]))
        repeated = rows_of(batch, [0] * size, 1)
        return self.workload.batch(torch.full((size,), self._largest_example)) if repeated is None else repeated

    def _shuffled(self) -> Tensor:
        """Indices of the examples that training draws, in an order drawn anew."""
        drawable = self.workload.drawable
        return drawable[torch.randperm(len(drawable), generator=self._order)]

    def _look_at_examples(self) -> None:
        nbytes: dict[int, int] = {}
        started = time.perf_counter()
        for i in self._shuffled()[:_EXAMPLES_LOOKED_AT]:
            nbytes[int(i)] = bytes_of(tensors_in(self.workload.batch(i[None])))
            if time.perf_counter() - started > _LOOKING_S:
                break
        self.loading_s = (time.perf_counter() - started) / len(nbytes)
        largest = max(nbytes, key=lambda i: nbytes[i])
        if nbytes[largest] > _SAME_SIZE * min(nbytes.values()):
            self._largest_example = largest
            self.notes.append(
                f"examples differ in size: memory was measured with the largest of {len(nbytes)} that were drawn "
                f"({nbytes[largest]} bytes); a larger one needs more"
            )

    def gradients(self, batch: Batch) -> None:
        """Run the forward and backward pass; gradients add up as they do under accumulation."""
        self._update.gradients([batch])

    def update(self) -> None:
        """Run the optimizer's part of a step."""
        self._update.apply()

    def weights(self) -> Iterator[Tensor]:
        """Weights of the model: parameters and buffers."""
        for model in filter(None, (self.model, self._update.averaged)):
            yield from model.parameters()
            yield from model.buffers()

    def gradient_tensors(self) -> Iterator[Tensor]:
        """The gradients that are alive."""
        return (p.grad for p in self.model.parameters() if p.grad is not None)

    def optimizer_state(self) -> Iterator[Tensor]:
        """Every tensor that the optimizer keeps between steps."""
        return tensors_in(list(self.optimizer.state.values()))

    def lasting_tensors(self) -> list[Tensor]:
        """Tensors that stay between steps: weights, gradients, optimizer state."""
        return [*self.weights(), *self.gradient_tensors(), *self.optimizer_state()]
