"""Calls in other processes, which end with this one.

`concurrent.futures.ProcessPoolExecutor` has the same interface, and four things that cannot be had from it cleanly:
its processes import the caller's `__main__` again (a script without `if __name__ == "__main__"` would run once more in
each; only changing `sys.modules["__main__"]` while they start keeps `multiprocessing` from it), they survive a parent
that is killed (each holds both ends of the pipe that it reads), a call at work cannot be thrown away before Python
3.14, and one process that dies takes the calls of all others along. So a process here is `python -c`, a socket, and a
pipe whose end tells it that its parent is gone.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import Pipe
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

from .base import CountedExecutor

__all__ = ["ProcessExecutor"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

_LOOKED_EVERY_S = 0.2


@dataclass(frozen=True, kw_only=True)
class _Call:
    """A pickled call, and where its result goes."""

    future: Future[Any]
    message: bytes


class ProcessExecutor(CountedExecutor):
    """An executor of processes that import what a call names, and nothing of the caller's `__main__`.

    Processes print nothing, and leave SIGINT to this one. One that dies fails the call that it was at with
    `BrokenProcessPool`, and no other; when none is left, waiting calls fail so too, and `submit` raises it. A function
    or an argument that is defined in the caller's `__main__` cannot be found there: its call fails.

    Args:
        processes: how many, started at once; they inherit this process's folder, environment and `sys.path`.

    Raises:
        OSError: a process cannot be started.

    Cost: a fraction of a second a process, and whatever the first call has to import.

    Example:
        >>> with ProcessExecutor(1) as executor:
        ...     executor.submit(divmod, 7, 2).result()
        (3, 1)
    """

    def __init__(self, processes: int) -> None:
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._threads: dict[_Worker, threading.Thread] = {}
        workers: list[_Worker] = []
        try:
            for _ in range(processes):
                workers.append(_Worker())
        except OSError:
            for worker in workers:
                worker.end()
            raise
        for worker in workers:
            self._threads[worker] = threading.Thread(target=self._feed, args=(worker,), daemon=True)
        for thread in tuple(self._threads.values()):
            thread.start()

    @property
    def processes(self) -> int:
        """Number of processes alive; 0 after `shutdown`."""
        return 0 if self._closed else len(self._threads)

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the processes alive."""
        with self._lock:
            return tuple(worker.process.pid for worker in self._threads)

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Have a call done by the next process that is free.

        Raises:
            RuntimeError: after `shutdown`.
            BrokenProcessPool: all processes have died.
        """
        future: Future[_T] = Future()
        try:
            message = pickle.dumps((fn, args, kwargs), pickle.HIGHEST_PROTOCOL)
        except Exception as error:  # pickling runs the arguments' own code
            message = b""
            future.set_exception(error.with_traceback(None))  # which leads to this frame, and so to the future
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if not self._threads:
                raise BrokenProcessPool("all worker processes have ended")
            if message:
                self._calls.put(_Call(future=future, message=message))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and end the processes.

        Args:
            wait: until the calls are done.
            cancel_futures: the calls that were not begun; without `wait` those at work are thrown away too.
        """
        with self._lock:
            self._closed = True
            left = dict(self._threads)
            if cancel_futures:
                for call in self._waiting():
                    call.future.cancel()
            for _ in left:
                self._calls.put(None)
        thrown_away = cancel_futures and not wait
        if thrown_away:
            for worker in left:
                worker.process.kill()
        if wait or thrown_away:
            for thread in left.values():
                thread.join()

    def _feed(self, worker: _Worker) -> None:
        """Give one process calls, as long as it lives; runs in a thread of its own."""
        try:
            while (call := self._calls.get()) is not None:
                if call.future.set_running_or_notify_cancel() and not worker.do(call):
                    return
                del call  # nobody else may hold its result, while this waits for the next one
        finally:
            worker.end()
            with self._lock:
                del self._threads[worker]
                abandoned = [] if self._threads else list(self._waiting())
            for call in abandoned:
                if call.future.set_running_or_notify_cancel():
                    call.future.set_exception(BrokenProcessPool("all worker processes have ended"))

    def _waiting(self) -> Iterator[_Call]:
        """Take the calls that were not begun off the queue."""
        while True:
            try:
                call = self._calls.get_nowait()
            except Empty:
                return
            if call is not None:
                yield call


class _Worker:
    """One process, seen from here."""

    def __init__(self) -> None:
        self._connection, theirs = Pipe()
        handle = theirs.fileno()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"from batchscope.training.executors.worker import serve; serve({handle})"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[handle],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        except OSError:
            self._connection.close()
            raise
        finally:
            theirs.close()

    def do(self, call: _Call) -> bool:
        """Have one call done; whether the process lives."""
        try:
            self._connection.send_bytes(call.message)
            answer = self._received()
        except (EOFError, OSError):
            status = self.process.poll()
            call.future.set_exception(
                BrokenProcessPool(
                    f"worker process {self.process.pid} ended"
                    f"{'' if status is None else f' with status {status}'} in the middle of a call"
                )
            )
            return False
        try:
            succeeded, found = pickle.loads(answer)
        except Exception as error:  # what cannot be made again here is an error of this call
            succeeded, found = False, error.with_traceback(None)
        if succeeded:
            call.future.set_result(found)
        else:
            call.future.set_exception(found)
        return True

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()
        self._connection.close()

    def _received(self) -> bytes:
        """The next answer; children of the process may hold its socket open when it is gone, so look for it too."""
        while not self._connection.poll(_LOOKED_EVERY_S):
            if self.process.poll() is not None and not self._connection.poll():
                raise EOFError
        return self._connection.recv_bytes()
