"""Device, the seam to the hardware: its tensors, clock and memory, and how a lack of memory is recognised."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..errors import OutOfMemory, UsageError
from . import host_memory
from .live_bytes import LiveBytes, unique_bytes

__all__ = [
    "Device",
    "MemoryWatch",
    "cores",
    "is_out_of_memory",
    "lack_of_memory_named",
    "load_torch",
    "pick",
    "within_memory",
    "within_memory_of",
]


_HOST_MESSAGES = (
    "can't allocate memory",  # the CPU allocator on Linux
    "cannot allocate memory",  # errno ENOMEM in a shared memory or pinned allocation
    "not enough memory",  # the CPU allocator on Windows and macOS
    "defaultcpuallocator",
    "ur_result_error_out_of_host_memory",
    "bad_alloc",  # C++
    "could not create a memory",  # oneDNN
    "storage size calculation overflowed",  # more bytes than 64 bits can count
    "integer multiplication overflow",  # more numbers than that
    "_arraymemoryerror",  # NumPy, in a loader worker
    "caught memoryerror",  # Python, in a loader worker
)
"""What is said where memory of this machine lacks."""
_DEVICE_MESSAGES = (
    "out of memory",  # CUDA, HIP, MPS and XPU allocators, and "CUDA error: out of memory" of the driver
    "cublas_status_alloc_failed",
    "cublas_status_not_initialized",  # cuBLAS makes its workspace when it is first used
    "cudnn_status_alloc_failed",
    "unable to find a valid cudnn algorithm",
    "cusolver_status_alloc_failed",
    "hipblas_status_alloc_failed",
    "hiperroroutofmemory",
    "ur_result_error_out_of_device_memory",
)
"""What is said where memory of an accelerator lacks."""
_KINDS = (RuntimeError, MemoryError, OSError, ImportError)
"""Exceptions by which a lack of memory is told: OSError when a file is mapped, ImportError when a library is."""


def load_torch() -> None:
    """Import what torch leaves until the first optimizer is made: seconds that are no part of a command's budget."""
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the device has no memory left, in any back end's spelling."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, _KINDS) and _says(error, _HOST_MESSAGES + _DEVICE_MESSAGES)


def _says(error: BaseException, parts: Iterable[str]) -> bool:
    message = str(error).lower()
    return any(part in message for part in parts)


class MemoryWatch(Protocol):
    """Watch of how much memory a stretch of work needs, in bytes above what was taken when the watch began."""

    def peak_bytes(self) -> int:
        """Peak of the bytes alive at once since the watch began or was restarted."""
        ...

    def restart(self) -> None:
        """Forget the peak so far."""
        ...


@dataclass(frozen=True)
class _AllocatorWatch:
    torch_device: torch.device
    already_taken: int

    def peak_bytes(self) -> int:
        return torch.accelerator.max_memory_allocated(self.torch_device) - self.already_taken

    def restart(self) -> None:
        torch.accelerator.reset_peak_memory_stats(self.torch_device)


@dataclass(frozen=True)
class _CountedWatch:
    counter: LiveBytes

    def peak_bytes(self) -> int:
        return self.counter.peak

    def restart(self) -> None:
        self.counter.restart()


@dataclass(frozen=True)
class Device:
    """Device of this machine."""

    torch_device: torch.device

    @property
    def name(self) -> str:
        """Name that the device has for itself."""
        if self.torch_device.type == "cuda":
            return torch.cuda.get_device_name(self.torch_device)
        if self.torch_device.type == "cpu":
            return f"{platform.processor() or platform.machine()} CPU"
        return str(self.torch_device)

    @property
    def works_ahead(self) -> bool:
        """Whether calls return before the device is done with them."""
        return self.torch_device.type != "cpu"

    @property
    def keeps_peak(self) -> bool:
        """Whether the device's allocator records its own peak; elsewhere living tensors are counted."""
        return self.torch_device.type in ("cuda", "xpu")

    def synchronize(self) -> None:
        """Wait until all work handed to the device is done."""
        if self.works_ahead:
            torch.accelerator.synchronize(self.torch_device)

    def clock(self) -> float:
        """Seconds on a monotonic clock, after everything handed to the device is done."""
        self.synchronize()
        return time.perf_counter()

    def wall_clock(self) -> float:
        """Seconds on a monotonic clock, which waits for nothing: what budgets are counted by."""
        return time.monotonic()

    def begun(self, started: float | None = None) -> float:
        """When the budget of a command begins, on the wall clock: once torch is there, unless it has begun already."""
        if started is None:
            load_torch()
            return self.wall_clock()
        return started

    def processor_seconds(self) -> float | None:
        """Processor time of this process so far, all threads together; `None` where steps run elsewhere."""
        return None if self.works_ahead else time.process_time()

    @property
    def threads(self) -> int:
        """Threads that share the work of a step; 1 where steps run elsewhere."""
        return 1 if self.works_ahead else torch.get_num_threads()

    @contextmanager
    def using_threads(self, count: int | None) -> Generator[None]:
        """Let so many threads do the steps inside; `None`, or where steps run elsewhere: as many as there are."""
        if count is None or self.works_ahead:
            yield
            return
        threads = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    def capacity_bytes(self) -> int:
        """Capacity: all the memory that a process could use on the device, were it alone there."""
        if self.keeps_peak:
            return int(torch.accelerator.get_memory_info(self.torch_device)[1])
        return host_memory.total_bytes()

    def free_bytes(self) -> int:
        """The memory that this process could take now: other processes' share is gone, our allocator's cache is not."""
        if self.keeps_peak:
            reserved = torch.accelerator.memory_reserved(self.torch_device)
            cached = reserved - torch.accelerator.memory_allocated(self.torch_device)
            return int(torch.accelerator.get_memory_info(self.torch_device)[0]) + cached
        return host_memory.available_bytes()

    def taken_bytes(self) -> int:
        """Memory that this process has taken on the device; of the host, all that it holds there."""
        if self.keeps_peak:
            return torch.accelerator.memory_allocated(self.torch_device)
        return host_memory.resident_bytes()

    @contextmanager
    def memory_watch(self, present: Iterable[Tensor] = ()) -> Generator[MemoryWatch]:
        """Watch the peak memory of the work inside.

        Args:
            present: tensors made before that belong to the work (weights, optimizer state, the batch).

        Yields:
            The watch. Its figure is the allocator's where the device keeps one, else bytes of living tensors.
        """
        if self.keeps_peak:
            self.synchronize()
            others = torch.accelerator.memory_allocated(self.torch_device) - unique_bytes(present)
            watch = _AllocatorWatch(self.torch_device, others)
            watch.restart()
            yield watch
            return
        with LiveBytes(present) as counter:
            yield _CountedWatch(counter)

    def release(self) -> None:
        """Give cached memory back, so that the next reading does not see the last one's leftovers."""
        if self.keeps_peak:
            torch.accelerator.empty_cache()


@contextmanager
def lack_of_memory_named(device: Device, micro_batch_size: int) -> Generator[None]:
    """Turn whatever a back end says of a lack of memory into `OutOfMemory`; the original is its cause.

    Args:
        device: where the step runs.
        micro_batch_size: of the step; the error has none where memory ran out in an evaluation, which smaller
            micro-batches do not help.

    Raises:
        OutOfMemory: the step, or an evaluation, did not fit.
    """
    try:
        yield
    except _KINDS as error:
        if not is_out_of_memory(error):
            raise
        if host_memory.place_of(error).startswith("evaluat"):
            raise _out_of_memory(error) from error
        message = f"a step of {micro_batch_size} examples did not fit into the memory of {device.name}"
        raise OutOfMemory(message, micro_batch_size=micro_batch_size) from error


@contextmanager
def within_memory(*, accelerated: bool | None = None) -> Generator[None]:
    """Do the work inside in the memory that is free: what needs more is `OutOfMemory`, before the machine swaps.

    Where steps run on the CPU this process is bounded (`host_memory.bounded`); an accelerator bounds itself, and maps
    more of the host's memory than it uses. Serves as a decorator too.

    Args:
        accelerated: whether the work runs on an accelerator; `None`: it names no device, and is bounded unless this
            process uses an accelerator already.

    Raises:
        OutOfMemory: something did not fit; the message says what, and what is free.
    """
    accelerated = _accelerator_in_use() if accelerated is None else accelerated
    try:
        with nullcontext() if accelerated else host_memory.within_free():
            yield
    except _KINDS as error:
        if not is_out_of_memory(error):
            raise
        raise _out_of_memory(error) from error


def within_memory_of(device: Device | None) -> AbstractContextManager[None]:
    """`within_memory` for work on a device; `None` is what `pick` finds."""
    return within_memory(accelerated=(device or pick()).works_ahead)


def _accelerator_in_use() -> bool:
    """Whether this process has a context on an accelerator; where a back end does not tell, it has."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return False
    initialized = getattr(torch.get_device_module(accelerator), "is_initialized", None)
    return initialized is None or bool(initialized())


def _out_of_memory(error: BaseException) -> OutOfMemory:
    of_host = isinstance(error, MemoryError) or _says(error, _HOST_MESSAGES)
    return OutOfMemory(host_memory.in_words(error, "this machine" if of_host else "the device"))


def cores() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pick(name: str | None = None) -> Device:
    """The device of that name; without a name the accelerator if there is one, else the CPU.

    Raises:
        UsageError: there is no such device here.
    """
    if name is None:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return Device(accelerator or torch.device("cpu"))
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {name!r} cannot be used here: {reason}; try --device cpu") from error
    return Device(device)
