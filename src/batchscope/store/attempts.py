"""What a process is at that may cost it its life, written down before, so that the next command knows where it died.

```
DIR/attempt.json     what is being tried now; gone when it is over, whether it came through or raised
DIR/deaths.json      what was being tried when a process died that held the folder
```

Only a process that had no time left leaves an attempt behind: one that the kernel killed for want of memory, that
crashed in native code, or that was killed from outside. Whoever holds the folder next takes it down as a death.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from weakref import WeakSet

from ..errors import StoreError
from .files import explained, json_bytes, read_record, write_json

__all__ = ["ATTEMPT", "DEATHS", "Attempt", "Attempts", "Deaths", "Growth", "end_all"]

ATTEMPT, DEATHS = "attempt.json", "deaths.json"
_ROOM = 2048
"""Bytes of an attempt's file, so that it can be written over in place."""
_MOST_DEATHS = 50


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How the memory of a process grew while it trained a run."""

    steps: int
    """That were trained meanwhile."""
    evaluations: int
    grown_bytes: int
    """Since the first step."""
    at_evaluations_bytes: int
    """Of them, by which it grew over evaluations."""
    steady: bool
    """Whether it went on from the beginning to the end."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """Something that was tried."""

    what: str
    micro_batch_size: int | None = None
    """Examples at once; `None`: it has no such number."""
    survived: int | None = None
    """The largest micro-batch at which the same had been done without harm."""
    run: str = ""
    step: int = 0
    """Of the run, the last that was written down."""
    free_bytes: int | None = None
    """Memory that the process could have taken when it began."""
    growth: Growth | None = None
    kernel_kills: int | None = None
    """Processes that the kernel had killed for want of memory since it was started; `None`: it does not tell."""
    boot: str = ""
    killed: bool | None = None
    """Of a death: whether the kernel killed a process for want of memory meanwhile; `None`: nobody knows."""


@dataclass(frozen=True, kw_only=True)
class Deaths:
    """What `deaths.json` holds, oldest first."""

    deaths: tuple[Attempt, ...] = ()


_held: WeakSet[Attempts] = WeakSet()
"""Those of the folders that this process holds."""


def end_all() -> None:
    """End every attempt of this process, which is about to end of its own will: that is no death."""
    for attempts in list(_held):
        attempts.end()


class Attempts:
    """The attempt and the deaths of a results folder that this process holds.

    Args:
        root: the folder.
        proc: where the kernel tells of itself.
    """

    def __init__(self, root: Path, proc: Path = Path("/proc")) -> None:
        self._path, self.file, self._proc = root / ATTEMPT, root / DEATHS, proc
        self._deaths = read_record(self.file, Deaths).deaths if self.file.exists() else ()
        if self._path.exists():
            with contextlib.suppress(StoreError):  # half a file says nothing, and is no reason to stop
                self._write((*self._deaths, self._died(read_record(self._path, Attempt))))
            self.end()
        _held.add(self)

    @property
    def deaths(self) -> tuple[Attempt, ...]:
        """What was being tried when a process died, oldest first."""
        return self._deaths

    def forget(self, matches: Callable[[Attempt], bool]) -> None:
        """Drop deaths: what killed came through."""
        left = tuple(death for death in self._deaths if not matches(death))
        if left != self._deaths:
            self._write(left)

    def begin(self, attempt: Attempt) -> Attempt:
        """Write an attempt down, with the kernel's count; it is on the disk when this returns.

        Raises:
            StoreError: the disk refuses.
        """
        kills, boot = self._kernel()
        attempt = replace(attempt, kernel_kills=kills, boot=boot)
        write_json(self._path, attempt)
        return attempt

    def update(self, attempt: Attempt) -> None:
        """Write the same attempt over in place, for the next process: it survives this one, not a power cut."""
        content = json_bytes(attempt).ljust(_ROOM)
        with contextlib.suppress(OSError):
            file = os.open(self._path, os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0))
            try:
                os.pwrite(file, content, 0)
            finally:
                os.close(file)

    def end(self) -> None:
        """The attempt is over, and this process alive."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _write(self, deaths: tuple[Attempt, ...]) -> None:
        self._deaths = deaths[-_MOST_DEATHS:]
        if self._deaths:
            write_json(self.file, Deaths(deaths=self._deaths))
            return
        with explained(self.file):
            self.file.unlink(missing_ok=True)

    def _died(self, attempt: Attempt) -> Attempt:
        kills, boot = self._kernel()
        before = attempt.kernel_kills
        if kills is None or before is None or boot != attempt.boot:
            return attempt
        return replace(attempt, killed=kills > before)

    def _kernel(self) -> tuple[int | None, str]:
        """Processes that the kernel has killed for want of memory, and which start of the kernel that is."""
        try:
            rows = dict(line.split(maxsplit=1) for line in (self._proc / "vmstat").read_text().splitlines())
            return int(rows["oom_kill"]), (self._proc / "sys/kernel/random/boot_id").read_text().strip()
        except (OSError, ValueError, KeyError):
            return None, ""
