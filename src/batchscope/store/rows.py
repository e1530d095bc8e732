"""Rows of a stored run: read from `rows.jsonl` when they are asked for, for a folder may hold millions of them."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from ..errors import StoreError
from .files import explained, file_sha256, open_regular, regular_bytes
from .json_text import parse, parse_lines
from .records import Row

__all__ = ["MOST_BYTES_OF_ROWS", "StoredRows", "not_what_was_written", "read_rows"]

MOST_BYTES_OF_ROWS = 2**30
"""Size of a file of rows."""
_MOST_HELD = 100_000
"""Rows that are in memory for the runs that were read last."""

_held: OrderedDict[int, StoredRows] = OrderedDict()
_lock = threading.Lock()


class StoredRows(Sequence[Row]):
    """Rows of a run in a folder; of many runs those that were read last are kept in memory.

    Args:
        path: of the file.
        sha256: hash of its content; `None`: the run is unfinished, and its last line may be cut off.

    Raises:
        StoreError: on any use, where the file cannot be read, or is not what the run wrote.
    """

    def __init__(self, path: Path, sha256: str | None) -> None:
        self._path, self._absolute, self._sha256 = path, path.absolute(), sha256
        self._rows: tuple[Row, ...] | None = None

    def read(self) -> tuple[Row, ...]:
        """All rows, kept for the next use."""
        with _lock:
            rows = self._rows
            if rows is None:
                rows = read_rows(self._absolute, self._sha256, called=self._path)
                self._rows, _held[id(self)] = rows, self
                while len(_held) > 1 and sum(len(each._rows or ()) for each in _held.values()) > _MOST_HELD:
                    _held.popitem(last=False)[1]._rows = None
            else:
                _held.move_to_end(id(self))
            return rows

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Row, ...]: ...
    def __getitem__(self, index: int | slice) -> Row | tuple[Row, ...]:
        return self.read()[index]

    def __len__(self) -> int:
        return len(self.read())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self.read() == tuple(other)

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        return f"StoredRows({str(self._path)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredRows, (self._absolute, self._sha256)


def read_rows(path: Path, sha256: str | None, *, called: Path | None = None) -> tuple[Row, ...]:
    """Rows of a file, all at once.

    Args:
        path: of the file.
        sha256: hash of its content; `None`: the run is unfinished, and its last line may be cut off.
        called: the path as messages have it.

    Raises:
        StoreError: the file cannot be read, is not the one with this hash, or holds no rows.
    """
    called = called or path
    if sha256 is not None and _sha256(path, called) != sha256:
        raise not_what_was_written(called, "its hash differs")
    if sha256 is None and not os.path.lexists(path):
        return ()
    with explained(called, f"remove {called.parent} to run it again"):
        content = regular_bytes(path, MOST_BYTES_OF_ROWS)
    try:
        rows: list[Any] = parse_lines(content)
    except ValueError:
        rows = list(_line_by_line(content.splitlines(), called, finished=sha256 is not None))
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise StoreError(f"{called} line {number} is not an object; remove {called.parent} to run it again")
    return tuple(rows)


def _sha256(path: Path, called: Path) -> str:
    with explained(called, f"remove {called.parent} to run it again"):
        os.close(open_regular(path))
    return file_sha256(path)


def not_what_was_written(path: Path, how: str) -> StoreError:
    """What is said of a file of rows that is another than its run's result tells of."""
    return StoreError(f"{path} is not the file that the run wrote ({how}); remove {path.parent} to run it again")


def _line_by_line(lines: Sequence[bytes], path: Path, *, finished: bool) -> Iterator[Any]:
    for number, line in enumerate(lines, 1):
        try:
            yield parse(line)
        except ValueError as error:
            if not finished and number == len(lines):
                return
            message = f"{path} line {number} is not JSON ({error}); remove {path.parent} to run it again"
            raise StoreError(message) from None
