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
    group: str = ""
    """Control group of the process; empty: it is not known."""
    group_kills: int | None = None
    """Processes of that group that the kernel had killed for want of memory; `None`: it does not tell."""
    killed: bool | None = None
    """Of a death: whether the kernel killed the process for want of memory; `None`: nobody knows."""


@dataclass(frozen=True, kw_only=True)
class Deaths:
    """What `deaths.json` holds, oldest first."""

    deaths: tuple[Attempt, ...] = ()


_begun: set[Attempts] = set()
"""Those of the folders in which this process is at something; the folder of another may be another process's by now."""


def end_all() -> None:
    """End every attempt of this process, which is about to end of its own will: that is no death."""
    for attempts in list(_begun):
        attempts.end()


class Attempts:
    """The attempt and the deaths of a results folder that this process holds.

    Args:
        root: the folder.
        proc: where the kernel tells of itself.

    Attributes:
        now: what is being tried; `None`: nothing is.
    """

    def __init__(self, root: Path, proc: Path = Path("/proc")) -> None:
        self._path, self.file, self._proc = root / ATTEMPT, root / DEATHS, proc
        self._deaths = read_record(self.file, Deaths).deaths if self.file.exists() else ()
        self.now: Attempt | None = None
        self._found: Attempt | None = None
        if self._path.exists():
            with contextlib.suppress(StoreError):  # half a file says nothing, and is no reason to stop
                self._found = self._died(read_record(self._path, Attempt))
                self._write((*self._deaths, self._found))
            self.end()

    @property
    def deaths(self) -> tuple[Attempt, ...]:
        """What was being tried when a process died, oldest first."""
        return self._deaths

    def forget(self, matches: Callable[[Attempt], bool]) -> None:
        """Drop deaths: what killed came through."""
        left = tuple(death for death in self._deaths if not matches(death))
        if left != self._deaths:
            self._write(left)

    def settle(self, group: str, kills: int) -> None:
        """Say of a death that was found when the folder was opened whether memory was the reason.

        The kernel's own count is that of the whole machine: where it grew, only that of the process's control group
        tells whose it was.

        Args:
            group: of this process; nothing is said of the death of a process in another one.
            kills: processes of the group that the kernel has killed for want of memory.
        """
        death, self._found = self._found, None
        if death is None or death.killed is not None or death.group_kills is None or death.group != group:
            return
        if kills > death.group_kills:
            self._write(tuple(replace(d, killed=True) if d is death else d for d in self._deaths))

    def begin(self, attempt: Attempt) -> Attempt:
        """Write an attempt down, with the kernel's count; it is on the disk when this returns.

        Raises:
            StoreError: the disk refuses.
        """
        kills, boot = self._kernel()
        attempt = replace(attempt, kernel_kills=kills, boot=boot)
        self.now = attempt
        _begun.add(self)  # before it is written: whatever interrupts this, `end_all` knows of it
        write_json(self._path, attempt)
        return attempt

    def update(self, attempt: Attempt) -> None:
        """Write the same attempt over in place, for the next process: it survives this one, not a power cut."""
        self.now, content = attempt, json_bytes(attempt).ljust(_ROOM)
        with contextlib.suppress(OSError):
            file = os.open(self._path, os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0))
            try:
                os.pwrite(file, content, 0)
            finally:
                os.close(file)

    def end(self, outer: Attempt | None = None) -> None:
        """The attempt is over, and this process alive.

        Args:
            outer: that it was a part of, and that goes on; `None`: there is none.
        """
        self.now = None
        if outer is not None:
            with contextlib.suppress(StoreError):
                self.begin(outer)
                return
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
        _begun.discard(self)

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
        if boot != attempt.boot:
            return replace(attempt, group="", group_kills=None)  # it counts anew
        return replace(attempt, killed=False) if kills is not None and kills == before else attempt

    def _kernel(self) -> tuple[int | None, str]:
        """Processes that the kernel has killed for want of memory, and which start of the kernel that is."""
        try:
            rows = dict(line.split(maxsplit=1) for line in (self._proc / "vmstat").read_text().splitlines())
            return int(rows["oom_kill"]), (self._proc / "sys/kernel/random/boot_id").read_text().strip()
        except (OSError, ValueError, KeyError):
            return None, ""
