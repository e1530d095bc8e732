"""One run as it stands in its folder, and how it is written there.

A run's `config.json` has a member `number` beside its configuration: the place in the order in which runs were begun,
or went on as another of their course. Folders of earlier versions have none: their runs come first, by the time stamp
of the file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

from ..errors import StoreError
from .codec import decode, encode
from .files import (
    explained,
    file_sha256,
    keep_interrupted,
    of_another_schema,
    open_regular,
    read_json,
    read_record,
    remove_leftovers,
    unreadable,
    write_json,
)
from .question import check_schema
from .records import Row, RunConfig, RunResult
from .rows import StoredRows, not_what_was_written, read_rows

__all__ = [
    "RunWriter",
    "StoredRun",
    "read_config",
    "read_run",
    "read_runs",
    "refuse_link",
    "run_folders",
    "run_id",
]

_NUMBER = "number"


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """One run as it stands in its folder; `result` is `None` while it is unfinished."""

    id: str
    config: RunConfig
    rows: Sequence[Row]
    """Of a run that `read_runs` found, they are read when they are asked for."""
    result: RunResult | None


def run_id(config: RunConfig) -> str:
    """Readable name, equal exactly when the configuration is; a run that goes on as another keeps its first."""
    digest = hashlib.sha256(_dumps(encode(config)).encode()).hexdigest()[:10]
    return f"{config.purpose}-b{config.batch_size}-lr{config.lr:.3g}-s{config.seed}-{digest}"


def read_config(folder: Path) -> tuple[RunConfig, int | None]:
    """Configuration of a run, and its number; `None` where it has none.

    Raises:
        StoreError: the file is missing, truncated, or of another schema.
    """
    path = folder / "config.json"
    if not os.path.lexists(path):
        raise StoreError(f"{folder} has no config.json, which says what was run there; remove {folder} to run it again")
    try:
        return _numbered_config(read_json(path))
    except (ValueError, OverflowError) as error:
        raise of_another_schema(path, error) from None


def _numbered_config(data: Any) -> tuple[RunConfig, int | None]:
    """Configuration and number from the JSON types of a `config.json`.

    Raises:
        ValueError: they are those of something else.
    """
    number = cast(Mapping[str, Any], data).get(_NUMBER) if isinstance(data, dict) else None
    if number is not None and type(number) is not int:
        raise ValueError(f"{_NUMBER} is {number!r}, not int")
    plain = {k: v for k, v in data.items() if k != _NUMBER} if isinstance(data, dict) else data
    return decode(RunConfig, plain), number


def read_run(folder: Path, config: RunConfig | None = None, *, at_once: bool = True) -> StoredRun:
    """The run in a folder.

    Args:
        folder: of the run.
        config: of it, where that was read already.
        at_once: whether its rows are read now; else when they are asked for.

    Raises:
        StoreError: a file of it is missing, truncated, was edited, or is of another schema.
    """
    config = config or read_config(folder)[0]
    path, result_path = folder / "rows.jsonl", folder / "result.json"
    result = read_record(result_path, RunResult) if os.path.lexists(result_path) else None
    sha256 = result.rows_sha256 if result is not None else None
    if result is not None:
        with explained(path, f"remove {folder} to run it again"):
            size = path.stat().st_size
        if result.rows_bytes not in (None, size):
            raise not_what_was_written(path, f"it has {size:,} bytes, not {result.rows_bytes:,}")
    rows = read_rows(path, sha256) if at_once else StoredRows(path, sha256)
    return StoredRun(id=folder.name, config=config, rows=rows, result=result)


def read_runs(root: Path | str, *, at_once: bool = False) -> tuple[StoredRun, ...]:
    """All runs of a results folder, oldest first, without taking its lock.

    Args:
        root: the folder.
        at_once: whether the rows of all runs are read now; else those of a run when they are asked for.

    Raises:
        StoreError: there is no such folder, or a file in it is truncated or of another schema. Rows that are read later
            raise it then.

    Cost: about 0.2 ms a run, and 5 kB of memory, without the rows.
    """
    folder = Path(root) / "runs"
    if not folder.is_dir():
        raise StoreError(f"{root} is no results folder: it has no 'runs' inside; give the --out of an earlier command")
    check_schema(Path(root))
    found = [(each, *read_config(each)) for each in run_folders(folder)]
    return tuple(read_run(each, config, at_once=at_once) for each, config, _ in sorted(found, key=_order))


def run_folders(folder: Path) -> list[Path]:
    """The folders of runs that were begun: a result without a configuration is damage, and no run that never began."""
    with explained(folder, "check the path and its permissions"):
        names = os.listdir(folder)
    there = os.path.lexists
    return [
        folder / name
        for name in names
        if there(f"{folder}/{name}/config.json") or there(f"{folder}/{name}/result.json")
    ]


def _order(found: tuple[Path, RunConfig, int | None]) -> tuple[bool, int, str]:
    """Key of the order of runs: their numbers; those without one come first, by their files' time stamps."""
    folder, _, number = found
    old = (folder / "config.json").stat().st_mtime_ns if number is None else 0
    return number is not None, number or old, folder.name


class RunWriter:
    """Writes one run; every row is on its way to the disk when `append` returns.

    Args:
        folder: of the run.
        config: of it.
        rows: that it has already; more are appended.
        number: its place in the order of the folder's runs.
        made_for: seals of what the run is of, which go into its result.
    """

    def __init__(
        self, folder: Path, config: RunConfig, rows: Sequence[Row] = (), *, number: int = 1, made_for: str = ""
    ) -> None:
        self.folder, self.config, self.id = folder, config, folder.name
        self._rows, self._number, self._made_for = list(rows), number, made_for
        if (folder / "result.json").exists():
            raise StoreError(f"{folder} holds a finished run, and finished runs are never repeated; remove it to do so")
        with explained(folder):
            refuse_link(folder)
            folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(folder)
            path = folder / "rows.jsonl"
            if not rows and path.is_file() and not path.is_symlink() and path.stat().st_size:
                keep_interrupted(path)
            if not os.path.lexists(folder / "config.json"):
                self._write_config()
        with explained(path):
            how = os.O_APPEND if rows else os.O_TRUNC
            descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | how)
            self._file: IO[str] = os.fdopen(
                descriptor, "a" if rows else "w", encoding="utf-8"
            )  # closed by finish or close

    def append(self, row: Row) -> None:
        """Write one row.

        Raises:
            StoreError: the disk is full or otherwise refuses, or nobody could read the row; the run is closed,
                unfinished.
        """
        try:
            encoded, line = _readable_line(row, self.folder / "rows.jsonl")
            with explained(self.folder):
                self._file.write(line)
                self._file.flush()
        except StoreError:
            self.close()
            raise
        self._rows.append(encoded)

    def finish(self, result: RunResult) -> StoredRun:
        """Write the result, which makes the run finished.

        Returns:
            The run as it will be read back: what JSON has no word for (NaN, infinities) has gone here already, so that
            a resumed search sees what this one saw.

        Raises:
            StoreError: the disk is full, or otherwise refuses; the run stays unfinished.
        """
        try:
            with explained(self.folder):
                self._file.flush()
                os.fsync(self._file.fileno())
        finally:
            self.close()
        if encode(read_config(self.folder)[0]) != encode(self.config):  # it went on as another of its course
            self._write_config()
        path = self.folder / "rows.jsonl"
        seals = {"rows_sha256": file_sha256(path), "rows_bytes": path.stat().st_size, "made_for": self._made_for}
        result = replace(result, **seals)
        write_json(self.folder / "result.json", result)
        read = decode(RunResult, encode(result))
        return StoredRun(id=self.id, config=self.config, rows=tuple(self._rows), result=read)

    def close(self) -> None:
        """Leave the run unfinished; its rows stay."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _write_config(self) -> None:
        value = {**encode(self.config), _NUMBER: self._number}
        write_json(self.folder / "config.json", value, _numbered_config)


def refuse_link(folder: Path) -> None:
    """Make sure that a folder to be written in is not a link to another.

    Raises:
        OSError: it is.
    """
    if folder.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _readable_line(row: Row, path: Path) -> tuple[Row, str]:
    """A row in JSON types, and its line in the file.

    Raises:
        StoreError: nobody could read it again.
    """
    try:
        encoded = encode(row)
        line = _dumps(encoded)
        if json.loads(line) != encoded:
            raise ValueError("a name in it is no text, or stands there twice")
    except (RecursionError, TypeError, ValueError) as error:
        raise unreadable(f"a row of {path}", error) from None
    return encoded, line + "\n"


def _dumps(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
