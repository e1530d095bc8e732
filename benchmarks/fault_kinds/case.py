"""A fault that is tried, what was seen of it, and commands in processes of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from batchscope.store.runs import read_runs

__all__ = ["Ended", "Fault", "Seen", "begin", "end", "finished_runs", "lost_of", "processes_of", "run"]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What came of a fault.

    Attributes:
        held: whether all that is promised was true.
        lost: finished runs that were gone, changed or repeated afterwards.
        said: what did not hold; else how it ended.
    """

    held: bool
    lost: int = 0
    said: str = ""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing to try: what, in words, and how, in an empty folder that is the current one of its commands."""

    what: str
    tried: Callable[[Path], Seen]


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended; the status of one that a signal killed is negative."""

    status: int
    stdout: str
    stderr: str
    seconds: float


def begin(
    words: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None, *, before: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """Start a command that leads a session of its own; what it prints goes to `stdout` and `stderr` in the folder.

    Args:
        words: of the command, without the program's name.
        folder: the current one.
        environment: in addition to this process's.
        before: what the command is started with, such as `("bash", "-c", 'ulimit -v 1000000; exec "$@"', "bash")`.
    """
    names = [folder / name for name in ("stdout", "stderr")]
    with names[0].open("w") as out, names[1].open("w") as err:
        return subprocess.Popen(
            [*before, sys.executable, "-m", "batchscope", *words],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            text=True,
            start_new_session=True,
        )


def end(process: subprocess.Popen[str], folder: Path, limit_s: float = 120.0) -> Ended:
    """Wait for a command; 124 where it was not over in time. Nothing that it started is left behind."""
    began = time.monotonic()
    try:
        status = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        status = 124
    finally:
        for each in processes_of(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        process.wait()
    texts = [(folder / name).read_text(errors="replace") for name in ("stdout", "stderr")]
    return Ended(status=status, stdout=texts[0], stderr=texts[1], seconds=time.monotonic() - began)


def run(
    words: Sequence[str],
    folder: Path,
    environment: Mapping[str, str] | None = None,
    *,
    before: Sequence[str] = (),
    limit_s: float = 120.0,
) -> Ended:
    """A command from beginning to end; arguments as for `begin` and `end`."""
    return end(begin(words, folder, environment, before=before), folder, limit_s)


def processes_of(session: int) -> list[int]:
    """The living processes of a session, its leader among them; zombies are not alive."""
    return list(_of_session(session))


def _of_session(session: int) -> Iterator[int]:
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            state, _, _, leader = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(leader) == session and state != "Z":
                yield int(folder.name)


def finished_runs(out: Path) -> dict[str, tuple[int, bytes]]:
    """The finished runs of a results folder: when their result was written, and what it says."""
    if not out.is_dir():
        return {}
    done = [out / "runs" / run.id / "result.json" for run in read_runs(out) if run.result is not None]
    return {path.parent.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in done}


def lost_of(before: Mapping[str, tuple[int, bytes]], after: Mapping[str, tuple[int, bytes]]) -> int:
    """How many finished runs are gone, changed, or were written again."""
    return sum(after.get(name) != result for name, result in before.items())
