"""Calls of user code: an exception in there becomes one message that names it and the line."""

from __future__ import annotations

import traceback
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy
import torch

from ..errors import BatchscopeError, TaskError
from ..hardware.device import is_out_of_memory

__all__ = ["explained"]

_PACKAGE = Path(__file__).parents[1]
_STANDARD_LIBRARY = Path(traceback.__file__).parent
_LIBRARIES = tuple(Path(str(module.__file__)).parent for module in (torch, numpy))


@contextmanager
def explained(what: str, advice: str = "") -> Generator[None]:
    """Turn an exception of user code into a `TaskError` that names it; the original is its cause.

    batchscope's own errors and a lack of memory pass through.

    Args:
        what: what was called, for example `loss(model, batch)`.
        advice: what to change, appended to the message.
    """
    try:
        yield
    except BatchscopeError:
        raise
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
        message = f"{what} raised {type(error).__name__}{f': {text}' if text else ''}{_where(error)}"
        raise TaskError(f"{message}; {advice}" if advice else message) from error


def _where(error: BaseException) -> str:
    """The file, line and text of the innermost call that the user wrote."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({Path(error.filename).name}, line {error.lineno})"
    theirs = [frame for frame in traceback.extract_tb(error.__traceback__) if not _foreign(frame.filename)]
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
