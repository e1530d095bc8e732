"""Fake device for tests: its clock and memory follow a script; with a task that runs on it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import TensorDataset

from ..hardware.device import Device, MemoryWatch
from ..tasks.protocol import Batch, task
from ..tasks.workload import Workload

__all__ = ["FakeDevice"]


class FakeDevice(Device):
    """Fake device on the CPU, whose every training step takes the time and the memory that a function says.

    A step larger than the capacity raises `torch.OutOfMemoryError`, as a real device would.

    Args:
        step_time_s: micro-batch size to seconds of a full step; called once a step, so it may draw noise.
        peak_bytes: micro-batch size to the peak of a step, bytes.
        capacity: bytes on the device.
        free: bytes that are free; default: all.
        update_share: the optimizer's share of the step's time.

    Attributes:
        sizes: the size of every step that was run, in order, failed ones included.
        failures: the sizes of the steps that ran out of memory.

    Example:
        >>> device = FakeDevice(step_time_s=lambda m: 1e-3, peak_bytes=lambda m: 1000 + 10 * m, capacity=2000)
        >>> from batchscope.hardware.bench import measure
        >>> bench = measure(device.workload(examples=1000))
        >>> bench.largest_micro_batch_size, bench.largest_verified, device.failures
        (84, True, [])
    """

    def __init__(
        self,
        *,
        step_time_s: Callable[[int], float] = lambda size: 1e-3 + 1e-5 * size,
        peak_bytes: Callable[[int], float] = lambda size: 1000.0 + size,
        capacity: int = 2**40,
        free: int | None = None,
        update_share: float = 0.1,
    ) -> None:
        super().__init__(torch.device("cpu"))
        self.step_time_s, self.script_peak_bytes = step_time_s, peak_bytes
        self.capacity, self.free = capacity, capacity if free is None else free
        self.update_share = update_share
        self.now = 0.0
        self.sizes: list[int] = []
        self.failures: list[int] = []
        self._peak = 0.0
        self._update_s = 0.0

    @property
    def name(self) -> str:
        """A name that no real device has."""
        return "fake device"

    def clock(self) -> float:
        """Scripted time."""
        return self.now

    def capacity_bytes(self) -> int:
        """Scripted capacity."""
        return self.capacity

    def free_bytes(self) -> int:
        """Scripted free memory."""
        return self.free

    @contextmanager
    def memory_watch(self, present: Iterable[Tensor] = ()) -> Generator[MemoryWatch]:
        """A watch that tells the scripted peak of the steps inside."""
        self.restart()
        yield self

    def peak_bytes(self) -> int:
        """Scripted peak since the last restart."""
        return round(self._peak)

    def restart(self) -> None:
        """Forget the peak so far."""
        self._peak = 0.0

    def workload(self, *, examples: int, model: Callable[[], nn.Module] = lambda: nn.Linear(1, 1)) -> Workload:
        """A task of `examples` scalar examples whose steps follow this device's script."""
        data = TensorDataset(torch.arange(float(examples))[:, None] / examples)
        made = task(model=model, train=data, val=data, loss=self._loss, optimizer=self._optimizer, name="fake")
        return Workload(made, name="fake", device=self)

    def _loss(self, model: nn.Module, batch: Batch) -> Tensor:
        size = len(batch[0])
        loss = model(batch[0]).square().mean()
        self.sizes.append(size)
        peak = self.script_peak_bytes(size)
        if peak > self.capacity:
            self.failures.append(size)
            raise torch.OutOfMemoryError(
                f"scripted: a step of {size} examples needs {peak:.4g} bytes of {self.capacity}"
            )
        seconds = self.step_time_s(size)
        self._update_s = seconds * self.update_share
        self.now += seconds - self._update_s
        self._peak = max(self._peak, peak)
        return loss

    def _optimizer(self, params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        optimizer = torch.optim.SGD(params, lr=lr)
        optimizer.register_step_post_hook(self._after_update)
        return optimizer

    def _after_update(self, optimizer: Optimizer, args: object, kwargs: object) -> None:
        self.now += self._update_s
