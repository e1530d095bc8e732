"""Hooks inside somebody else's training: what they raise is kept, and never reaches the training."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import ParamSpec

__all__ = ["Guard"]

P = ParamSpec("P")


class Guard:
    """Keeper of the first exception that a hook has raised; after it no guarded hook does anything.

    Args:
        own: context in which hooks run; the monitor's measures their time.

    Example:
        >>> guard = Guard()
        >>> hook = guard.around(lambda gradient: 1 / 0)
        >>> hook(None), hook(None)
        (None, None)
        >>> guard.check()
        Traceback (most recent call last):
        ZeroDivisionError: division by zero
    """

    def __init__(self, own: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self._own = own
        self._error: Exception | None = None

    def around(self, hook: Callable[P, object]) -> Callable[P, None]:
        """Hook that returns nothing and raises nothing."""

        def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
            if self._error is None:
                try:
                    with self._own():
                        hook(*args, **kwargs)
                except Exception as error:
                    self._error = error

        return guarded

    def check(self) -> None:
        """Raise what a hook has raised since the last check, if anything."""
        error, self._error = self._error, None
        if error is not None:
            raise error
