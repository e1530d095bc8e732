"""What a results folder was asked, and by which version of its layout: `question.json`.

```
{"schema": 2, "command": "find", "task": ..., "settings": ..., "source_sha256": ..., "device": ..., ...}
```

A folder answers one question. The same command with the same question goes on there; anything else is refused, and the
message names the first member that differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import StoreError
from .codec import encode
from .files import read_json

__all__ = ["FILE", "STORE_SCHEMA", "asked_of", "check_schema", "refuse_other"]

STORE_SCHEMA = 2
"""Number of the layout of a results folder; that of `plan.json` is another (`records.SCHEMA`)."""

FILE = "question.json"


def asked_of(command: str, identity: Mapping[str, Any], **question: Any) -> dict[str, Any]:
    """Everything that makes a question another one, in JSON types.

    Args:
        command: that asks.
        identity: of what is measured: a task with its settings, source and device, or a table with its hash.
        question: all that decides the answer beside.

    >>> asked_of("noise", {"task": "digits"}, steps=300)
    {'schema': 2, 'command': 'noise', 'task': 'digits', 'steps': 300}
    """
    return {"schema": STORE_SCHEMA, "command": command, **encode(identity), **encode(question)}


def check_schema(root: Path) -> None:
    """Make sure that a results folder was written in the layout of this version.

    Raises:
        StoreError: it is of another; the message says which, and what to do.
    """
    path = root / FILE
    stored = read_json(path) if path.exists() else {}
    if isinstance(stored, dict) and stored.get("schema", STORE_SCHEMA) != STORE_SCHEMA:
        raise _of_another_version(root, stored["schema"])


def refuse_other(root: Path, asked: Mapping[str, Any]) -> None:
    """Make sure that a results folder answers a question.

    Args:
        root: the folder, with its `question.json`.
        asked: as `asked_of` made it.

    Raises:
        StoreError: it answers another question, or is of another layout.
    """
    stored = read_json(root / FILE)
    if not isinstance(stored, dict) or stored.get("schema") != asked.get("schema"):
        raise _of_another_version(root, stored.get("schema") if isinstance(stored, dict) else None)
    if stored == asked:
        return
    key = min(key for key in {*stored, *asked} if stored.get(key) != asked.get(key))
    how = f"its {key} is {stored.get(key)!r}, now {asked.get(key)!r}"
    if key.endswith("_sha256"):
        how = f"its {key.removesuffix('_sha256')} has changed since"
    raise StoreError(f"{root} holds the answer to another question: {how}; give another --out, or remove the folder")


def _of_another_version(root: Path, seen: Any) -> StoreError:
    number = "none" if seen is None else seen
    return StoreError(
        f"{root} was written by another version of batchscope: {FILE} has schema {number}, and this version reads "
        f"and writes {STORE_SCHEMA}; give another --out, or remove the folder"
    )
