"""Calls of user code: an exception in there becomes one message that names it and the line."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy
import torch

from ..errors import BatchscopeError, TaskError
from ..hardware.device import is_out_of_memory
from ..hardware.host_memory import mark
from .patience import waiting_for

__all__ = ["dead_worker_named", "explained", "line_in", "place_in", "raised_by_user", "raised_in_worker"]

_PACKAGE = Path(__file__).parents[1]
_STANDARD_LIBRARY = Path(traceback.__file__).parent
_LIBRARIES = tuple(Path(str(module.__file__)).parent for module in (torch, numpy))
_DEAD_WORKER = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (is killed by signal: \w+|exited unexpectedly)"
)
_FROM_WORKER = re.compile(r"Caught \w+ in DataLoader worker process")
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in .*\n(?P<text>.*)')


@contextmanager
def explained(what: str, advice: str | Callable[[], str] = "") -> Generator[None]:
    """Turn an exception of user code into a `TaskError` that names it; the original is its cause.

    batchscope's own errors pass through, and so does a lack of memory, with `what` noted on it; torch's report of a
    dead loader worker may interrupt any line, and is no fault of what was called. What is called here is what a
    watchdog waits for (`step_timeout`).

    Args:
        what: what was called, for example `loss(model, batch)`.
        advice: what to change, appended to the message; a function says it once there is an exception.
    """
    try:
        with waiting_for(what):
            yield
    except BatchscopeError as error:
        if not raised_in_worker(error):
            raise
        raise TaskError(str(error).rstrip().splitlines()[-1].partition(": ")[2]) from error
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            mark(error, what)
            raise
        _refuse_dead_worker(error)
        raised = _in_a_worker(error) or _here(error)
        advice = advice if isinstance(advice, str) else advice()
        message = f"{what} raised {raised}"
        raise TaskError(f"{message}; {advice}" if advice else message) from error


@contextmanager
def dead_worker_named() -> Generator[None]:
    """Turn torch's report of a dead loader worker into one message.

    Raises:
        TaskError: a worker died.
    """
    try:
        yield
    except RuntimeError as error:
        _refuse_dead_worker(error)
        raise


def raised_by_user(error: TaskError) -> bool:
    """Whether a task's error is about an exception of user code, not about a rule or a loader worker that is gone."""
    cause = error.__cause__
    lost = isinstance(cause, RuntimeError) and ("DataLoader timed out" in str(cause) or _DEAD_WORKER.search(str(cause)))
    return isinstance(cause, Exception) and not isinstance(cause, BatchscopeError) and not lost


def raised_in_worker(error: BaseException) -> bool:
    """Whether an exception was raised in a loader worker, whose traceback is then its text."""
    return bool(_FROM_WORKER.match(str(error)))


def _refuse_dead_worker(error: BaseException) -> None:
    """Raise a `TaskError` on a loader worker that died, where an exception is torch's report of one."""
    died = _DEAD_WORKER.search(str(error)) if isinstance(error, RuntimeError) else None
    if died is None:
        return
    how = died[2].replace("is killed by", "was killed by")
    raise TaskError(
        f"a loader worker (process {died[1]}) {how} while it made batches of train_data(): often memory or shared "
        "memory ran out; fewer num_workers in loader_options need less, and num_workers=0 shows an error of its own"
    ) from error


def _here(error: BaseException) -> str:
    """Type, text and place of an exception of this process."""
    text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    return f"{type(error).__name__}{f': {text}' if text else ''}{_where(error)}"


def _in_a_worker(error: BaseException) -> str:
    """Type, text and place of an exception that a loader worker hands over as a traceback in its text, else empty."""
    if not raised_in_worker(error):
        return ""
    text = str(error)
    return f"{text.rstrip().splitlines()[-1].strip()}{line_in(text)}, in a loader worker"


def line_in(text: str) -> str:
    """The file, line and text of the innermost call that the user wrote, of a traceback as text; empty for none."""
    theirs = [match for match in _FRAME.finditer(text) if not _foreign(match["file"])]
    if not theirs:
        return ""
    return f" ({Path(theirs[-1]['file']).name}, line {theirs[-1]['line']}: {theirs[-1]['text'].strip()})"


def _where(error: BaseException) -> str:
    """The file, line and text of the innermost call that the user wrote."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({Path(error.filename).name}, line {error.lineno})"
    return place_in(traceback.extract_tb(error.__traceback__))


def place_in(stack: Sequence[traceback.FrameSummary]) -> str:
    """The file, line and text of the innermost call on a stack that the user wrote; empty for none."""
    theirs = [frame for frame in stack if not _foreign(frame.filename)]
    if not theirs:
        return ""
    text = f": {theirs[-1].line}" if theirs[-1].line else ""
    return f" ({Path(theirs[-1].filename).name}, line {theirs[-1].lineno}{text})"


def _foreign(filename: str) -> bool:
    """Whether a file is not the user's: of this package outside `tasks`, the standard library, torch."""
    path = Path(filename)
    if path.is_relative_to(_PACKAGE):
        return not path.is_relative_to(_PACKAGE / "tasks" / "builtin")
    if path.is_relative_to(_STANDARD_LIBRARY) and "site-packages" not in path.parts:
        return True
    return filename.startswith("<frozen") or any(path.is_relative_to(folder) for folder in _LIBRARIES)
