"""Results on disk: one folder a run, rows appended as they come, the result written last and atomically.

```
DIR/question.json                 what the folder is about; anything else is refused (`question`)
DIR/questions/, plans/            what was asked of it, and earlier answers (`answers`)
DIR/runs/<id>/config.json         the run's whole configuration and its number, written before it starts (`stored`)
DIR/runs/<id>/rows.jsonl          one line an evaluation or noise reading, flushed line by line (`rows`)
DIR/runs/<id>/result.json         written by renaming; its presence means the run is finished as far as was asked
DIR/lock                          held by flock while a search is at work; it dies with its process
```

A killed run leaves `config.json` and its rows, but no result: it is made again from its seed, its rows kept beside as
`rows.interrupted-1.jsonl`, `-2` and so on. Finished runs are never repeated; one that is to be longer goes on, its
result laid aside as `result.interrupted-1.json` until it has another; a kill in between costs the new part only
(`courses`).
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import StoreError
from .codec import Record, encode
from .courses import course_of, restore_result
from .files import (
    explained,
    keep_interrupted,
    read_json,
    read_record,
    regular_bytes,
    remove_leftovers,
    write_bytes,
    write_json,
)
from .locking import is_at_work, locked
from .question import FILE, LATE_FILES, PLANS, QUESTIONS, check_schema, differs, refuse_files, refuse_other
from .records import RunConfig
from .rows import MOST_BYTES_OF_ROWS
from .stored import RunWriter, StoredRun, read_config, read_run, refuse_link, run_id

__all__ = [
    "RunWriter",
    "Store",
    "StoredRun",
    "free_folder",
    "read_runs",
    "run_id",
]


class Store:
    """A results folder held by this process.

    Args:
        root: the folder; made if it is missing.
        about: what its runs and measurements depend on, in JSON types; a folder is about this only.

    Raises:
        StoreError: the folder cannot be written, is at work in another process, or is about something else.
    """

    def __init__(self, root: Path | str, about: Mapping[str, Any]) -> None:
        self.root = Path(root)
        self._by_course: dict[str, list[str]] | None = None
        self._numbered = 0
        with explained(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        for name in ("runs", QUESTIONS, PLANS):
            with explained(self.root / name):
                refuse_link(self.root / name)
        with explained(self.root / "runs"):
            (self.root / "runs").mkdir(exist_ok=True)
        with explained(self.root / "lock"):
            self._lock = locked(self.root)
        try:
            self._claim(about)
        except BaseException:
            self.close()
            raise
        for folder in (self.root, *(self.root / "runs").iterdir()):
            remove_leftovers(folder)

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
        run = read_run(folder)
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
        return read_run(self.folder(named[0])) if named else None

    def start(self, config: RunConfig, name: str = "") -> RunWriter:
        """Begin a run: its configuration is on disk when this returns.

        Args:
            config: of the run.
            name: its id, where it is not that of the configuration: the run was begun at another of the same course.

        Raises:
            StoreError: the run is finished already, or its folder cannot be written.
        """
        name = name or run_id(config)
        number = self._next_number()
        self._remember(config, name)
        return RunWriter(self.folder(name), config, number=number)

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
        run = read_run(self.folder(name))
        self.reopen(config, name)
        if rows is not None and rows < len(run.rows):
            _keep_rows(self.folder(name) / "rows.jsonl", rows)
        return RunWriter(self.folder(name), config, run.rows[:rows], number=self._next_number())

    def reopen(self, config: RunConfig, name: str = "") -> None:
        """Make a run unfinished that is to be longer; what it found is kept as `result.interrupted-1.json`."""
        result = self.folder(name or run_id(config)) / "result.json"
        with explained(result):
            keep_interrupted(result)

    def _courses(self) -> dict[str, list[str]]:
        """Names of the runs of each course."""
        if self._by_course is None:
            self._by_course = {}
            for folder in sorted(_run_folders(self.root / "runs")):
                config, number = read_config(folder)
                self._numbered = max(self._numbered, number or 0)
                self._remember(config, folder.name)
        return self._by_course

    def _next_number(self) -> int:
        """Number of the next run: one above the largest in the folder."""
        self._courses()
        self._numbered += 1
        return self._numbered

    def _remember(self, config: RunConfig, name: str) -> None:
        if self._by_course is not None:
            names = self._by_course.setdefault(course_of(config), [])
            if name not in names:
                names.append(name)

    def runs(self) -> tuple[StoredRun, ...]:
        """All runs in the folder, in the order in which they were started or last went on."""
        return read_runs(self.root, at_once=True)

    def named(self, names: Iterable[str]) -> Iterator[StoredRun]:
        """The runs with these ids that are there and finished, in this order."""
        for name in names:
            if (self.folder(name) / "result.json").exists() or restore_result(self.folder(name)):
                yield read_run(self.folder(name))

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
    return there <= {FILE, QUESTIONS, "lock", "runs"} and not any((folder / "runs").glob("*"))


def _keep_rows(path: Path, rows: int) -> None:
    """Cut a file of rows after so many; the whole one is kept beside."""
    with explained(path):
        lines = regular_bytes(path, MOST_BYTES_OF_ROWS).splitlines(keepends=True)
        keep_interrupted(path)
    write_bytes(path, b"".join(lines[:rows]))


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
    found = [(each, *read_config(each)) for each in _run_folders(folder)]
    return tuple(read_run(each, config, at_once=at_once) for each, config, _ in sorted(found, key=_order))


def _run_folders(folder: Path) -> list[Path]:
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
