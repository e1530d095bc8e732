"""Loader workers: the processes behind a `DataLoader` are started as a whole or not at all, and end at once.

torch waits five seconds for each worker that is in the middle of an example, and ends them only when the iterator is
freed. Here they are told to end, and those that have not a moment later are killed: what they load is wanted by nobody.
"""

from __future__ import annotations

import functools
import multiprocessing
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import wait
from typing import Any, cast

import numpy as np
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torch.utils.data._utils import signal_handling

from ..errors import TaskError
from ..hardware.random_state import seed_everything
from .batches import MicroBatchRequest

__all__ = ["SeededData", "begun_as_theirs", "end_workers", "forget_deaths", "started"]

_forget: Callable[[int], None] = getattr(signal_handling, "_remove_worker_pids")  # noqa: B009 - torch's own
_MOMENT_S = 0.05
"""In which a worker that waits, or is about to hand over a batch, ends by itself."""
_GONE_S = 5.0
"""A process that was killed is gone long before, unless the kernel itself waits (a network drive)."""


class SeededData(Dataset[Any]):
    """A data set that a loader asks by requests; in a worker each micro-batch has random numbers of its own.

    What its examples and their collation draw from global generators there depends on the run's seed and on the place
    of the micro-batch in the run, not on which worker loads it, or on what that worker has loaded before.
    """

    def __init__(self, theirs: Dataset[Any], seed: int) -> None:
        self.theirs, self._seed = theirs, seed

    def __getitems__(self, request: MicroBatchRequest) -> list[Any]:
        if get_worker_info() is not None:
            entropy = (self._seed, request.step, request.part)
            seed_everything(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1)))
        many: Any = getattr(self.theirs, "__getitems__", None)
        if callable(many):
            return cast(Any, many)(request.indices)
        return [self.theirs[index] for index in request.indices]


def begun_as_theirs(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a loader of a data set that holds the task's as `theirs`: its workers see that one as their own."""
    return {**options, "worker_init_fn": functools.partial(_begin, options.get("worker_init_fn"))}


def _begin(init: Callable[[int], object] | None, worker: int) -> None:
    """In a worker: `get_worker_info().dataset` is the task's, as its author expects; then the task's own function."""
    info: Any = get_worker_info()
    object.__setattr__(info, "dataset", info.dataset.theirs)
    if init is not None:
        init(worker)


def started(loader: DataLoader[Any]) -> Iterator[Any]:
    """The iterator of a loader; where not all workers can be started, those that were are gone.

    Raises:
        TaskError: the system refuses a process.
    """
    if not loader.num_workers:
        return iter(loader)
    before = {process.pid for process in multiprocessing.active_children()}
    try:
        return iter(loader)
    except BaseException as error:
        _kill([process for process in multiprocessing.active_children() if process.pid not in before])
        for frame, _ in traceback.walk_tb(error.__traceback__):
            half_made: Any = frame.f_locals.get("self")
            if hasattr(half_made, "_shutdown_workers"):
                half_made._shutdown = True  # torch, which would end workers that it has not, has nothing left to do
        if not isinstance(error, OSError):
            raise
        raise TaskError(
            f"{loader.num_workers} loader workers for train_data() could not be started ({error}): the system has no "
            "process or memory left for them; ask for fewer num_workers in loader_options, or for 0"
        ) from error


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
        forget_deaths(theirs)
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


def forget_deaths(stream: Iterator[Any]) -> None:
    """Have torch no longer raise, at whatever line is at work, that a worker of an iterator has died."""
    theirs: Any = stream
    if theirs._worker_pids_set:
        theirs._worker_pids_set = False
        _forget(id(theirs))


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
