"""The watchdog: a call of the user's code that does not come back ends with one message, not never.

A thread looks at what the main thread waits for (`patience`), and counts its own looks: time in which the whole process
stood still (a laptop that sleeps, SIGSTOP) does not count, because the watchdog slept as well. A call that hangs is
interrupted by a signal, which reaches Python code, `time.sleep`, locks and system calls; code in C that never returns
to Python it does not reach, and such a process has to be ended.
"""

from __future__ import annotations

import logging
import math
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ..errors import TaskError
from ..wording import duration
from .interruption import Interruption, losses_unsaid, on_its_way
from .patience import FIRST_S, GENEROUS, LEAST_S, Patience, patience

__all__ = ["watching"]

_PACKAGE = str(Path(__file__).parents[1])
_LOOKS_EVERY_S, _LOOKS = 1.0, 10
"""Seconds from one look to the next at most, and looks within a limit at least."""
_KNOCK = getattr(signal, "SIGRTMAX", signal.SIGALRM)
"""The signal that interrupts the main thread: one that programs do not use."""
_KNOCKS_EVERY_S, _GRACE_S = 0.5, 10.0
"""A hang is interrupted so often, and by default for so long; then it is one in C, and the last resort is called."""


class _Hang(Interruption):
    """A call of the user's code that took too long."""


@contextmanager
def watching(
    asked_s: float | None = None, *, last_resort: Callable[[str], object] | None = None, grace_s: float = _GRACE_S
) -> Generator[None]:
    """Context in which a call of the user's code that hangs ends with a `TaskError`.

    It works in the main thread alone, where signals arrive; in another one it only bounds how long loader workers may
    take for a batch. Inside another such context it does nothing, the outer one watches.

    Args:
        asked_s: seconds that any call may take; default: 20 times the longest of its kind so far and at least 5 min,
            the first of its kind 30 min.
        last_resort: called in the watchdog's thread, with the message, where the main thread cannot be interrupted: it
            may end the process. Default: the message is logged.
        grace_s: for how long it is tried to interrupt the main thread.

    Raises:
        TaskError: a call hangs; the message says which, how long it was waited for, and what to change.
    """
    mine = patience()
    if mine.watched:
        yield
        return
    mine.asked_s = asked_s
    try:
        if threading.current_thread() is not threading.main_thread():
            yield
        else:
            with losses_unsaid():
                yield from _watched(_Watchdog(mine, last_resort, grace_s))
    finally:
        mine.asked_s = None


def _watched(dog: _Watchdog) -> Generator[None]:
    dog.begin()
    try:
        yield
    except BaseException as error:
        if dog.message is None or (isinstance(error, Interruption) and not isinstance(error, _Hang)):
            raise
        raise TaskError(dog.message) from error
    finally:
        dog.end()


class _Watchdog:
    """Looks at what the main thread waits for, and interrupts it.

    Attributes:
        message: on the call that hangs; `None`: none does.
    """

    def __init__(self, watched: Patience, last_resort: Callable[[str], object] | None, grace_s: float) -> None:
        self._watched, self._last_resort = watched, last_resort or logging.getLogger(__name__).error
        self._grace_s = grace_s
        self.message: str | None = None
        self._signs, self._came_back = 0, False
        self._main = threading.get_ident()
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def begin(self) -> None:
        """Begin to look."""
        self._watched.waited_for.clear()  # what an interrupted call may have left
        self._watched.watched = True
        self._before = signal.signal(_KNOCK, self._knocked)
        try:
            self._thread.start()
        except RuntimeError:  # the process may have no more threads
            self._watched.watched = False

    def end(self) -> None:
        """Stop looking; from here on nothing is interrupted."""
        with self._lock:
            self._over.set()
        self._watched.watched = False
        signal.signal(_KNOCK, self._before)

    def _look(self) -> None:
        asked_s = self._watched.asked_s
        every_s = _LOOKS_EVERY_S if asked_s is None else min(_LOOKS_EVERY_S, asked_s / _LOOKS)
        seen, what, waited_s = -1, "", 0.0
        while not self._over.wait(every_s):
            signs, blocks = self._watched.signs, self._watched.waited_for[-1:]
            if signs != seen or not blocks:
                if what:
                    self._watched.took(what, waited_s)
                seen, what, waited_s = signs, blocks[0][0] if blocks else "", 0.0
                continue
            waited_s += every_s
            limit_s = self._watched.limit_s(*blocks[0])
            if waited_s >= limit_s and self._interrupt(signs, self._in_words(what, limit_s)):
                return

    def _interrupt(self, signs: int, message: str) -> bool:
        """Interrupt the main thread until it has arrived; whether there was anything to interrupt any more."""
        self._signs, self.message = signs, message
        for _ in range(math.ceil(self._grace_s / _KNOCKS_EVERY_S)):
            with self._lock:
                if self._over.is_set():
                    return True
                signal.pthread_kill(self._main, _KNOCK)
            if self._over.wait(_KNOCKS_EVERY_S):
                return True
            if self._came_back:
                self.message, self._came_back = None, False
                return False
        self._last_resort(message)
        return True

    def _knocked(self, number: int, frame: FrameType | None) -> None:
        """In the main thread: raise, unless the call came back in this moment, or the exception is on its way."""
        if self._over.is_set() or self.message is None:
            if callable(self._before):
                self._before(number, frame)
        elif self._signs not in (self._watched.signs, -1):
            self._came_back = True
        elif not on_its_way():
            self._signs = -1
            raise _Hang(self.message)

    def _in_words(self, what: str, limit_s: float) -> str:
        from .user_code import place_in

        # no name for the frames: this one is among them, and would hold itself and all others in a cycle
        stack = traceback.extract_stack(sys._current_frames().get(self._main))  # pyright: ignore[reportPrivateUsage]
        ours = [i for i, frame in enumerate(stack) if frame.filename.startswith(_PACKAGE)]
        place = place_in(stack[ours[-1] + 1 :] if ours else stack)
        if self._watched.asked_s is not None:
            why = "all that --step-timeout allows"
        else:
            why = (
                f"more than {GENEROUS:g} times what such a call took before, and than {duration(LEAST_S)} "
                f"({duration(FIRST_S)} for the first)"
            )
        return (
            f"{what} did not come back within {duration(limit_s)}{place}, {why}: it hangs (a lock, a network, a file "
            f"that never comes), or takes longer than that; finished runs are kept, and --step-timeout "
            f"{_twice(limit_s)} waits longer"
        )


def _twice(seconds: float) -> str:
    """A length of time as an option has it, twice as long.

    >>> _twice(0.5), _twice(300.0)
    ('1s', '10m')
    """
    double = 2 * seconds
    return f"{double / 60:.0f}m" if double >= 300.0 else f"{double:.3g}s"
