"""Results on disk: one folder a run, rows appended as they come, the result written last and atomically.

```
DIR/question.json                 what the folder is about; anything else is refused (`question`)
DIR/questions/, plans/            what was asked of it, and earlier answers (`answers`)
DIR/runs/<id>/config.json         the run's whole configuration, written before it starts
DIR/runs/<id>/rows.jsonl          one line an evaluation or noise reading, flushed line by line
DIR/runs/<id>/result.json         written by renaming; its presence means the run is finished as far as was asked
DIR/attempt.json, deaths.json     what is being tried, and what killed a process (`attempts`)
DIR/lock                          held by flock while a search is at work; it dies with its process
```

A killed run leaves `config.json` and its rows, but no result: it is made again from its seed, its rows kept beside as
`rows.interrupted-1.jsonl`, `-2` and so on. Finished runs are never repeated; one that is to be longer goes on, its
result laid aside as `result.interrupted-1.json` until it has another; a kill in between costs the new part only
(`courses`).
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ..errors import StoreError
from .attempts import ATTEMPT, DEATHS, Attempts
from .codec import Record, decode, encode
from .courses import course_of, restore_result
from .files import explained, file_sha256, keep_interrupted, read_json, read_record, write_bytes, write_json
from .locking import is_at_work, locked
from .question import FILE, LATE_FILES, QUESTIONS, check_schema, differs, refuse_files, refuse_other
from .records import Row, RunConfig, RunResult

__all__ = [
    "RunWriter",
    "Store",
    "StoredRun",
    "free_folder",
    "read_runs",
    "run_id",
]


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """One run as it stands in its folder; `result` is `None` while it is unfinished."""

    id: str
    config: RunConfig
    rows: tuple[Row, ...]
    result: RunResult | None


def run_id(config: RunConfig) -> str:
    """Readable name, equal exactly when the configuration is; a run that goes on as another keeps its first."""
    digest = hashlib.sha256(_dumps(encode(config)).encode()).hexdigest()[:10]
    return f"{config.purpose}-b{config.batch_size}-lr{config.lr:.3g}-s{config.seed}-{digest}"


class Store:
    """A results folder held by this process.

    Args:
        root: the folder; made if it is missing.
        about: what its runs and measurements depend on, in JSON types; a folder is about this only.

    Attributes:
        attempts: what is being tried in it, and what killed a process.

    Raises:
        StoreError: the folder cannot be written, is at work in another process, or is about something else.
    """

    def __init__(self, root: Path | str, about: Mapping[str, Any]) -> None:
        self.root = Path(root)
        self._by_course: dict[str, list[str]] | None = None
        with explained(self.root):
            (self.root / "runs").mkdir(parents=True, exist_ok=True)
            self._lock = locked(self.root)
        try:
            self._claim(about)
            self.attempts = Attempts(self.root)
        except BaseException:
            self.close()
            raise

    def _claim(self, about: Mapping[str, Any]) -> None:
        path, asked = self.root / FILE, encode(about)
        if path.exists() and not _is_empty(self.root):
            refuse_other(self.root, asked)
        elif any((self.root / "runs").iterdir()):
            raise StoreError(
                f"{self.root} holds runs but no {FILE}, which says of what they are; restore it, or give another --out"
            )
        else:
            if path.exists() and differs(read_json(path), asked):
                shutil.rmtree(self.root / QUESTIONS, ignore_errors=True)
                for name in (ATTEMPT, DEATHS):
                    (self.root / name).unlink(missing_ok=True)
            write_json(path, asked)

    def check_late_files(self, files: Mapping[str, str]) -> None:
        """Make sure that the files a task imported while it was tried are what they were; new ones are kept.

        Raises:
            StoreError: one has changed.
        """
        about = read_json(self.root / FILE)
        before = about.get(LATE_FILES, {})
        refuse_files(self.root, before, files)
        if {*files} - {*before}:
            write_json(self.root / FILE, {**about, LATE_FILES: {**before, **files}})

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the folder go."""
        self._lock.close()

    def folder(self, name: str) -> Path:
        """The folder of the run with this id."""
        return self.root / "runs" / name

    def finished(self, config: RunConfig) -> StoredRun | None:
        """The finished run of exactly this configuration, if there is one.

        Raises:
            StoreError: a file of it is truncated, was edited, or is of another schema.
        """
        folder = self.root / "runs" / run_id(config)
        if not (folder / "result.json").exists():
            return None
        run = _read_run(folder)
        if encode(run.config) != encode(config):
            raise StoreError(f"{folder / 'config.json'} is not what was run there; remove {folder} to run it again")
        return run

    def of_course(self, config: RunConfig) -> StoredRun | None:
        """The run of the same course (`courses.course_of`), if there is one; of several, one that is finished.

        Raises:
            StoreError: a file of it is truncated, was edited, or is of another schema.
        """
        names = self._courses().get(course_of(config), [])
        for name in names:
            restore_result(self.folder(name))
        named = sorted(names, key=lambda name: not (self.folder(name) / "result.json").exists())
        return _read_run(self.folder(named[0])) if named else None

    def start(self, config: RunConfig, name: str = "") -> RunWriter:
        """Begin a run: its configuration is on disk when this returns.

        Args:
            config: of the run.
            name: its id, where it is not that of the configuration: the run was begun at another of the same course.

        Raises:
            StoreError: the run is finished already, or its folder cannot be written.
        """
        name = name or run_id(config)
        self._remember(config, name)
        return RunWriter(self.folder(name), config)

    def go_on(self, config: RunConfig, name: str = "", rows: int | None = None) -> RunWriter:
        """Go on with a run: its rows stay, and more are appended.

        Args:
            config: of the run as it is to be from now on.
            name: its id, where it is not that of the configuration.
            rows: how many of them stay; default: all.

        Raises:
            StoreError: there is no such run, or its folder cannot be written.
        """
        name = name or run_id(config)
        if not (self.folder(name) / "result.json").exists():
            raise StoreError(f"{name} was never paused, so it cannot go on")
        run = _read_run(self.folder(name))
        self.reopen(config, name)
        if rows is not None and rows < len(run.rows):
            _keep_rows(self.folder(name) / "rows.jsonl", rows)
        return RunWriter(self.folder(name), config, run.rows[:rows])

    def reopen(self, config: RunConfig, name: str = "") -> None:
        """Make a run unfinished that is to be longer; what it found is kept as `result.interrupted-1.json`."""
        result = self.folder(name or run_id(config)) / "result.json"
        with explained(result):
            keep_interrupted(result)

    def _courses(self) -> dict[str, list[str]]:
        """Names of the runs of each course."""
        if self._by_course is None:
            self._by_course = {}
            for path in sorted((self.root / "runs").glob("*/config.json")):
                self._remember(read_record(path, RunConfig), path.parent.name)
        return self._by_course

    def _remember(self, config: RunConfig, name: str) -> None:
        if self._by_course is not None:
            names = self._by_course.setdefault(course_of(config), [])
            if name not in names:
                names.append(name)

    def runs(self) -> tuple[StoredRun, ...]:
        """All runs in the folder, in the order in which they were started or last went on."""
        return read_runs(self.root)

    def named(self, names: Iterable[str]) -> Iterator[StoredRun]:
        """The runs with these ids that are there and finished, in this order."""
        for name in names:
            if (self.folder(name) / "result.json").exists() or restore_result(self.folder(name)):
                yield _read_run(self.folder(name))

    def note(self, name: str, value: Any) -> None:
        """Keep a measurement (`NAME.json`) that the search must find again when it resumes."""
        write_json(self.root / f"{name}.json", encode(value))

    def read_note(self, name: str, cls: type[Record]) -> Record | None:
        """A measurement kept by `note`."""
        path = self.root / f"{name}.json"
        return read_record(path, cls) if path.exists() else None


def free_folder(base: Path, about: Mapping[str, Any]) -> Path:
    """`base`, or `base-2`, `base-3`, ...: the first that is new, is about the same, or holds nothing yet."""
    asked = encode(about)
    for number in itertools.count(1):
        folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
        path = folder / FILE
        if not path.exists() or (_is_empty(folder) and not is_at_work(folder)) or not differs(read_json(path), asked):
            return folder
    raise AssertionError("numbers do not end")


def _is_empty(folder: Path) -> bool:
    """Whether a question was asked here and nothing was found out, so that another may take its place."""
    there = {path.name for path in folder.iterdir()}
    return there <= {FILE, QUESTIONS, ATTEMPT, DEATHS, "lock", "runs"} and not any((folder / "runs").glob("*"))


def _keep_rows(path: Path, rows: int) -> None:
    """Cut a file of rows after so many; the whole one is kept beside."""
    with explained(path):
        lines = path.read_bytes().splitlines(keepends=True)
        keep_interrupted(path)
    write_bytes(path, b"".join(lines[:rows]))


class RunWriter:
    """Writes one run; every row is on its way to the disk when `append` returns."""

    def __init__(self, folder: Path, config: RunConfig, rows: Sequence[Row] = ()) -> None:
        self.folder, self.config, self.id = folder, config, folder.name
        self._rows: list[Row] = list(rows)
        if (folder / "result.json").exists():
            raise StoreError(f"{folder} holds a finished run, and finished runs are never repeated; remove it to do so")
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / "rows.jsonl"
            if not rows and path.is_file() and path.stat().st_size:
                keep_interrupted(path)
            if not (folder / "config.json").exists():
                write_json(folder / "config.json", config)
            self._file: IO[str] = open(path, "a" if rows else "w", encoding="utf-8")  # noqa: SIM115 - closed by finish or close

    def append(self, row: Row) -> None:
        """Write one row.

        Raises:
            StoreError: the disk is full, or otherwise refuses; the run is closed, unfinished.
        """
        encoded = encode(row)
        try:
            with explained(self.folder):
                self._file.write(_dumps(encoded) + "\n")
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
        if read_json(self.folder / "config.json") != encode(self.config):  # it went on as another of its course
            write_json(self.folder / "config.json", self.config)
        result = replace(result, rows_sha256=file_sha256(self.folder / "rows.jsonl"))
        encoded = encode(result)
        write_json(self.folder / "result.json", encoded)
        return StoredRun(id=self.id, config=self.config, rows=tuple(self._rows), result=decode(RunResult, encoded))

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
    check_schema(Path(root))
    folders = [f for f in folder.iterdir() if (f / "config.json").exists()]
    return tuple(_read_run(f) for f in sorted(folders, key=lambda f: ((f / "config.json").stat().st_mtime_ns, f.name)))


def _read_run(folder: Path) -> StoredRun:
    config = read_record(folder / "config.json", RunConfig)
    rows_path, result_path = folder / "rows.jsonl", folder / "result.json"
    result = read_record(result_path, RunResult) if result_path.exists() else None
    if result is not None and result.rows_sha256 != file_sha256(rows_path):
        raise StoreError(
            f"{rows_path} is not the file that the run wrote (its hash differs); remove {folder} to run it again"
        )
    rows = tuple(_read_rows(rows_path, finished=result is not None)) if rows_path.exists() else ()
    return StoredRun(id=folder.name, config=config, rows=rows, result=result)


def _read_rows(path: Path, *, finished: bool) -> Iterator[Row]:
    with explained(path, "check the path and its permissions"):
        lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            if not finished and number == len(lines):
                return
            message = f"{path} line {number} is not JSON ({error}); remove {path.parent} to run it again"
            raise StoreError(message) from None
        if not isinstance(row, dict):
            raise StoreError(f"{path} line {number} is not an object; remove {path.parent} to run it again")
        yield row


def _dumps(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
