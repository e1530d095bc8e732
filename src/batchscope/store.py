"""Results on disk: one folder a run, rows appended as they come, the result written last and atomically.

```
DIR/question.json                 what was asked; another question on the same folder is refused
DIR/runs/<id>/config.json         the run's whole configuration, written before it starts
DIR/runs/<id>/rows.jsonl          one line an evaluation or noise reading, flushed line by line
DIR/runs/<id>/result.json         written once, by renaming; its presence means the run is finished
DIR/lock                          held by flock while a search is at work; it dies with its process
```

A killed run leaves `config.json` and its rows, but no result: it is made again from its seed, its rows kept beside as
`rows.interrupted.jsonl`. Finished runs are never repeated.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from .errors import StoreError
from .records import Record, Row, RunConfig, RunResult, decode, encode

__all__ = ["RunWriter", "Store", "StoredRun", "read_json", "read_record", "read_runs", "run_id", "write_json", "write_text"]


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """One run as it stands in its folder; `result` is `None` while it is unfinished."""

    id: str
    config: RunConfig
    rows: tuple[Row, ...]
    result: RunResult | None


def run_id(config: RunConfig) -> str:
    """A readable name that is equal exactly when the configuration is."""
    digest = hashlib.sha256(_dumps(encode(config)).encode()).hexdigest()[:10]
    return f"{config.purpose}-b{config.batch_size}-lr{config.lr:.3g}-s{config.seed}-{digest}"


class Store:
    """A results folder held by this process.

    Args:
        root: the folder; made if it is missing.
        question: what is asked, in JSON types; the folder then answers this question only.

    Raises:
        StoreError: the folder cannot be written, is at work in another process, or holds the answer to another question.
    """

    def __init__(self, root: Path | str, question: Mapping[str, Any]) -> None:
        self.root = Path(root)
        with _explained(self.root):
            (self.root / "runs").mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.root)
        try:
            self._claim(question)
        except BaseException:
            self.close()
            raise

    def _claim(self, question: Mapping[str, Any]) -> None:
        path, asked = self.root / "question.json", encode(question)
        if not path.exists():
            write_json(path, asked)
            return
        if (stored := read_json(path)) != asked:
            differing = sorted(key for key in {*stored, *asked} if stored.get(key) != asked.get(key))
            key = differing[0]
            raise StoreError(
                f"{self.root} holds the answer to another question: its {key} is {stored.get(key)!r}, now {asked.get(key)!r}; "
                "give another --out, or remove the folder"
            )

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let the folder go."""
        self._lock.close()

    def finished(self, config: RunConfig) -> StoredRun | None:
        """The finished run of exactly this configuration, if there is one."""
        folder = self.root / "runs" / run_id(config)
        return _read_run(folder) if (folder / "result.json").exists() else None

    def start(self, config: RunConfig) -> RunWriter:
        """Begin a run: its configuration is on disk when this returns."""
        return RunWriter(self.root / "runs" / run_id(config), config)

    def runs(self) -> tuple[StoredRun, ...]:
        """All runs in the folder, in the order in which they were started."""
        return read_runs(self.root)

    def note(self, name: str, value: Any) -> None:
        """Keep a measurement (`NAME.json`) that the search must find again when it resumes."""
        write_json(self.root / f"{name}.json", encode(value))

    def noted(self, name: str, cls: type[Record]) -> Record | None:
        """A measurement kept by `note`."""
        path = self.root / f"{name}.json"
        return read_record(path, cls) if path.exists() else None


class RunWriter:
    """Writes one run; every row is on its way to the disk when `append` returns."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        self.folder, self.config, self.id = folder, config, folder.name
        self._rows: list[Row] = []
        with _explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            rows = folder / "rows.jsonl"
            if rows.exists() and rows.stat().st_size:
                os.replace(rows, folder / "rows.interrupted.jsonl")
            if not (folder / "config.json").exists():
                write_json(folder / "config.json", encode(config))
            self._file: IO[str] = open(rows, "w", encoding="utf-8")  # noqa: SIM115 - closed by finish or close

    def append(self, row: Row) -> None:
        """Write one row."""
        with _explained(self.folder):
            self._file.write(_dumps(encode(row)) + "\n")
            self._file.flush()
        self._rows.append(row)

    def finish(self, result: RunResult) -> StoredRun:
        """Write the result, which makes the run finished."""
        with _explained(self.folder):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        result = replace(result, rows_sha256=_file_sha256(self.folder / "rows.jsonl"))
        write_json(self.folder / "result.json", encode(result))
        return StoredRun(id=self.id, config=self.config, rows=tuple(self._rows), result=result)

    def close(self) -> None:
        """Leave the run unfinished; its rows stay."""
        with contextlib.suppress(OSError):
            self._file.close()


def read_runs(root: Path | str) -> tuple[StoredRun, ...]:
    """All runs of a results folder, oldest first, without taking its lock.

    Raises:
        StoreError: there is no such folder, or a file in it is truncated or of another schema.
    """
    folder = Path(root) / "runs"
    if not folder.is_dir():
        raise StoreError(f"{root} is no results folder: it has no 'runs' inside; give the --out of an earlier command")
    folders = [f for f in folder.iterdir() if (f / "config.json").exists()]
    return tuple(_read_run(f) for f in sorted(folders, key=lambda f: ((f / "config.json").stat().st_mtime_ns, f.name)))


def _read_run(folder: Path) -> StoredRun:
    config = read_record(folder / "config.json", RunConfig)
    rows_path, result_path = folder / "rows.jsonl", folder / "result.json"
    result = read_record(result_path, RunResult) if result_path.exists() else None
    if result is not None and result.rows_sha256 != _file_sha256(rows_path):
        raise StoreError(f"{rows_path} is not the file that the run wrote (its hash differs); remove {folder} to run it again")
    rows = tuple(_read_rows(rows_path, finished=result is not None)) if rows_path.exists() else ()
    return StoredRun(id=folder.name, config=config, rows=rows, result=result)


def _read_rows(path: Path, *, finished: bool) -> Iterator[Row]:
    with _explained(path):
        lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            if not finished and number == len(lines):
                return
            raise StoreError(f"{path} line {number} is not JSON ({error.msg}); remove {path.parent} to run it again") from None


def read_json(path: Path) -> Any:
    """The JSON in a file.

    Raises:
        StoreError: the file is missing, cannot be read, or is truncated.
    """
    with _explained(path):
        text = path.read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise StoreError(
            f"{path} is not whole JSON ({error.msg} at character {error.pos} of {len(text)}); it was truncated or edited: "
            "remove it, or restore it"
        ) from None


def read_record(path: Path, cls: type[Record]) -> Record:
    """The record in a file.

    Raises:
        StoreError: the file is truncated or of another schema.
    """
    data = read_json(path)
    try:
        return decode(cls, data)
    except ValueError as error:
        raise StoreError(f"{path} is of another schema: {error}; it was written by another version, or edited") from None


def write_json(path: Path, value: Any) -> None:
    """Write JSON (never NaN) under a temporary name, then rename, so that no reader sees half a file."""
    write_text(path, json.dumps(encode(value), indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text under a temporary name, then rename.

    Raises:
        StoreError: the file cannot be written; the old one, if any, is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with _explained(path):
            with open(temporary, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _locked(root: Path) -> IO[str]:
    file = open(root / "lock", "a+", encoding="utf-8")  # noqa: SIM115 - held until Store.close
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        raise StoreError(f"another process is at work in {root}; wait for it, or give another --out") from None
    return file


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        advice = {
            errno.ENOSPC: "the disk is full: free some space and run the same command again, finished runs are kept",
            errno.EDQUOT: "the disk quota is used up: free some space and run the same command again, finished runs are kept",
            errno.ENOENT: "check the path",
        }.get(error.errno or 0, "choose a folder that you may write with --out")
        raise StoreError(f"{path}: {reason}; {advice}") from error


def _dumps(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _file_sha256(path: Path) -> str:
    with _explained(path):
        return hashlib.sha256(path.read_bytes()).hexdigest()
