"""Step that a bench measures: a task on a device, as far as time and memory of its steps are concerned.

`batchscope.tasks.workload.Workload` is one; a bench needs no more of it than stands here.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from .device import Device

__all__ = ["MeasuredStep", "MeasuredTask", "TimedStep"]


class MeasuredStep(Protocol):
    """A model that is made for measuring and thrown away, and the parts of its training step."""

    model: nn.Module
    optimizer: Optimizer
    loading_s: float
    """Seconds to load one example in one process; 0 for tensors in memory."""
    notes: list[str]
    """What a reader should know of the examples that were used."""

    @property
    def workload(self) -> MeasuredTask:
        """The task that it belongs to."""
        ...

    def draw(self, size: int) -> Any:
        """A batch of `size` training examples drawn at random."""
        ...

    def largest_batch(self, size: int) -> Any:
        """A batch of `size` examples that takes as much memory as any."""
        ...

    def gradients(self, batch: Any) -> None:
        """Run the forward and backward pass; gradients add up as they do under accumulation."""
        ...

    def update(self) -> None:
        """Run the optimizer's part of a step."""
        ...

    def weights(self) -> Iterator[Tensor]:
        """Weights of the model: parameters and buffers."""
        ...

    def gradient_tensors(self) -> Iterator[Tensor]:
        """The gradients that are alive."""
        ...

    def optimizer_state(self) -> Iterator[Tensor]:
        """Every tensor that the optimizer keeps between steps."""
        ...

    def lasting_tensors(self) -> list[Tensor]:
        """Tensors that stay between steps: weights, gradients, optimizer state."""
        ...


class MeasuredTask(Protocol):
    """Task on its device, as far as a bench needs it."""

    device: Device
    loader_workers: int
    """Processes that load batches; 0: the training process does."""

    def largest_batch(self, asked: int | None = None) -> int:
        """The largest batch size to consider, at most what is asked for."""
        ...

    @property
    def loader_options(self) -> Mapping[str, Any]:
        """Arguments of a `DataLoader` that loads as the task's; none where batches are cut from tensors in memory."""
        ...

    @property
    def in_memory(self) -> bool:
        """Whether batches are cut from tensors in memory."""
        ...

    def micro_batches(self, batch_size: int, parts: int, seed: int) -> Generator[list[Any]]:
        """Batches of an endless run, each in equal parts, as the training loop gets them; closing it ends workers."""
        ...

    def disposable(self, seed: int) -> MeasuredStep:
        """A fresh model with its optimizer, for the few steps whose time or memory is measured."""
        ...


@dataclass(frozen=True, kw_only=True)
class TimedStep:
    """Seconds of one full training step: `zero_grad`, forward, backward, optimizer."""

    seconds: float
    gradient_s: float | None = None
    """The forward and backward part; `None` where it was not asked for."""
    processor_s: float | None = None
    """Processor time of the process, over all its threads; `None` where the device is not the processor."""
