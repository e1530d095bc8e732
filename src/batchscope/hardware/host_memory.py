"""Memory of this machine: what this process may still take, a bound that holds it there, and a lack of it in words.

Without a bound Linux grants more than there is, and the machine swaps, or kills the process, before anybody is told.
No torch: `fit` runs without it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from ..errors import OutOfMemory
from ..wording import bytes_
from .control_groups import limits

try:
    import resource
except ImportError:  # Windows
    resource = None

__all__ = [
    "available_bytes",
    "bounded",
    "in_words",
    "load_libraries",
    "mark",
    "place_of",
    "resident_bytes",
    "total_bytes",
    "within_free",
]

_KEPT_FREE = 0.03
"""Share of the free memory that stays free for the rest of the machine."""
_ROOT = Path("/")
_MATRIX = 64
"""Rows of a matrix for which linear algebra takes its memory."""
_PLACE = "memory ran out in "
_ASKED = re.compile(r"(?:tried to allocate|unable to allocate) ([\d.]+) ?([kmgtp]i?b|bytes)", re.IGNORECASE)
_UNITS = {"bytes": 1, **{f"{p}{i}": 1024**n for n, p in enumerate("kmgtp", 1) for i in ("b", "ib")}}
_ADVICE = (
    (r"evaluat", "evaluate in smaller parts and keep less of each, or use a machine with more memory"),
    (r"model\(\)|optimizer", "use a smaller model, or a machine with more memory"),
    (
        r"data|example|import|\.py|task",
        "leave the data on disk (np.load with mmap_mode='r', or a Dataset that reads an example when it is asked for; "
        "maps must be read-only, as NumPy's mode='r': private copies, mode='c', count in full), or use a machine with "
        "more memory",
    ),
    (r"", "use a smaller model or --max-batch-size, or a machine with more memory"),
)
"""What to change, by where memory ran out."""


def total_bytes(root: Path = _ROOT) -> int:
    """Memory that a process could use here, were it alone: that of the machine, its control groups or its `ulimit`.

    Args:
        root: of the file system in which the kernel says so.
    """
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *(limit.limit_bytes for limit in limits(root)), *(soft for soft, _ in _own_limits())])


def available_bytes(root: Path = _ROOT) -> int:
    """Memory that this process could take now without swapping: by the machine, control groups and `ulimit`.

    What files of a control group's cache hold counts as free, as the kernel gives it up first.

    Args:
        root: of the file system in which the kernel says so.
    """
    free = [_kilobytes(root / "proc/meminfo", "MemAvailable") or total_bytes(root)]
    free += [limit.free_bytes for limit in limits(root)]
    status = root / "proc/self/status"
    free += [soft - used for soft, row in _own_limits(bound=True) if (used := _kilobytes(status, row)) is not None]
    return max(0, min(free))


def resident_bytes(root: Path = _ROOT) -> int:
    """Memory that this process holds now, without what is swapped out; 0 where the kernel does not say it.

    Cost: 20 µs.
    """
    try:
        return int((root / "proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def load_libraries() -> None:
    """Load what an answer needs in any case, so that what is free afterwards is free for training steps.

    NumPy and SciPy take tens of MiB for linear algebra when they first do some, and end the process where they get
    none; the page needs its templates.
    """
    import jinja2  # noqa: F401  # pyright: ignore[reportUnusedImport]
    import numpy as np
    import scipy.linalg
    import scipy.optimize
    import scipy.stats

    matrix = np.eye(_MATRIX)
    np.linalg.solve(matrix @ matrix, matrix)
    scipy.linalg.solve(matrix, matrix)
    scipy.optimize.nnls(matrix, matrix[0])
    scipy.stats.t.ppf(0.95, 3)


class _Bound:
    """The bound on this process, which its threads share: the first to enter sets it, the last to leave lifts it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._before: tuple[int, int] | None = None

    def enter(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = _lowered()
            self._inside += 1

    @property
    def before(self) -> tuple[int, int] | None:
        """The limits outside the bound; `None` where there is none."""
        return self._before if self._inside else None

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._before is not None and resource is not None:
                resource.setrlimit(resource.RLIMIT_DATA, self._before)


_BOUND = _Bound()


@contextmanager
def bounded() -> Generator[None]:
    """Let this process take what memory is free, and no more: the next allocation fails, and Python says so.

    The bound is on private memory that can be written to (`RLIMIT_DATA`), as it stands when the first of its threads
    enters; it is gone when the last has left. A file that is mapped for reading is not counted, one that is mapped as a
    private copy is. Linux only; elsewhere nothing is bounded.
    """
    _BOUND.enter()
    try:
        yield
    finally:
        _BOUND.leave()


@contextmanager
def within_free() -> Generator[None]:
    """Do the work inside `bounded`; what needs more is told in words. Serves as a decorator too.

    Raises:
        OutOfMemory: Python or NumPy got no memory; the message says what for, and what is free.
    """
    try:
        with bounded():
            yield
    except MemoryError as error:
        raise OutOfMemory(in_words(error)) from error


def mark(error: BaseException, place: str) -> None:
    """Note on a lack of memory where it came about, for `in_words`."""
    error.add_note(f"{_PLACE}{place}")


def place_of(error: BaseException) -> str:
    """The outermost place that was noted on a lack of memory; empty where none was."""
    notes = [note for note in getattr(error, "__notes__", []) if note.startswith(_PLACE)]
    return notes[-1].removeprefix(_PLACE) if notes else ""


def in_words(error: BaseException, memory: str = "this machine") -> str:
    """A lack of memory in one sentence: where, how much was asked for, how much is free, what to change.

    Args:
        error: as Python, NumPy or torch raised it.
        memory: whose memory it is.
    """
    place = place_of(error)
    advice = next(words for pattern, words in _ADVICE if re.search(pattern, place))
    subject = f"{place} needs more memory than is free on {memory}" if place else f"the memory of {memory} is used up"
    return f"{subject} ({amounts(error, here=memory == 'this machine')}); {advice}"


def amounts(error: BaseException, *, here: bool = True) -> str:
    """What was asked for, where the error says so, and what is free of this machine's memory."""
    asked = _ASKED.search(str(error))
    parts = []
    if asked is not None:
        parts.append(f"{bytes_(float(asked[1]) * _UNITS[asked[2].lower()])} were asked for")
    if here:
        parts.append(f"{bytes_(available_bytes())} of {bytes_(total_bytes())} are free")
    return ", ".join(parts) or "the device says no more"


def _own_limits(*, bound: bool = False) -> Iterator[tuple[int, str]]:
    """Limits of this process (`ulimit -v`, `ulimit -d`), and the row of its status that says what is taken of each.

    Args:
        bound: with the one of `bounded`, else those that it was started with.
    """
    if resource is None:
        return
    for name, row in (("RLIMIT_AS", "VmSize"), ("RLIMIT_DATA", "VmData")):
        if (kind := getattr(resource, name, None)) is None:
            continue
        outside = _BOUND.before if name == "RLIMIT_DATA" and not bound else None
        soft = (outside or resource.getrlimit(kind))[0]
        if soft not in (-1, resource.RLIM_INFINITY):
            yield soft, row


def _lowered() -> tuple[int, int] | None:
    """Lower the limit on private memory to what is taken and what is free; the limits before, `None`: none were set."""
    used = _kilobytes(Path("/proc/self/status"), "VmData")
    if resource is None or used is None:
        return None
    before = resource.getrlimit(resource.RLIMIT_DATA)
    bound = used + int(available_bytes() * (1.0 - _KEPT_FREE))
    limits = [limit for limit in before if limit not in (-1, resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min([bound, *limits]), before[1]))
    return before


def _kilobytes(path: Path, name: str) -> int | None:
    """A figure of a table of the kernel, in bytes; `None` where there is none."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)
