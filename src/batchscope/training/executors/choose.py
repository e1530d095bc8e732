"""Which executor work is done by: other processes where they pay, this one where there is a reason to stay in it."""

from __future__ import annotations

import pickle
import resource
import sys
from enum import StrEnum

from ...hardware.device import cores
from .base import CountedExecutor
from .in_process import InProcessExecutor
from .processes import ProcessExecutor
from .reloadable_task import ReloadableTask

__all__ = ["InProcessReason", "choose", "reason_to_stay"]

_MOST_PROCESSES = 4
_WORTH_S = 20.0
"""Seconds of work from which on starting processes pays: each imports torch and loads the data first."""


class InProcessReason(StrEnum):
    """Why work stays in this process."""

    SHORT = "the work is too short to start processes for"
    ACCELERATOR = "the task is on an accelerator, which processes would have to share"
    MADE_IN_PYTHON = "the task cannot be loaded again in another process"
    CORES = "there is one core"
    MEMORY = "there is no memory for a second process"


def choose(
    task: ReloadableTask, *, seconds: float, processes: int | None = None, worth_s: float = _WORTH_S
) -> CountedExecutor:
    """An executor for calls that measure a task.

    Args:
        task: what is measured, an argument of the calls.
        seconds: of work in all, in one process.
        processes: how many at most; default: the cores that this process may use, 4 at most.
        worth_s: seconds of work from which on starting processes pays.

    Returns:
        Processes, already starting, as many as there is memory for; or this one.
    """
    decided = _decided(task, seconds, processes, worth_s)
    if isinstance(decided, int):
        try:
            return ProcessExecutor(decided)
        except OSError:
            pass  # no process can be started: the work is done here
    return InProcessExecutor()


def reason_to_stay(
    task: ReloadableTask, *, seconds: float, processes: int | None = None, worth_s: float = _WORTH_S
) -> InProcessReason | None:
    """Why the work is better done in this process; `None`: other processes are worth it. Arguments as for `choose`."""
    decided = _decided(task, seconds, processes, worth_s)
    return None if isinstance(decided, int) else decided


def _decided(task: ReloadableTask, seconds: float, processes: int | None, worth_s: float) -> InProcessReason | int:
    """Why the work stays here, or how many processes do it."""
    if seconds < worth_s:
        return InProcessReason.SHORT
    if task.workload.device.torch_device.type != "cpu":
        return InProcessReason.ACCELERATOR
    wanted = min(_MOST_PROCESSES, cores() if processes is None else processes)
    if wanted < 2:
        return InProcessReason.CORES
    if not _can_be_pickled(task):
        return InProcessReason.MADE_IN_PYTHON
    number = min(wanted, int(task.workload.device.free_bytes() // _own_bytes()))
    return number if number > 1 else InProcessReason.MEMORY


def _can_be_pickled(task: ReloadableTask) -> bool:
    """Whether another process can be told which task it is."""
    try:
        pickle.dumps(task)
    except Exception:  # pickling runs the code of the settings
        return False
    return True


def _own_bytes() -> int:
    """The most memory that this process has held, bytes: what another one of its kind takes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
