"""Loader workers: the processes behind a `DataLoader` are started as a whole or not at all, and end at once.

torch waits five seconds for each worker that is in the middle of an example, and ends them only when the iterator is
freed. Here they are told to end, and those that have not a moment later are killed: what they load is wanted by nobody.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.connection import wait
from typing import Any

from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

__all__ = ["end_workers", "started"]

_MOMENT_S = 0.05
"""In which a worker that waits, or is about to hand over a batch, ends by itself."""
_GONE_S = 5.0
"""A process that was killed is gone long before, unless the kernel itself waits (a network drive)."""


def started(loader: DataLoader[Any]) -> Iterator[Any]:
    """The iterator of a loader; where it cannot be had, or is interrupted, the workers that were started are gone."""
    before = {process.pid for process in multiprocessing.active_children()}
    try:
        return iter(loader)
    except BaseException:
        if loader.num_workers:
            _kill([process for process in multiprocessing.active_children() if process.pid not in before])
        raise


def end_workers(stream: Iterator[Any]) -> None:
    """End the workers of an iterator of a loader; nothing is to be done where it has none, or they have ended.

    Only the process that started them may do so.
    """
    theirs: Any = stream
    if getattr(theirs, "_shutdown", True):
        return
    theirs._shutdown = True  # torch, which would wait, has nothing left to do
    workers = theirs._workers
    try:
        signal_handling._remove_worker_pids(id(theirs))  # their deaths are no news
        theirs._worker_pids_set = False
        _end_pinning(theirs)
        if all(worker.is_alive() for worker in workers):  # else one may have died with the lock of the event
            theirs._workers_done_event.set()
            for queue in theirs._index_queues:
                queue.put(None)
            _wait(workers, _MOMENT_S)
    finally:
        _kill(workers)
        for queue in (*theirs._index_queues, theirs._worker_result_queue):
            queue.cancel_join_thread()
            queue.close()


def _end_pinning(stream: Any) -> None:
    """End the thread that copies batches to pinned memory, before a worker dies in the middle of what it reads."""
    thread = getattr(stream, "_pin_memory_thread", None)
    if thread is not None:
        stream._pin_memory_thread_done_event.set()
        stream._worker_result_queue.put((None, None))  # it may be waiting
        thread.join(_GONE_S)


def _wait(processes: list[Any], seconds: float) -> None:
    """Wait until all processes have ended, or the time is up."""
    ends, left = time.monotonic() + seconds, {process.sentinel for process in processes}
    while left and (remaining := ends - time.monotonic()) > 0:
        left -= set(wait(list(left), remaining))


def _kill(processes: list[Any]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.join(_GONE_S)
