"""The other process of `ProcessExecutor`: does one call after the other, and ends with the process that started it."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import traceback
from multiprocessing.connection import Connection

__all__ = ["never_late", "serve"]


def serve(handle: int) -> None:
    """Do the calls that come, until there is nobody to do them for.

    A call comes as a pickled `(function, args, kwargs)`; its answer is a pickled `(True, result)` or
    `(False, exception)`. SIGINT is for the process that started this one, which gets it too.

    Args:
        handle: of the socket on which calls come.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    connection = Connection(handle)
    while True:
        try:
            call = connection.recv_bytes()
            connection.send_bytes(_answer(call))
        except (EOFError, OSError):
            return


def never_late() -> bool:
    """What a call in another process is told about time: its process is ended when time is up."""
    return False


def _answer(call: bytes) -> bytes:
    """What a call returned or raised."""
    try:
        function, args, kwargs = pickle.loads(call)
        return pickle.dumps((True, function(*args, **kwargs)), pickle.HIGHEST_PROTOCOL)
    except BaseException as error:  # a call that exits is a call that failed
        return _failure(error)


def _failure(error: BaseException) -> bytes:
    """An exception, its traceback as a note; in words where it cannot be pickled and made again."""
    error.add_note(f"in a worker process:\n{''.join(traceback.format_exception(error))}")
    try:
        answer = pickle.dumps((False, error), pickle.HIGHEST_PROTOCOL)
        pickle.loads(answer)
    except Exception:
        answer = pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")), pickle.HIGHEST_PROTOCOL)
    return answer


def _end_with_parent() -> None:
    """End this process when the parent has ended, however it did: then the other end of standard input is closed."""
    while os.read(0, 1):
        pass
    os._exit(1)
