"""A fresh model with its optimizer, for the few training steps whose time or memory is measured."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from .task import Batch
from .workload import Workload

__all__ = ["Trial", "unique_bytes"]

_RATE = 1e-4
"""Small enough that a few steps leave the weights where they were; time and memory do not depend on it."""

_EXAMPLES_WEIGHED = 128
_WEIGHING_S = 0.2
_SAME_WEIGHT = 1.02


class Trial:
    """A model made for measuring and thrown away: nothing of the user's is trained, restored or left changed.

    Args:
        workload: the task on its device.
        seed: of the weights and of the order in which examples are drawn.

    Attributes:
        notes: what a reader should know of the examples that were used.
    """

    def __init__(self, workload: Workload, *, seed: int) -> None:
        self.workload = workload
        self.model = workload.model(seed)
        self.optimizer = workload.optimizer(self.model, _RATE)
        self.notes: list[str] = []
        self._order = torch.Generator().manual_seed(seed)
        self._heaviest: int | None = None
        self._weighed = workload.in_memory

    def draw(self, size: int) -> Batch:
        """A batch of `size` different training examples, drawn at random."""
        return self.workload.batch(torch.randperm(self.workload.examples, generator=self._order)[:size])

    def heaviest_batch(self, size: int) -> Batch:
        """A batch that takes as much memory as any: where examples differ in length, the longest that was seen, repeated."""
        if not self._weighed:
            self._weighed = True
            self._weigh()
        if self._heaviest is None:
            return self.draw(size)
        return self.workload.batch(torch.full((size,), self._heaviest))

    def _weigh(self) -> None:
        indices = torch.randperm(self.workload.examples, generator=self._order)[:_EXAMPLES_WEIGHED]
        weights: dict[int, int] = {}
        started = time.perf_counter()
        for i in indices:
            weights[int(i)] = sum(t.nbytes for t in self.tensors_of(self.workload.batch(i[None])))
            if time.perf_counter() - started > _WEIGHING_S:
                break
        heaviest = max(weights, key=lambda i: weights[i])
        if weights[heaviest] > _SAME_WEIGHT * min(weights.values()):
            self._heaviest = heaviest
            self.notes.append(
                f"examples differ in size: memory was measured with the largest of {len(weights)} drawn examples "
                f"({weights[heaviest]} bytes); a longer one, if there is one, needs more"
            )

    def gradients(self, batch: Batch) -> None:
        """Forward and backward pass; gradients add up as they do under accumulation."""
        self.workload.loss(self.model, batch).backward()

    def update(self) -> None:
        """The optimizer's part of a step."""
        self.optimizer.step()

    def weights(self) -> Iterator[Tensor]:
        """Parameters and buffers."""
        yield from self.model.parameters()
        yield from self.model.buffers()

    def gradient_tensors(self) -> Iterator[Tensor]:
        """The gradients that are alive."""
        return (p.grad for p in self.model.parameters() if p.grad is not None)

    def optimizer_state(self) -> Iterator[Tensor]:
        """Every tensor that the optimizer keeps between steps."""
        return self.tensors_of(list(self.optimizer.state.values()))

    def lasting_tensors(self) -> list[Tensor]:
        """All that stays between steps: weights, gradients, optimizer state."""
        return [*self.weights(), *self.gradient_tensors(), *self.optimizer_state()]

    def tensors_of(self, value: object) -> Iterator[Tensor]:
        """Every tensor inside nested mappings, lists and tuples."""
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping):
            for item in value.values():
                yield from self.tensors_of(item)
        elif isinstance(value, list | tuple):
            for item in value:
                yield from self.tensors_of(item)


def unique_bytes(tensors: Iterable[Tensor]) -> int:
    """The bytes of the storages behind some tensors, each counted once (tied weights share one)."""
    dense = [t for t in tensors if t.layout is torch.strided]
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in dense}.values())
