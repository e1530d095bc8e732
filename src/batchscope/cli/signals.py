"""How the program ends by SIGINT, SIGTERM and SIGHUP: with 130, 143 or 129, one sentence, and no process left behind.

The first signal raises `Terminated` in the main thread, so that every `finally` on the way is carried out. It is raised
again where it was lost, and what is still there after the grace, or at the third signal, ends at once: code in C that
never returns to Python, a `finally` that hangs, a terminal that takes no more. A thread sees to that, for signals reach
Python code of the main thread only. What a parent ignores (`nohup`, a job in the background) stays ignored.

Nothing here is done where batchscope is used from Python: signals are then the caller's.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from ..tasks.interruption import Interruption, losses_unsaid, on_its_way
from ..wording import showable
from .descendants import Descendants
from .streams import answers, flush_all, messages, no_more_objects, open_closed_streams, write_at_once

__all__ = [
    "as_program",
    "before_the_end",
    "give_way",
    "in_words",
    "last_resort",
    "uninterrupted",
    "wants_json",
    "while_answering",
]

_ENDING = tuple(int(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
_GRACE_S, _LOOKS_EVERY_S = 10.0, 0.25
_AT_ONCE = 3
"""Signals after which the grace is over."""
_SAYING_S = 1.0
"""What the sentence may take to be written by a process that is ended at once."""
_OTHERS_S = 0.1
"""A signal to a group reaches its processes one after another."""

before_the_end: list[Callable[[], object]] = []
"""Called before the sentence: what puts the terminal back, of live views that are open."""


class Terminated(Interruption):
    """A signal ends the program."""


class _Signals:
    """The signals of the program, from its first line to its end.

    Attributes:
        number: of the first that arrived; `None`: none did.
        over: whether the command is over, so that nothing is left to interrupt.
        status: the program's, once that is known.
        held: number of open blocks that are carried out whole.
        answering: whether an answer was begun, so that no other object may follow it.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.number: int | None = None
        self.over, self.held, self.answering = False, 1, False
        self.status: int | None = None
        self._words = words
        self._pid, self._main = os.getpid(), threading.get_ident()
        self._again, self._said = False, threading.Lock()
        self._left = Descendants(self._pid)
        self._bytes, wakeup = os.pipe()
        os.set_blocking(wakeup, False)
        atexit.register(self._leave)  # the first to be registered, the last to be called
        os.register_at_fork(after_in_child=self._in_child)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        self._taken = [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]
        for number in self._taken:
            signal.signal(number, self._arrived)
        with suppress(RuntimeError):  # the process may have no more threads
            threading.Thread(target=self._guard, daemon=True).start()

    def ended(self, status: int) -> int:
        """The program's exit status after a command; the signal's, and its sentence, where one arrived."""
        if self.number is not None:
            self._say(self.number)
            self._end_children()
            status = 128 + self.number
        _end_attempts()
        self.status = status
        return status

    def end_at_once(self, status: int, said: str, error: str) -> NoReturn:
        """End the process from any thread, whatever the main one is doing."""
        writing = threading.Thread(target=self._write, args=(said, error), daemon=True)
        writing.start()
        writing.join(_SAYING_S)
        self._end_children()
        _end_attempts()
        os._exit(status)

    def raise_arrived(self) -> None:
        """Raise for a signal that arrived, unless that is on its way, or is held back."""
        if self.number is not None and not self.over and not self.held and not on_its_way():
            raise Terminated

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        """In the main thread: a signal, or a knock of the guard after one."""
        if os.getpid() != self._pid:
            return
        first, self.number = self.number is None, number if self.number is None else self.number
        if first and self.over:
            self.end_at_once(128 + number, *in_words(number))
        if first or self._again:
            self._again = False
            self.raise_arrived()

    def _guard(self) -> None:
        """See that a signal ends the program; runs in a thread of its own."""
        arrived = list[int]()
        while not arrived:
            arrived = self._read()
        self._left.look()
        signals, ends = len(arrived), time.monotonic() + _GRACE_S
        while signals < _AT_ONCE and time.monotonic() < ends:
            if select.select([self._bytes], [], [], _LOOKS_EVERY_S)[0]:
                signals += len(self._read())
            elif not self.over:
                self._again = True
                signals -= 1  # the knock is read as one more
                signal.pthread_kill(self._main, arrived[0])
        self.end_at_once(128 + arrived[0], *in_words(arrived[0]))

    def _read(self) -> list[int]:
        return [number for number in os.read(self._bytes, 64) if number in self._taken]

    def _say(self, number: int) -> None:
        with suppress(Exception):  # a view that cannot be put away costs neither sentence nor status
            for put_back in before_the_end:
                put_back()
        self._write(*in_words(number))

    def _write(self, said: str, error: str) -> None:
        """Say how the program ends, once; whoever asked for JSON gets an object if no answer was begun."""
        if not self._said.acquire(blocking=False):
            return
        shown = "\x1b[?25h" if os.isatty(2) else ""
        write_at_once(messages(), f"{shown}{showable(said)}\n")
        if wants_json(self._words) and not self.answering:
            message = said.removeprefix("batchscope: ")
            found = json.dumps({"status": "error", "error": error, "message": message})
            write_at_once(answers(), f"{found}\n")
            no_more_objects()

    def _in_child(self) -> None:
        """In a forked process: the signals of a terminal are the parent's, which ends its children."""
        signal.set_wakeup_fd(-1)
        for number in self._taken:
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else _left_to_the_parent)

    def _end_children(self) -> None:
        if threading.get_ident() == self._main:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch raises where a loader worker dies
        self._left.end()

    def _leave(self) -> None:
        """End the process after all that is called at its end, before Python takes its modules apart."""
        if self.status is not None and os.getpid() == self._pid:
            flush_all()
            os._exit(self.status)


_program: list[_Signals] = []
"""The signals of the program; empty where this process is another program."""


def as_program(words: Sequence[str], command: Callable[[Sequence[str]], int]) -> NoReturn:
    """Be the program: carry out a command line, and exit with its status or with that of a signal.

    Args:
        words: of the command line.
        command: carries it out, answers, and returns its exit status.
    """
    open_closed_streams()
    signals = _Signals(words)
    _program.append(signals)
    status = 1
    try:
        try:
            signals.held = 0
            signals.raise_arrived()
            with losses_unsaid():
                status = command(words)
        finally:
            signals.over = True
    except BaseException:
        if signals.number is None:
            raise
    sys.exit(signals.ended(status))


@contextmanager
def uninterrupted() -> Generator[None]:
    """Context that is carried out whole: a signal that arrives inside ends the program at its end."""
    for signals in _program:
        signals.held += 1
    try:
        yield
    finally:
        for signals in _program:
            signals.held -= 1
            signals.raise_arrived()


@contextmanager
def while_answering() -> Generator[None]:
    """Context of writing the answer: it is carried out whole, and no other object follows it."""
    with uninterrupted():
        for signals in _program:
            signals.answering = True
        yield


def give_way() -> None:
    """Raise where a signal arrived, or arrives in this moment; an error may be what it did to a child before."""
    for signals in _program:
        time.sleep(_OTHERS_S)
        if signals.number is not None:
            raise Terminated


def last_resort() -> Callable[[str], object] | None:
    """What ends the program with a message where its main thread hangs in C; `None` where it is not ours to end."""
    for signals in _program:
        return lambda message: signals.end_at_once(2, f"batchscope: {message}", "TaskError")
    return None


def wants_json(words: Sequence[str]) -> bool:
    """Whether a command line asks for one JSON object."""
    return any(word.partition("=")[0] == "--json" for word in words)


def in_words(number: int) -> tuple[str, str]:
    """The sentence on a signal, and what JSON calls it."""
    name = signal.Signals(number).name
    how, error = ("interrupted", "KeyboardInterrupt") if number == signal.SIGINT else (f"ended by {name}", name)
    return f"{how}; finished runs are kept, and the same command goes on from there", error


def _end_attempts() -> None:
    """An end of the program's own will is no death of what it was at."""
    if attempts := sys.modules.get("batchscope.store.attempts"):
        attempts.end_all()


def _left_to_the_parent(number: int, frame: FrameType | None) -> None:
    """Do nothing; unlike a signal that is ignored, this is not handed on to other programs."""
