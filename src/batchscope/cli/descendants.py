"""Processes that this one started, and those that they started, as far as nobody ended them."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

__all__ = ["Descendants"]

_PATIENCE_S, _LOOKS_EVERY_S = 0.5, 0.02
_END_BY_THEMSELVES = (b"multiprocessing.resource_tracker", b"multiprocessing.forkserver", b"torch_shm_manager")
"""They end when all whom they serve are gone, and then free what those left."""

_Process = tuple[int, str]
"""A process's number, and when it began: numbers are used again."""


class Descendants:
    """Descendants of a process, in its session: whoever began one of their own is meant to outlive it.

    A process whose parent has died is nobody's descendant any more; it is known if there was a look before.

    Args:
        of: the process.
    """

    def __init__(self, of: int) -> None:
        self._of = of
        self._known: set[_Process] = set()

    def look(self) -> None:
        """Take those that there are now."""
        parents = {process: (parent, session) for process, parent, session in _processes()}
        ours, session = {self._of}, os.getsid(self._of)
        while more := {p for p, (parent, _) in parents.items() if parent in ours and p[0] not in ours}:
            ours |= {number for number, _ in more}
            self._known |= {process for process in more if parents[process][1] == session}

    def end(self) -> None:
        """End them all: they are asked to first, and have half a second."""
        self.look()
        left = [process for process in self._known if not _ends_by_itself(process)]
        for sent in (signal.SIGTERM, signal.SIGKILL):
            for number, _ in (left := _alive(left)):
                with suppress(OSError):
                    os.kill(number, sent)
            ends = time.monotonic() + _PATIENCE_S
            while _alive(left) and time.monotonic() < ends:
                time.sleep(_LOOKS_EVERY_S)


def _processes() -> list[tuple[_Process, int, int]]:
    """Each living process with its parent and its session; where there is no /proc, the children that Python knows."""
    if not Path("/proc/self/stat").exists():
        return _children_of_python()
    found = list[tuple[_Process, int, int]]()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (words := _stat(int(folder.name))) and words[0] != "Z":
            found.append(((int(folder.name), words[19]), int(words[1]), int(words[3])))
    return found


def _children_of_python() -> list[tuple[_Process, int, int]]:
    children = sys.modules["multiprocessing"].active_children() if "multiprocessing" in sys.modules else []
    return [((child.pid, ""), os.getpid(), os.getsid(0)) for child in children]


def _stat(number: int) -> list[str]:
    """Members of a process's stat, from its state on; none where it is gone."""
    try:
        return Path(f"/proc/{number}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _alive(processes: list[_Process]) -> list[_Process]:
    there = {process for process, _, _ in _processes()}
    return [process for process in processes if process in there]


def _ends_by_itself(process: _Process) -> bool:
    try:
        command = Path(f"/proc/{process[0]}/cmdline").read_bytes()
    except OSError:
        return False
    return any(name in command for name in _END_BY_THEMSELVES)
