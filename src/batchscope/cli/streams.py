"""Standard streams: stdout is for the answer alone; whatever else this process or its children print is on stderr.

A task prints, its libraries print, extensions print in C, and loader workers inherit the descriptors: so descriptor 1
itself leads to stderr while user code may run, and the answer goes to a copy of what it was.

Neither a full disk nor a reader that has gone nor a terminal that has vanished ends anything: what cannot be written
is dropped, and `answer_lost` says why the answer is among it. What an encoding lacks is written in ASCII (`plain`).
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TextIO

from ..wording import plain, showable

__all__ = [
    "answer_lost",
    "answers",
    "flush_all",
    "messages",
    "no_more_objects",
    "only_answers_on_stdout",
    "open_closed_streams",
    "say",
    "write_at_once",
    "write_object",
]

_STDIN, _STDOUT, _STDERR = 0, 1, 2
_PLAIN = "batchscope.plain"
_FLUSHING_S = 1.0
"""What another thread of C code may take to let go of a buffer at the end of the process."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""A later write may succeed, and one process must not silence others for it."""


@dataclass(eq=False)
class _Streams:
    answers: TextIO
    messages: TextIO
    answered: bool = False


_streams: list[_Streams] = []
"""Where answers and messages go, the innermost last; empty: nothing is led apart."""
_no_stdout: list[OSError] = []
"""Why there is no stdout, until that is known to who answers; empty: there is."""


def answers() -> TextIO:
    """The stream for answers: stdout as the process began with it."""
    return _streams[-1].answers if _streams else sys.stdout


def write_object(text: str) -> None:
    """Write the one JSON object of a command to stdout; of an error that comes after it, none is written."""
    if _streams and _streams[-1].answered:
        return
    answers().write(f"{text}\n")
    answers().flush()
    if _streams:
        _streams[-1].answered = True


def messages() -> TextIO:
    """The stream for progress and messages: stderr as the process began with it, whatever user code does to it."""
    return _streams[-1].messages if _streams else sys.stderr


def say(*lines: str) -> None:
    """Write a message to stderr, each line made showable; dropped where it cannot be written."""
    with suppress(OSError, ValueError):  # ValueError: whoever captures stderr has closed it
        messages().write("".join(f"{showable(line)}\n" for line in lines))
        messages().flush()


def write_at_once(stream: TextIO, text: str) -> None:
    """Write past the buffer of a stream, whose lock may be held for ever where a process is ended by another thread."""
    buffer = getattr(stream, "buffer", None)  # none where it leads into memory; raw itself where nothing is buffered
    raw, left = getattr(buffer, "raw", buffer), text.encode(stream.encoding, _PLAIN)
    with suppress(OSError, ValueError, AttributeError):
        while raw is not None and left:
            left = left[raw.write(left) or 0 :]


def no_more_objects() -> None:
    """Let no other JSON object follow one that was written past `write_object`."""
    for streams in _streams:
        streams.answered = True


def answer_lost() -> OSError | None:
    """Why something of the answer could not be written; `None`: all of it was."""
    raw = getattr(getattr(answers(), "buffer", None), "raw", None)
    return raw.lost if isinstance(raw, _Lasting) else None


class _Lasting(io.FileIO):
    """Descriptor whose writes never fail: what it does not take is dropped.

    Where its other end is gone for good, it and those beside it lead nowhere from then on, so that what C code and
    child processes print does no harm either.

    Args:
        descriptor: to write to; it is not closed.
        name: of the stream.
        beside: descriptors with the same other end.

    Attributes:
        lost: why something was dropped; `None`: nothing was.
    """

    def __init__(self, descriptor: int, name: str, beside: tuple[int, ...] = ()) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.name = name
        self.lost: OSError | None = None
        self._ends = (descriptor, *beside)

    def write(self, data: Any, /) -> int:
        while True:
            try:
                written = super().write(data)
            except OSError as error:
                self.lost = self.lost or error
                if error.errno not in _FULL:
                    _lead_nowhere(*self._ends)
                return memoryview(data).nbytes
            if written is not None:
                return written
            select.select([], [self], [])  # another program made the descriptor that it shares a non-blocking one


@contextmanager
def only_answers_on_stdout(*, to_the_end: bool) -> Generator[None]:
    """Lead everything that is written to stdout inside to stderr, except through `answers()`.

    Args:
        to_the_end: of the process, past the end of this context: what prints when the interpreter ends, and what C
            libraries still hold in their buffers, is then apart too. Else all is put back.
    """
    open_closed_streams()
    closed = _no_stdout.pop() if _no_stdout else None
    stdout, stderr = sys.stdout, sys.stderr
    kept = [os.dup(_STDOUT), os.dup(_STDERR)]
    _flush(stdout, stderr)
    of_answers, of_messages = stdout, stderr
    if _writes_to(_STDERR, stderr):
        of_messages = _lasting(kept[1], stderr, (_STDOUT, _STDERR))
        sys.stderr = _lasting(_STDERR, stderr, (_STDOUT, kept[1]))
    if _writes_to(_STDOUT, stdout):
        if isinstance(stdout, io.TextIOWrapper):
            stdout.reconfigure(line_buffering=True)  # what is printed keeps its place among the lines of stderr
        of_answers = _lasting(kept[0], stdout, lost=closed)
        sys.stdout = _lasting(_STDOUT, stdout, (_STDERR, kept[1]))
    else:
        sys.stdout = sys.stderr
    os.dup2(_STDERR, _STDOUT)
    streams = _Streams(of_answers, of_messages)
    _streams.append(streams)
    try:
        yield
    finally:
        _flush(of_answers, of_messages, sys.stdout, sys.stderr)
        if not to_the_end:
            _streams.remove(streams)
            sys.stdout, sys.stderr = stdout, stderr
            os.dup2(kept[0], _STDOUT)
            for each in kept:
                os.close(each)


def flush_all() -> None:
    """Write what buffers still hold at the end of a process that is ended before Python and C would do so."""
    _flush(*(stream for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__) if stream is not None))
    if ctypes := sys.modules.get("ctypes"):  # else no extension that prints is likely to be there
        flushing = threading.Thread(target=ctypes.CDLL(None).fflush, args=(None,), daemon=True)
        with suppress(RuntimeError):  # the process may have no more threads
            flushing.start()
            flushing.join(_FLUSHING_S)


def _lasting(descriptor: int, like: TextIO, beside: tuple[int, ...] = (), lost: OSError | None = None) -> TextIO:
    """Stream to a descriptor, in the encoding of another; a line is on its way as soon as it is whole."""
    raw = _Lasting(descriptor, like.name, beside)
    raw.lost = lost
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=like.encoding, errors=_PLAIN, line_buffering=True)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    """What stands for characters that an encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return plain(error.object[error.start : error.end]), error.end


codecs.register_error(_PLAIN, _replaced)


def _flush(*streams: TextIO) -> None:
    for stream in streams:
        with suppress(OSError, ValueError, AttributeError):  # user code closed it, or put another thing in its place
            stream.flush()


def _writes_to(descriptor: int, stream: TextIO) -> bool:
    """Whether what is printed goes to the descriptor, not into the memory of whoever captures it."""
    try:
        return stream.fileno() == descriptor
    except (io.UnsupportedOperation, ValueError):
        return False


def _lead_nowhere(*descriptors: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.set_inheritable(nowhere, nowhere in descriptors)
    for each in descriptors:
        if each != nowhere:
            os.dup2(nowhere, each)
    if nowhere not in descriptors:
        os.close(nowhere)


def open_closed_streams() -> None:
    """Give a process that was started without stdin, stdout or stderr one that leads nowhere.

    A descriptor that is closed is taken by the next file that is opened, and prints would go into it. So this comes
    before anything that is opened to stay.
    """
    for number, name in ((_STDIN, "stdin"), (_STDOUT, "stdout"), (_STDERR, "stderr")):
        try:
            os.fstat(number)
        except OSError as error:
            if number == _STDOUT:
                _no_stdout[:] = [error]
            _lead_nowhere(number)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115 - to the end
