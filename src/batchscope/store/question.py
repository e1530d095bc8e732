"""What a results folder is about, and by which version of its layout: `question.json`.

```
{"schema": 3, "command": "find", "task": ..., "settings": ..., "source_sha256": ..., "files": ..., "device": ..., ...}
```

A folder is about one thing: what its runs and measurements depend on. For a search that is the task and the seed, and
several questions may be asked of it (`answers`); for the other commands it is the whole question. The same command goes
on there; anything else is refused, and the message names the first member that differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from ..errors import StoreError
from .codec import encode
from .files import read_json
from .records import RunConfig, Target

__all__ = [
    "FILE",
    "LATE_FILES",
    "PLANS",
    "QUESTIONS",
    "RECOVERED",
    "STORE_SCHEMA",
    "asked_of",
    "check_schema",
    "command_of",
    "differs",
    "refuse_files",
    "refuse_foreign",
    "refuse_other",
    "refuse_runs",
    "stored_question",
]

STORE_SCHEMA = 3
"""Number of the layout of a results folder; that of `plan.json` is another (`records.SCHEMA`)."""

FILE = "question.json"

QUESTIONS = "questions"
"""Folder of the questions asked of a results folder, where there may be several."""

PLANS = "plans"
"""Folder of earlier answers."""

LATE_FILES = "late_files"
"""Member that is added once the task has been tried: hashes of what it imported only then."""

RECOVERED = "recovered"
"""Member that is added where the file was lost, and written again for what was proven to be of the same question."""

_FILES = "files"
"""Member with the hash of every file that makes a task what it is, by name."""

_ADDED = frozenset({LATE_FILES, RECOVERED})
"""Members that are no part of what is asked."""

_FIRST = ("command", "task", "settings", _FILES)
"""Members that are named before others that differ: they say most."""


def asked_of(command: str, identity: Mapping[str, Any], **question: Any) -> dict[str, Any]:
    """Everything that makes a question another one, in JSON types.

    Args:
        command: that asks.
        identity: of what is measured: a task with its settings, source and device, or a table with its hash.
        question: all that decides the answer beside.

    >>> asked_of("noise", {"task": "digits"}, steps=300)
    {'schema': 3, 'command': 'noise', 'task': 'digits', 'steps': 300}
    """
    return {"schema": STORE_SCHEMA, "command": command, **encode(identity), **encode(question)}


_WHEN_READ = "it was truncated or edited: repeat the command that made the folder, or restore the file"


def stored_question(root: Path) -> dict[str, Any] | None:
    """What a results folder says that it is about; `None`: that cannot be read."""
    try:
        stored = read_json(root / FILE)
    except StoreError:
        return None
    return stored if isinstance(stored, dict) and _is_whole(stored) else None


def _is_whole(stored: dict[str, Any]) -> bool:
    """Whether what a folder added to its question is of the types that it writes."""
    late, recovered = stored.get(LATE_FILES, {}), stored.get(RECOVERED, [])
    if not (isinstance(late, dict) and isinstance(recovered, list)):
        return False
    return all(isinstance(each, str) for each in (*late.values(), *recovered))


def check_schema(root: Path) -> None:
    """Make sure that a results folder was written in the layout of this version.

    Raises:
        StoreError: it is of another; the message says which, and what to do.
    """
    path = root / FILE
    stored = read_json(path, advice=_WHEN_READ) if path.exists() else {}
    if isinstance(stored, dict) and stored.get("schema", STORE_SCHEMA) != STORE_SCHEMA:
        raise _of_another_version(root, stored["schema"])


def command_of(root: Path) -> str | None:
    """The command that a results folder was made by; `None` where it is no results folder.

    Raises:
        StoreError: its `question.json` is truncated.
    """
    path = root / FILE
    stored = read_json(path, advice=_WHEN_READ) if path.exists() else {}
    return str(stored["command"]) if isinstance(stored, dict) and "command" in stored else None


def differs(stored: Any, asked: Mapping[str, Any]) -> bool:
    """Whether what a folder is about differs from what is asked; what a task imports late is not known yet."""
    return not isinstance(stored, dict) or {k: v for k, v in stored.items() if k not in _ADDED} != asked


def refuse_other(root: Path, asked: Mapping[str, Any]) -> None:
    """Make sure that a results folder is about what is asked.

    Args:
        root: the folder, with its `question.json`.
        asked: as `asked_of` made it.

    Raises:
        StoreError: it is about something else, or is of another layout.
    """
    stored = read_json(root / FILE)
    if not isinstance(stored, dict) or stored.get("schema") != asked.get("schema"):
        raise _of_another_version(root, stored.get("schema") if isinstance(stored, dict) else None)
    if differs(stored, asked):
        _refuse(root, stored, asked)


def refuse_runs(root: Path, asked: Mapping[str, Any], config: RunConfig | None) -> NoReturn:
    """Say why a folder whose question cannot be read does not take what is asked.

    Args:
        root: the folder.
        asked: as `asked_of` made it.
        config: of a run that is not proven to be of the same question; `None`: it cannot be read either.

    Raises:
        StoreError: always.
    """
    said = "nothing in them proves that they are of this task as it is now"
    own = encode(config) if config is not None else {}
    for name in ("task", "settings", "seed", "device"):
        if name in asked and name in own and own[name] != asked[name]:
            said = f"of a run in it {_difference(name, own[name], asked[name])}"
            break
    raise StoreError(
        f"{root} holds runs, and its {FILE}, which says of what they are, cannot be read: {said}; restore that file, "
        "give another --out, or remove the folder"
    )


def refuse_foreign(root: Path) -> NoReturn:
    """Say that a folder's question is not that of its runs.

    Raises:
        StoreError: always.
    """
    raise StoreError(
        f"{root / FILE} is not of the runs in this folder, which were made for another question; restore that file, "
        "give another --out, or remove the folder"
    )


def _refuse(root: Path, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> NoReturn:
    """Say what differs.

    Raises:
        StoreError: always.
    """
    names = [key for key in {*stored, *asked} - _ADDED if stored.get(key) != asked.get(key)]
    key = min(names, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name))
    how = _difference(key.replace("_", " "), stored.get(key), asked.get(key))
    raise StoreError(f"{root} holds the answer to another question: {how}; give another --out, or remove the folder")


def refuse_files(root: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Make sure that files which a task imports late have not changed; ones that were not imported count as they are.

    Raises:
        StoreError: one has.
    """
    both = {name: sha256 for name, sha256 in now.items() if name in before}
    if any(before[name] != sha256 for name, sha256 in both.items()):
        _refuse(root, {_FILES: {name: before[name] for name in both}}, {_FILES: both})


def _difference(name: str, before: Any, now: Any) -> str:
    """What differs in a member of two questions, in the words of whoever asked."""
    if name == _FILES and isinstance(before, dict) and isinstance(now, dict):
        return _changed_file(before, now)
    if name.endswith(" sha256"):
        return f"its {name.removesuffix(' sha256')} has changed since"
    if isinstance(before, dict) and isinstance(now, dict) and (was := _in_words(before)) == _in_words(now):
        return f"its {name} {was} has changed since"
    if name == "settings" and isinstance(before, dict) and isinstance(now, dict):
        key = min(key for key in {*before, *now} if before.get(key) != now.get(key))
        return f"its setting {key} was {_in_words(before.get(key))}, now {_in_words(now.get(key))}"
    verb = "were" if name.endswith("s") else "was"
    return f"its {name} {verb} {_in_words(before)}, now {_in_words(now)}"


def _changed_file(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Which of a task's files is not what it was."""
    changed = [name for name in sorted(before) if now.get(name, before[name]) != before[name]]
    added, gone = sorted({*now} - {*before}), sorted({*before} - {*now})
    for names, what in ((changed, "has changed"), (added, "is imported"), (gone, "is not imported any more")):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            return f"its file {names[0]}{more} {what} since"
    return "its files have changed since"


def _in_words(value: Any) -> str:
    """A part of a question as it is written on a command line: `val_loss<=0.05`, `20 epochs`, `none`."""
    match value:
        case None | []:
            return "none"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.12g}"
        case list():
            return ", ".join(map(_in_words, value))
        case {"metric": str(metric), "value": float() | int() as level, "mode": "min" | "max" as mode}:
            return str(Target(metric=metric, value=level, mode=mode))
        case {"amount": float() | int() as amount, "unit": unit}:
            return f"{amount:g} {unit}"
        case {"name": name, "step_time_s": _}:
            return str(name)
        case dict():
            return ",".join(f"{key}={_in_words(part)}" for key, part in value.items()) or "none"
        case _:
            return str(value)


def _of_another_version(root: Path, seen: Any) -> StoreError:
    number = "none" if seen is None else seen
    return StoreError(
        f"{root} was written by another version of batchscope: {FILE} has schema {number}, and this version reads "
        f"and writes {STORE_SCHEMA}; give another --out, or remove the folder"
    )
