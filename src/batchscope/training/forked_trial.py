"""Work that may kill a process is done in a copy of the process first, where that is possible."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import torch

from ..hardware.device import Device

__all__ = ["CopyDied", "can_be_copied", "first_in_a_copy"]

_LONGEST_S = 120.0
_LOOKED_EVERY_S = 0.002
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class CopyDied(Exception):
    """The copy of this process was killed."""


def can_be_copied(device: Device) -> bool:
    """Whether work on a device can be done in a forked copy: on Linux, and by the processor."""
    return sys.platform == "linux" and not device.works_ahead


@contextmanager
def first_in_a_copy(longest_s: float = _LONGEST_S) -> Generator[None]:
    """Do the work inside in a forked copy of this process, and then here, if the copy came through.

    The copy has one thread, prints nothing, ends with this process, and is the first that the kernel kills for want of
    memory. What the work raises there is not told: it is raised here too.

    Args:
        longest_s: after which a copy that is still at work is ended: slow is not dead. The work is done here then,
            where deadlines and the watchdog see it.

    Raises:
        CopyDied: a signal killed the copy; nothing was done here.

    Cost: the work twice, and the fork.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside other threads: the copy starts none
        copy = os.fork()
    if copy == 0:
        try:
            _be_a_copy()
            yield
        finally:
            os._exit(0)
    _wait(copy, longest_s)
    yield


def _be_a_copy() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    torch.set_num_threads(1)


def _wait(copy: int, longest_s: float) -> None:
    """Wait for a copy, and end it where it takes too long; it is gone when this returns.

    Raises:
        CopyDied: a signal ended it that was not sent here.
    """
    end, ended, status = time.monotonic() + longest_s, 0, 0
    try:
        while not ended and time.monotonic() < end:
            ended, status = os.waitpid(copy, os.WNOHANG)
            if not ended:
                time.sleep(_LOOKED_EVERY_S)
    finally:
        if not ended:
            os.kill(copy, signal.SIGKILL)
            os.waitpid(copy, 0)
    if ended and os.WIFSIGNALED(status):
        raise CopyDied(signal.Signals(os.WTERMSIG(status)).name)
