"""Standard streams: stdout is for the answer alone; whatever else this process or its children print is on stderr.

A task prints, its libraries print, extensions print in C, and loader workers inherit the descriptors: so descriptor 1
itself leads to stderr while user code may run, and the answer goes to a copy of what it was.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import TextIO

__all__ = ["answers", "only_answers_on_stdout"]

_STDOUT, _STDERR = 1, 2
_streams: list[TextIO] = []
"""Where answers go, the innermost last; empty: nothing is led apart."""


def answers() -> TextIO:
    """The stream for answers: stdout as the process began with it."""
    return _streams[-1] if _streams else sys.stdout


@contextmanager
def only_answers_on_stdout(*, to_the_end: bool) -> Generator[None]:
    """Lead everything that is written to stdout inside to stderr, except through `answers()`.

    Args:
        to_the_end: of the process, past the end of this context: what prints when the interpreter ends, and what C
            libraries still hold in their buffers, is then apart too. Else all is put back.
    """
    _open_closed_streams()
    before, copy = sys.stdout, os.dup(_STDOUT)
    before.flush()
    if _writes_to_descriptor(before):
        stream = os.fdopen(copy, "w", encoding=before.encoding, errors=before.errors, closefd=False)
        if isinstance(before, io.TextIOWrapper):
            before.reconfigure(line_buffering=True)  # what is printed keeps its place among the lines of stderr
    else:
        stream, sys.stdout = before, sys.stderr
    os.dup2(_STDERR, _STDOUT)
    _streams.append(stream)
    try:
        yield
    finally:
        for written in (stream, sys.stdout):
            with suppress(BrokenPipeError, ValueError):  # ValueError: user code closed it
                written.flush()
        if not to_the_end:
            _streams.remove(stream)
            sys.stdout = before
            os.dup2(copy, _STDOUT)
            os.close(copy)


def _writes_to_descriptor(stdout: TextIO) -> bool:
    """Whether what is printed goes to descriptor 1, not into the memory of whoever captures it."""
    try:
        return stdout.fileno() == _STDOUT
    except io.UnsupportedOperation:
        return False


def _open_closed_streams() -> None:
    """Give a process that was started without stdout or stderr one that leads nowhere.

    A descriptor that is closed is taken by the next file that is opened, and prints would go into it.
    """
    for number, name in ((_STDOUT, "stdout"), (_STDERR, "stderr")):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115 - to the end
