"""The seam to the hardware: where tensors live, how time is read, how a lack of memory is recognised."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass

import torch

from .errors import UsageError

__all__ = ["Device", "is_out_of_memory", "pick"]

_MEMORY_MESSAGES = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "defaultcpuallocator",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "unable to find a valid cudnn algorithm",
    "hiperroroutofmemory",
    "ur_result_error_out_of_device_memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the device has no memory left, in any back end's spelling."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(part in message for part in _MEMORY_MESSAGES)


@dataclass(frozen=True)
class Device:
    """One device of this machine."""

    torch_device: torch.device

    @property
    def name(self) -> str:
        """What the device calls itself."""
        if self.torch_device.type == "cuda":
            return torch.cuda.get_device_name(self.torch_device)
        return f"{platform.processor() or platform.machine()} CPU" if self.torch_device.type == "cpu" else str(self.torch_device)

    def synchronize(self) -> None:
        """Wait until all work handed to the device is done."""
        if self.torch_device.type != "cpu":
            torch.accelerator.synchronize(self.torch_device)

    def clock(self) -> float:
        """Seconds on a monotonic clock, after everything handed to the device is done."""
        self.synchronize()
        return time.perf_counter()

    def capacity_bytes(self) -> int:
        """All the memory that a process could use on the device."""
        if self.torch_device.type == "cuda":
            return int(torch.cuda.mem_get_info(self.torch_device)[1])
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


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
