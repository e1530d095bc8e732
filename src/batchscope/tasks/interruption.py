"""An exception that a signal raises in the main thread, whatever stands there, and that nothing on its way may lose.

Python drops an exception that is raised inside `__del__`, the callback of a weak reference or of the collector, and
any code may catch it and go on. So whoever raises an `Interruption` raises it again until it has arrived, but not
while it is on its way: what it passes (`finally`, `with`) is then at work on ending.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

__all__ = ["Interruption", "losses_unsaid", "on_its_way"]


class Interruption(KeyboardInterrupt):
    """What ends the work of the main thread from outside; libraries clean up after it as after Ctrl-C."""


def on_its_way() -> bool:
    """Whether an `Interruption` is being handled somewhere below on the stack of this thread.

    Example:
        >>> try:
        ...     raise Interruption
        ... except Interruption:
        ...     on_its_way()
        True
    """
    error, seen = sys.exception(), set[int]()
    while error is not None and id(error) not in seen:
        if isinstance(error, Interruption):
            return True
        seen.add(id(error))
        error = error.__context__
    return False


@contextmanager
def losses_unsaid() -> Generator[None]:
    """Context in which Python says nothing of an `Interruption` that it drops: it is raised again."""
    before = sys.unraisablehook

    def say(lost: UnraisableHookArgs) -> None:
        if not isinstance(lost.exc_value, Interruption):
            before(lost)

    sys.unraisablehook = say
    try:
        yield
    finally:
        if sys.unraisablehook is say:
            sys.unraisablehook = before
