"""Calls in this process, each done when it is submitted."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

from .base import CountedExecutor

__all__ = ["InProcessExecutor"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


class InProcessExecutor(CountedExecutor):
    """An executor without other processes: `submit` returns when the call is done.

    An exception of the call is kept in its future, the original with its traceback; what ends a program
    (`KeyboardInterrupt`, `SystemExit`) is raised by `submit`.

    Example:
        >>> with InProcessExecutor() as executor:
        ...     executor.submit(divmod, 7, 2).result()
        (3, 1)
    """

    def __init__(self) -> None:
        self._closed = False

    @property
    def processes(self) -> int:
        """This process; 0 after `shutdown`."""
        return 0 if self._closed else 1

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Do a call now.

        Raises:
            RuntimeError: after `shutdown`.
        """
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[_T] = Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        try:
            return future
        finally:
            del future  # it holds the error, whose traceback holds this frame

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; there is nothing to wait for, and nothing to cancel."""
        del wait, cancel_futures
        self._closed = True
