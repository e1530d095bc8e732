"""Fake device for tests: its clock and memory follow a script; with a task that runs on it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Dataset, TensorDataset

from ..hardware.device import Device, MemoryWatch
from ..tasks.batches import index_stream
from ..tasks.protocol import Batch, Task, task
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
        processor_s: micro-batch size to processor seconds of a step, called after `step_time_s`; default: the device
            is not the processor.
        one_thread_s: micro-batch size to seconds of a step with one of two threads; default: there is but one.

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
        processor_s: Callable[[int], float] | None = None,
        one_thread_s: Callable[[int], float] | None = None,
    ) -> None:
        super().__init__(torch.device("cpu"))
        self.step_time_s, self.script_peak_bytes = step_time_s, peak_bytes
        self.capacity, self.free = capacity, capacity if free is None else free
        self.update_share, self.processor_s = update_share, processor_s
        self.one_thread_s, self.threads_now = one_thread_s, 2 if one_thread_s else 1
        self.worked = 0.0
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

    def wall_clock(self) -> float:
        """Scripted time."""
        return self.now

    def processor_seconds(self) -> float | None:
        """Scripted processor time."""
        return None if self.processor_s is None else self.worked

    @property
    def threads(self) -> int:
        """Two, where the script has a time for one."""
        return self.threads_now

    @contextmanager
    def using_threads(self, count: int | None) -> Generator[None]:
        """Steps inside follow the script of so many threads."""
        threads, self.threads_now = self.threads_now, count or self.threads_now
        try:
            yield
        finally:
            self.threads_now = threads

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

    def workload(
        self,
        *,
        examples: int,
        model: Callable[[], nn.Module] = lambda: nn.Linear(1, 1),
        example_time_s: float | None = None,
        workers: int = 0,
    ) -> Workload:
        """A task of `examples` scalar examples whose steps follow this device's script.

        Args:
            examples: in the training set.
            model: makes the model.
            example_time_s: seconds of the script to load an example; default: they are tensors in memory.
            workers: that load side by side, whole batches each, while the device computes.
        """
        own_s = 0.0 if workers and example_time_s is not None else example_time_s
        made = self.task(examples=examples, model=model, example_time_s=own_s)
        if example_time_s is None:
            return Workload(made, name="fake", device=self)
        return _LoadedWorkload(made, self, example_time_s, workers)

    def task(
        self,
        *,
        examples: int,
        model: Callable[[], nn.Module] = lambda: nn.Linear(1, 1),
        example_time_s: float | None = None,
        evaluation_s: float = 0.0,
    ) -> Task:
        """The task of `workload`, whose examples and evaluations take scripted time, for whole commands.

        Args:
            examples: in the training set.
            model: makes the model.
            example_time_s: seconds to load an example; default: they are tensors in memory.
            evaluation_s: seconds of an evaluation.
        """
        data = TensorDataset(torch.arange(float(examples))[:, None] / examples)
        train = data if example_time_s is None else _Loaded(self, data, example_time_s)

        def evaluate(model: nn.Module) -> dict[str, float]:
            self.now += evaluation_s
            return {"val_loss": float(model(data.tensors[0]).square().mean())}

        return task(
            model=model, train=train, evaluate=evaluate, loss=self._loss, optimizer=self._optimizer, name="fake"
        )

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
        alone = self.one_thread_s if self.threads_now == 1 else None
        seconds = (alone or self.step_time_s)(size)
        self._update_s = seconds * self.update_share
        self.now += seconds - self._update_s
        self.worked += self.processor_s(size) if self.processor_s else 0.0
        self._peak = max(self._peak, peak)
        return loss

    def _optimizer(self, params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        optimizer = torch.optim.SGD(params, lr=lr)
        optimizer.register_step_post_hook(self._after_update)
        return optimizer

    def _after_update(self, optimizer: Optimizer, args: object, kwargs: object) -> None:
        self.now += self._update_s


class _Loaded(Dataset[tuple[Tensor, ...]]):
    """Data whose every example takes scripted time to load."""

    def __init__(self, device: FakeDevice, data: TensorDataset, example_time_s: float) -> None:
        self._device, self._data, self._example_time_s = device, data, example_time_s

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        self._device.now += self._example_time_s
        return self._data[index]


class _LoadedWorkload(Workload):
    """A task whose loader follows a script: workers that are so many clocks, and no processes."""

    def __init__(self, made: Task, device: FakeDevice, example_time_s: float, workers: int) -> None:
        super().__init__(made, name="fake", device=device)
        self._fake, self._example_time_s, self.loader_workers = device, example_time_s, workers

    def micro_batches(
        self, batch_size: int, parts: int | Callable[[int], int], seed: int, skip: int = 0
    ) -> Generator[list[Batch]]:
        """The task's own; with workers, the k-th micro-batch is there when its worker has loaded it."""
        if not self.loader_workers:
            yield from super().micro_batches(batch_size, parts, seed, skip)
        began, made = self._fake.now, 0
        for step, indices in enumerate(index_stream(self.examples, batch_size, seed, skip), skip):
            micro_batches: list[Batch] = []
            for part in indices.split(batch_size // (parts(step) if callable(parts) else parts)):
                round_ = made // self.loader_workers + 1
                self._fake.now = max(self._fake.now, began + round_ * len(part) * self._example_time_s)
                micro_batches.append(self.batch(part))
                made += 1
            yield micro_batches
