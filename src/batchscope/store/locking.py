"""Lock of a results folder: held by one process while a command is at work, and let go when that process dies."""

from __future__ import annotations

import errno
import fcntl
import os
import weakref
from pathlib import Path
from typing import IO

from ..errors import StoreError
from .files import open_regular

__all__ = ["is_at_work", "locked"]

_locks: weakref.WeakSet[IO[str]] = weakref.WeakSet()


def _leave_locks_to_the_parent() -> None:
    """Let go of the locks in a forked child (a loader's worker): a lock lives while any copy of its file is open."""
    for file in list(_locks):
        file.close()


os.register_at_fork(after_in_child=_leave_locks_to_the_parent)


def is_at_work(root: Path) -> bool:
    """Whether a process holds the folder."""
    try:
        locked(root).close()
    except StoreError:
        return True
    return False


def locked(root: Path) -> IO[str]:
    """Take the lock; it is held until the file that is returned is closed.

    Raises:
        StoreError: another process has it.
        OSError: it cannot be made, or something else than a file is in its place.
    """
    descriptor = open_regular(root / "lock", os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW)
    file = os.fdopen(descriptor, "a+", encoding="utf-8")  # held until Store.close
    _locks.add(file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        raise StoreError(f"another process is at work in {root}; wait for it, or give another --out") from None
    return file
