"""Questions that were asked of one folder, each with what it alone decides by, and the answers to earlier ones.

```
DIR/questions/<n>/question.json    what was asked, beyond the folder's identity, and which runs there were then
DIR/questions/<n>/NAME.json        notes of this question alone: what it has spent, where its runs ended for it
DIR/questions/<n>/answer.json      the hash of its answer
DIR/plan.json                      the newest answer
DIR/plans/<n>.json                 earlier answers, by the number of their question
```
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import StoreError
from .codec import Record, encode
from .files import explained, file_sha256, json_bytes, regular_bytes, write_bytes
from .question import PLANS, QUESTIONS
from .records import RunStatus
from .runs import Store

__all__ = ["PLAN", "Asked", "Found", "Questions"]

PLAN = "plan.json"


@dataclass(frozen=True, kw_only=True)
class Found:
    """A finished run as it stood when a question was first asked."""

    steps: int
    status: RunStatus


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question as it stands in its `question.json`."""

    asked: Mapping[str, Any]
    runs: Mapping[str, Found] = field(default_factory=dict[str, Found])


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """Hashes of the last two answers to one question; the first of them may not have come to the disk."""

    sha256: tuple[str, ...]


class Questions:
    """The questions of a folder, and the one of them that is asked now.

    Args:
        store: the results folder; which runs it holds is kept with a question that is asked for the first time.
        question: what is asked now.

    Attributes:
        number: of the question, 1 for the first one asked of the folder.
        asked: it, with the runs that there were when it was first asked.
    """

    def __init__(self, store: Store, question: Mapping[str, Any]) -> None:
        self._root, self._notes, asked = store.root, store.notes, encode(question)
        for number in itertools.count(1):
            path = self._file(number, "question")
            known = self._known(number)
            if known is None and not self._is_taken(number):
                found = {run.id: run.result for run in store.runs(at_once=False) if run.result is not None}
                runs = {name: Found(steps=result.steps, status=result.status) for name, result in found.items()}
                self.number, self.asked = number, Asked(asked=asked, runs=runs)
                self._write(path, self.asked)
                return
            if known is not None and known.asked == asked:
                self.number, self.asked = number, known
                return

    def note(self, name: str, value: Any) -> None:
        """Keep something that is of this question alone."""
        self._write(self._file(self.number, name), value)

    def read_note(self, name: str, cls: type[Record]) -> Record | None:
        """What `note` kept for this question."""
        return self._notes.read(self._file(self.number, name), cls)

    def name_for(self, name: str, members: Sequence[str]) -> str:
        """Name of a note of the folder that depends on some members of the question: one for equal members.

        That of the first question is `name` itself, others have the number of the question that had them first.
        """
        for number in range(1, self.number):
            known = self._known(number)
            if known and all(known.asked.get(member) == self.asked.asked.get(member) for member in members):
                return name if number == 1 else f"{name}-{number}"
        return name if self.number == 1 else f"{name}-{self.number}"

    def answer(self, plan: Any, unwritten: Callable[[str], object] = lambda why: None) -> None:
        """Write the answer as `plan.json`; the one there stays in `plans/` if it is another question's.

        Args:
            plan: the answer.
            unwritten: hears why the earlier answer could not be kept; its question asked again finds it again.

        Raises:
            StoreError: the disk refuses; the earlier answer is where it was.
        """
        path, content = self._root / PLAN, json_bytes(plan)
        earlier = self._answered(path)
        if earlier is not None and earlier != self.number:
            try:
                _keep(path, self._plan_of(earlier))
            except StoreError as error:
                unwritten(str(error))
        before = self.read_note("answer", _Answer)
        self.note(
            "answer", _Answer(sha256=(hashlib.sha256(content).hexdigest(), *(before.sha256[:1] if before else ())))
        )
        write_bytes(path, content)
        with contextlib.suppress(OSError):
            self._plan_of(self.number).unlink()

    def _answered(self, path: Path) -> int | None:
        """The number of the question that `plan.json` answers: the one that has its hash, else the first."""
        if not path.exists():
            return None
        sha256 = file_sha256(path)
        for number in itertools.count(1):
            if not self._file(number, "question").parent.exists():
                return 1
            answer = self._notes.read(self._file(number, "answer"), _Answer)
            if answer is not None and sha256 in answer.sha256:
                return number
        raise AssertionError("numbers do not end")

    def _plan_of(self, number: int) -> Path:
        return self._root / PLANS / f"{number}.json"

    def _file(self, number: int, name: str) -> Path:
        return self._root / QUESTIONS / str(number) / f"{name}.json"

    def _known(self, number: int) -> Asked | None:
        """The question with a number; `None`: there is none that can be read."""
        try:
            return self._notes.read(self._file(number, "question"), Asked)
        except StoreError:
            return None

    def _is_taken(self, number: int) -> bool:
        """Whether notes were made under a number, if its question was lost: it is not given to another question."""
        if self._file(number, "question").parent.exists():
            return True
        return self._notes.are_at(self._root.glob("*.json" if number == 1 else f"*-{number}.json"))

    def _write(self, path: Path, value: Any) -> None:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._notes.write(path, value)


def _keep(path: Path, kept: Path) -> None:
    """Keep a file under another name too; where the disk has such links, that takes no room."""
    with explained(kept):
        kept.parent.mkdir(exist_ok=True)
        kept.unlink(missing_ok=True)
        try:
            os.link(path, kept, follow_symlinks=False)
        except OSError:
            write_bytes(kept, regular_bytes(path))
