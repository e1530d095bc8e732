"""What every executor keeps to: the interface of `concurrent.futures.Executor`, and how many processes are at work."""

from __future__ import annotations

from abc import abstractmethod
from concurrent.futures import Executor
from types import TracebackType

__all__ = ["CountedExecutor"]


class CountedExecutor(Executor):
    """An `Executor` that says how many processes take its calls.

    `submit(function, *args)` returns a `concurrent.futures.Future`; `wait`, `as_completed`, `map` and `Future.cancel`
    work as in the standard library. What goes to another process, function, arguments and result, can be pickled, the
    function by its module's name. What is submitted does not depend on which executor does it.

    `shutdown(wait=False, cancel_futures=True)` throws everything away at once: what was not begun is cancelled, what
    is at work is stopped where it can be, and nobody waits for it. Leaving `with` by an exception does the same.
    """

    @property
    @abstractmethod
    def processes(self) -> int:
        """Number of processes that take calls now, this one included where it takes them; 0: none does any more."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown(wait=kind is None, cancel_futures=kind is not None)
