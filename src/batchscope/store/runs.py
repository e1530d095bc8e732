"""Results on disk: one folder a run, rows appended as they come, the result written last and atomically.

```
DIR/question.json                 what the folder is about; anything else is refused (`question`)
DIR/questions/, plans/            what was asked of it, and earlier answers (`answers`)
DIR/runs/<id>/config.json         the run's whole configuration and its number, written before it starts (`stored`)
DIR/runs/<id>/rows.jsonl          one line an evaluation or noise reading, flushed line by line (`rows`)
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

import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import StoreError
from .attempts import ATTEMPT, DEATHS, Attempts
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
from .notes import Notes, seal_of
from .question import (
    FILE,
    LATE_FILES,
    PLANS,
    QUESTIONS,
    RECOVERED,
    differs,
    refuse_files,
    refuse_foreign,
    refuse_other,
    refuse_runs,
    stored_question,
)
from .records import RunConfig, RunResult
from .rows import MOST_BYTES_OF_ROWS
from .stored import RunWriter, StoredRun, read_config, read_run, read_runs, refuse_link, run_folders, run_id

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

    Attributes:
        recovered: what to say where its question was lost, and all runs were proven to be of this one; else empty.
        attempts: what is being tried in it, and what killed a process.

    Raises:
        StoreError: the folder cannot be written, is at work in another process, or is about something else.
    """

    def __init__(self, root: Path | str, about: Mapping[str, Any]) -> None:
        self.root = Path(root)
        self._by_course: dict[str, list[str]] | None = None
        self._numbered = 0
        self._late, self._late_before = seal_of({}), set[str]()
        self.recovered = ""
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
            self.attempts = Attempts(self.root)
        except BaseException:
            self.close()
            raise
        for folder in (self.root, *(self.root / "runs").iterdir()):
            remove_leftovers(folder)

    def _claim(self, about: Mapping[str, Any]) -> None:
        path, asked = self.root / FILE, encode(about)
        stored = stored_question(self.root)
        lost = stored is None and _holds_something(self.root)
        proven_only = lost or bool(stored and RECOVERED in stored and not _is_empty(self.root))
        self.notes = Notes(seal_of(asked), proven_only=proven_only)
        if lost:
            self._recover(asked)
        elif stored is not None and not _is_empty(self.root):
            refuse_other(self.root, asked)
            if any(_parts(result)[0] not in ("", self.notes.seal) for _, result in self._results(1)):
                refuse_foreign(self.root)
            self._late = seal_of(stored.get(LATE_FILES, {}))
            self._late_before = set(stored.get(RECOVERED, ()))
        else:
            if stored is not None and differs(stored, asked):
                shutil.rmtree(self.root / QUESTIONS, ignore_errors=True)
                for name in (ATTEMPT, DEATHS):
                    (self.root / name).unlink(missing_ok=True)
            write_json(path, asked)

    def _recover(self, asked: Mapping[str, Any]) -> None:
        """Take a folder whose question cannot be read, where every finished run was made for the one that is asked.

        Raises:
            StoreError: some run is not proven to be.
        """
        for folder, result in self._results():
            seal, _, late = _parts(result)
            self._late_before |= {late} - {seal_of({})}
            if seal != self.notes.seal:
                refuse_runs(self.root, asked, read_config(folder)[0])
            self.recovered = f"{self.root / FILE} was lost, and is written again: every run here is of this question"
        write_json(self.root / FILE, {**asked, RECOVERED: sorted(self._late_before)})

    def _results(self, most: int | None = None) -> Iterator[tuple[Path, RunResult]]:
        """The folders of finished runs, with their results."""
        paths = sorted((self.root / "runs").glob("*/result.json"))
        for path in paths[:most]:
            yield path.parent, read_record(path, RunResult)

    def _made_for(self, config: RunConfig) -> str:
        """What proves that a run of this configuration is of this folder."""
        return f"{self.notes.seal} {course_of(config)[:32]} {self._late}"

    def _proven(self, run: StoredRun) -> StoredRun:
        """A run as it was read.

        Raises:
            StoreError: its configuration is not the one that it was made with.
        """
        made_for = _parts(run.result)[:2] if run.result is not None and run.result.made_for else None
        if made_for is not None and made_for != (self.notes.seal, course_of(run.config)[:32]):
            folder = self.folder(run.id)
            raise StoreError(f"{folder / 'config.json'} is not what was run there; remove {folder} to run it again")
        return run

    def check_late_files(self, files: Mapping[str, str]) -> None:
        """Make sure that the files a task imported while it was tried are what they were; new ones are kept.

        Args:
            files: hash of each, by its name.

        Raises:
            StoreError: one has changed.
        """
        about = read_json(self.root / FILE)
        before = about.get(LATE_FILES, {})
        if self._late_before - {seal_of(files)}:
            refuse_runs(self.root, about, None)
        refuse_files(self.root, before, files)
        proven = {RECOVERED: []} if self._late_before else {}
        if proven or {*files} - {*before}:
            write_json(self.root / FILE, {**about, **proven, LATE_FILES: {**before, **files}})
        self._late_before = set()
        self._late = seal_of({**before, **files})

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
        run = self._proven(read_run(folder))
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
        return self._proven(read_run(self.folder(named[0]))) if named else None

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
        return RunWriter(self.folder(name), config, number=number, made_for=self._made_for(config))

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
        how: dict[str, Any] = {"number": self._next_number(), "made_for": self._made_for(config)}
        return RunWriter(self.folder(name), config, run.rows[:rows], **how)

    def reopen(self, config: RunConfig, name: str = "") -> None:
        """Make a run unfinished that is to be longer; what it found is kept as `result.interrupted-1.json`."""
        result = self.folder(name or run_id(config)) / "result.json"
        with explained(result):
            keep_interrupted(result)

    def _courses(self) -> dict[str, list[str]]:
        """Names of the runs of each course."""
        if self._by_course is None:
            self._by_course = {}
            for folder in sorted(run_folders(self.root / "runs")):
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

    def runs(self, *, at_once: bool = True) -> tuple[StoredRun, ...]:
        """All runs in the folder, in the order in which they were started or last went on; see `read_runs`."""
        return tuple(map(self._proven, read_runs(self.root, at_once=at_once)))

    def named(self, names: Iterable[str]) -> Iterator[StoredRun]:
        """The runs with these ids that are there and finished, in this order."""
        for name in names:
            if (self.folder(name) / "result.json").exists() or restore_result(self.folder(name)):
                yield self._proven(read_run(self.folder(name)))

    def answer(self, name: str, value: Any, reader: Callable[[Any], object] | None = None) -> None:
        """Write an answer (`NAME.json`), from which nothing goes on.

        Raises:
            StoreError: it cannot be written, or `reader` (default: of records of its kind) could not read it again.
        """
        write_json(self._named(name), value, reader)

    def note(self, name: str, record: Any) -> None:
        """Keep a measurement (`NAME.json`) that the same question finds again when it goes on.

        Raises:
            StoreError: it cannot be written, or could not be read again.
        """
        self.notes.write(self._named(name), record)

    def read_note(self, name: str, cls: type[Record]) -> Record | None:
        """A measurement kept by `note`; `None`: there is none of this question."""
        return self.notes.read(self._named(name), cls)

    def note_data(self, name: str, data: Any) -> None:
        """Keep a measurement in JSON types. Errors of `note`."""
        self.notes.write_data(self._named(name), data)

    def read_data(self, name: str) -> Any:
        """A measurement kept by `note_data`; `None`: there is none of this question."""
        return self.notes.read_data(self._named(name))

    @property
    def late_files(self) -> Mapping[str, str]:
        """Hashes of the files that the task imported late in earlier commands, by their names."""
        return read_json(self.root / FILE).get(LATE_FILES, {})

    def _named(self, name: str) -> Path:
        return self.root / f"{name}.json"


def free_folder(base: Path, about: Mapping[str, Any]) -> Path:
    """`base`, or `base-2`, `base-3`, ...: the first that is new, is about the same, or holds nothing yet."""
    asked = encode(about)
    for number in itertools.count(1):
        folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
        path = folder / FILE
        if not path.exists() or (_is_empty(folder) and not is_at_work(folder)):
            return folder
        stored = stored_question(folder)
        if stored is None or not differs(stored, asked):
            return folder
    raise AssertionError("numbers do not end")


def _is_empty(folder: Path) -> bool:
    """Whether a question was asked here and nothing was found out, so that another may take its place."""
    there = {path.name for path in folder.iterdir()}
    return there <= {FILE, QUESTIONS, ATTEMPT, DEATHS, "lock", "runs"} and not any((folder / "runs").glob("*"))


def _holds_something(folder: Path) -> bool:
    """Whether there are runs or notes in a folder, or files that may be such."""
    return any((folder / "runs").glob("*")) or (folder / QUESTIONS).exists() or any(folder.glob("*.json"))


def _parts(result: RunResult) -> tuple[str, str, str]:
    """Of what a run was made for: the seals of question, course and files that were imported late, or empty."""
    parts = result.made_for.split()
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 else ("", "", "")


def _keep_rows(path: Path, rows: int) -> None:
    """Cut a file of rows after so many; the whole one is kept beside."""
    with explained(path):
        lines = regular_bytes(path, MOST_BYTES_OF_ROWS).splitlines(keepends=True)
        keep_interrupted(path)
    write_bytes(path, b"".join(lines[:rows]))
