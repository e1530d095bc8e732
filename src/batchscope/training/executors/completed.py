"""Results of many calls as they come, until time is up; what fails elsewhere is done here, where an error is seen."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from typing import Any, TypeVar

from ...tasks.patience import waiting_for
from ..limits import CutOff
from .base import CountedExecutor
from .in_process import InProcessExecutor
from .worker import never_late

__all__ = ["IsLate", "completed"]

_A = TypeVar("_A")
_T = TypeVar("_T")
_ASKED_EVERY_S = 0.2
_EXPECTED_S = 600.0
"""Seconds that a call in another process is expected to take at most, the start of that process included."""

IsLate = Callable[[], bool]
"""Says whether time is up, so that nothing more should be begun."""


def completed(
    executor: CountedExecutor, function: Callable[[_A, IsLate], _T], arguments: Iterable[_A], *, late: IsLate
) -> Generator[tuple[_A, _T]]:
    """Results of `function(argument, late)` for each argument, as they come; fewer where time is up.

    No more calls are submitted than there are processes, so that an executor which works at `submit` gives each result
    before the next call begins. A call that fails in another process (its memory, a source that changed, a process that
    died) is tried again; after as many failures as there were processes the executor is shut down, and the rest is done
    here, where an error is raised as what it is.

    Args:
        executor: does the calls.
        function: given an argument and whether time is up, which it may ask on the way and answer with `CutOff`; in
            another process it is never told that time is up, because what is at work there is thrown away.
        arguments: one a call.
        late: whether time is up; then the executor is shut down, and nobody waits for what is at work.

    Yields:
        An argument and its result.

    Raises:
        Exception: whatever `function` raises in this process.

    Example:
        >>> from batchscope.training.executors.in_process import InProcessExecutor
        >>> list(completed(InProcessExecutor(), lambda n, late: n * n, [1, 2, 3], late=lambda: False))
        [(1, 1), (2, 4), (3, 9)]
    """
    left = deque(arguments)
    if not isinstance(executor, InProcessExecutor):
        yield from _elsewhere(executor, function, left, late)
    here = InProcessExecutor()
    while left and not late():
        argument = left.popleft()
        try:
            found = here.submit(function, argument, late).result()
        except CutOff:
            return
        yield argument, found


def _elsewhere(
    executor: CountedExecutor, function: Callable[[_A, IsLate], _T], left: deque[_A], late: IsLate
) -> Generator[tuple[_A, _T]]:
    """Results that other processes find; what they fail at stays in `left`, and nothing does where time is up."""
    at_work: dict[Future[_T], _A] = {}
    failures_left = executor.processes
    while True:
        while left and failures_left > 0 and len(at_work) < executor.processes and not late():
            argument = left.popleft()
            at_work[_submitted(executor, function, argument)] = argument
        if not at_work:
            break
        done = _next_done(at_work, late)
        if late():
            left.clear()
            break
        for future in done:
            argument = at_work.pop(future)
            if future.exception() is None:
                yield argument, future.result()
            else:
                left.append(argument)
                failures_left -= 1
    if at_work or failures_left <= 0:
        executor.shutdown(wait=False, cancel_futures=True)


def _next_done(at_work: Iterable[Future[_T]], late: Callable[[], bool]) -> set[Future[_T]]:
    """The calls that are done, as soon as there are some; none where time is up before."""
    done = set[Future[_T]]()
    with waiting_for("a measurement in another process", _EXPECTED_S):
        while not done and not late():
            done, _ = wait(at_work, timeout=_ASKED_EVERY_S, return_when=FIRST_COMPLETED)
    return done


def _submitted(executor: CountedExecutor, function: Callable[[_A, IsLate], _T], argument: _A) -> Future[_T]:
    """A call at work; a failed one where the last process died in this moment."""
    try:
        return executor.submit(function, argument, never_late)
    except BrokenExecutor as error:
        future: Future[Any] = Future()
        future.set_exception(error.with_traceback(None))  # which leads to the frame that holds the future
        return future
