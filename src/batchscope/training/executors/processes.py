"""Numbered repeats of one measurement, shared among processes that end with this one.

A repeat draws what its number says, and every process computes on one thread: so the results are the same, however
many processes there are and whichever does what. A process loads the task by its name and settings, as the command did;
for a task that cannot be loaded again (an object made in Python), on an accelerator, for a short measurement, and
wherever a process fails, the repeats are done here.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn

from ...hardware.device import pick
from ...tasks.loading import LoadedTask, load_task
from ...tasks.workload import Workload
from ..limits import CutOff

__all__ = ["Measure", "SharedRepeats", "stretches", "work"]

Measure = Callable[[Workload, nn.Module, range, Mapping[str, Any], Callable[[], bool]], Any]
"""What measures the repeats of a range: a function of a module, which another process can import.

It is given the task, a model that it leaves as it is, the numbers of the repeats, whatever else it needs, and a
function that says whether to give up, which it may ask on the way and answer with `CutOff`. What it returns can be
pickled.
"""

_MOST_PROCESSES = 4
_WORTH_S = 20.0
"""Of work, from which on starting processes pays: each imports torch and loads the data first."""
_ASKED_EVERY_S = 0.2


@dataclass(frozen=True, kw_only=True)
class _Order:
    """What a process is told once."""

    folder: str
    spec: str
    given: Sequence[str] | Mapping[str, Any]
    settings: Mapping[str, Any]
    source_sha256: str
    independent: bool


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    """What a process is told for each stretch of repeats; `weights` where they differ from the last ones."""

    measure: Measure
    numbers: range
    arguments: Mapping[str, Any]
    weights: bytes | None


class SharedRepeats:
    """Does numbered repeats, here or in several processes; use it with `with`, which ends them.

    Args:
        loaded: the task, as it was loaded.
        workload: the same on its device.
        late: whether time is up: nothing is begun then, and what is at work is thrown away.
        processes: how many at most; default: the cores that this process may use, 4 at most.

    Attributes:
        workers: the processes at work; none: the repeats are done here.
    """

    def __init__(
        self, loaded: LoadedTask, workload: Workload, *, late: Callable[[], bool], processes: int | None = None
    ) -> None:
        self._loaded, self._workload, self._late = loaded, workload, late
        self._most = _cores() if processes is None else processes
        self.workers: list[_Worker] = []

    def __enter__(self) -> SharedRepeats:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def processes(self) -> int:
        """How many are at work, this one if no other is."""
        return max(1, len(self.workers))

    def expect(self, seconds: float) -> int:
        """Start processes where so many seconds of work in one are worth it; how many are at work then."""
        if not self.workers and seconds >= _WORTH_S and (number := self._possible()) > 1:
            with contextlib.suppress(pickle.PicklingError, AttributeError, TypeError, OSError):
                order = pickle.dumps(self._order())
                for _ in range(number):
                    self.workers.append(_Worker(order))
        return self.processes

    def results(
        self, measure: Measure, model: nn.Module, numbers: Sequence[range], arguments: Mapping[str, Any]
    ) -> Generator[tuple[range, Any]]:
        """Each stretch of repeats with what was measured, as they come; fewer where time is up.

        Args:
            measure: what is done.
            model: at whose weights.
            numbers: the stretches.
            arguments: what `measure` needs besides.

        Raises:
            TaskError: the task's loss failed.
        """
        left = list(reversed(numbers))
        if self.workers:
            yield from self._from_processes(measure, _packed(model), left, arguments)
        while left and not self._late():
            chunk = left.pop()
            try:
                with one_thread(self._workload):
                    found = measure(self._workload, model, chunk, arguments, self._late)
            except CutOff:
                return
            yield chunk, found

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        while self.workers:
            self.workers.pop().end()

    def _from_processes(
        self, measure: Measure, weights: bytes, left: list[range], arguments: Mapping[str, Any]
    ) -> Generator[tuple[range, Any]]:
        """Takes from `left` what was done; what a process failed at stays there."""
        for worker in self.workers:
            worker.forget()
        while (left or any(w.chunk for w in self.workers)) and self.workers:
            for worker in self.workers:
                if left and worker.ready and worker.chunk is None:
                    worker.begin(measure, left.pop(), arguments, weights)
            ready = wait([w.connection for w in self.workers], timeout=_ASKED_EVERY_S)
            if self._late():
                self.close()
                left.clear()
                return
            for worker in [w for w in self.workers if w.connection in ready]:
                chunk, found = worker.result()
                if isinstance(found, _Failed):
                    left += [chunk] if chunk is not None else []
                    self.workers.remove(worker)
                    worker.end()
                elif chunk is not None:
                    yield chunk, found

    def _order(self) -> _Order:
        return _Order(
            folder=str(Path.cwd()),
            spec=self._loaded.spec,
            given=self._loaded.given,
            settings=self._loaded.settings,
            source_sha256=self._loaded.source_sha256,
            independent=self._workload.independent,
        )

    def _possible(self) -> int:
        """As many as there are cores, and memory for what this process takes."""
        if not self._loaded.spec or self._workload.device.torch_device.type != "cpu":
            return 1
        return min(self._most, _MOST_PROCESSES, int(self._workload.device.free_bytes() // _own_bytes()))


class _Failed:
    """What a process says that cannot go on: the repeats are done elsewhere, where an error is seen."""


class _Worker:
    """One process, seen from here."""

    def __init__(self, order: bytes) -> None:
        self.connection, theirs = Pipe()
        self.ready = False
        self.chunk: range | None = None
        self._knows_weights = False
        command = [
            sys.executable,
            "-c",
            f"from batchscope.training.executors.processes import work; work({theirs.fileno()})",
        ]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=environment,
            )
        finally:
            theirs.close()
        self._send(order)

    def forget(self) -> None:
        """Other weights come."""
        self._knows_weights = False

    def begin(self, measure: Measure, chunk: range, arguments: Mapping[str, Any], weights: bytes) -> None:
        self.chunk = chunk
        new = None if self._knows_weights else weights
        self._send(pickle.dumps(_Chunk(measure=measure, numbers=chunk, arguments=arguments, weights=new)))
        self._knows_weights = True

    def result(self) -> tuple[range | None, Any]:
        """What is there to be read, and of which repeats; of none, when the task is loaded."""
        chunk, self.chunk, self.ready = self.chunk, None, True
        try:
            return chunk, pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            return chunk, _Failed()

    def end(self) -> None:
        self.process.kill()
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.wait()
        self.connection.close()

    def _send(self, message: bytes) -> None:
        with contextlib.suppress(OSError):  # a process that is gone shows when its result is read
            self.connection.send_bytes(message)


def work(handle: int) -> None:
    """The other process: what `SharedRepeats` starts.

    Args:
        handle: of the socket on which orders come.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    connection = Connection(handle)
    model: nn.Module | None = None
    try:
        workload = _loaded_again(pickle.loads(connection.recv_bytes()))
        connection.send_bytes(pickle.dumps(None))
        with one_thread(workload):
            while True:
                chunk: _Chunk = pickle.loads(connection.recv_bytes())
                if chunk.weights is not None:
                    model = _unpacked(workload, chunk.weights)
                if model is None:
                    raise ValueError("repeats came before weights")
                found = chunk.measure(workload, model, chunk.numbers, chunk.arguments, lambda: False)
                connection.send_bytes(pickle.dumps(found))
    except Exception:
        with contextlib.suppress(OSError):
            connection.send_bytes(pickle.dumps(_Failed()))


def stretches(numbers: Sequence[int], most: int) -> list[range]:
    """Increasing numbers as ranges of neighbours, none longer than `most`.

    >>> stretches([0, 1, 2, 3, 7, 8], 3)
    [range(0, 3), range(3, 4), range(7, 9)]
    """
    found: list[range] = []
    for number in numbers:
        if found and found[-1].stop == number and len(found[-1]) < most:
            found[-1] = range(found[-1].start, number + 1)
        else:
            found.append(range(number, number + 1))
    return found


@contextlib.contextmanager
def one_thread(workload: Workload) -> Generator[None]:
    """Inside, torch computes on one thread, where the task is on the CPU: sums do not depend on how they are split."""
    before = torch.get_num_threads()
    if workload.device.torch_device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _loaded_again(order: _Order) -> Workload:
    os.chdir(order.folder)
    loaded = load_task(order.spec, order.given)
    if (loaded.settings, loaded.source_sha256) != (order.settings, order.source_sha256):
        raise ValueError(f"{order.spec} has changed since it was loaded")
    workload = Workload(loaded.task, name=loaded.name, settings=loaded.settings, device=pick("cpu"))
    workload.independent = order.independent
    return workload


def _end_with_parent() -> None:
    """The other end of our standard input closes when the parent ends, however it does."""
    while os.read(0, 1):
        pass
    os._exit(1)


def _packed(model: nn.Module) -> bytes:
    into = io.BytesIO()
    torch.save(model.state_dict(), into)
    return into.getvalue()


def _unpacked(workload: Workload, weights: bytes) -> nn.Module:
    model = workload.model(0)
    model.load_state_dict(torch.load(io.BytesIO(weights), weights_only=True))
    return model


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _own_bytes() -> int:
    """The most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
