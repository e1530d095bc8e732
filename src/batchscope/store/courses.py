"""Course of a run: what decides how it goes, apart from where it ends and how it is watched.

Two configurations of one course make the same steps. So a stored run answers every request of its course up to where it
went, and goes on from there when more is asked. A result that was laid aside while its run went on comes back from here
where the process died before the run had another.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from .codec import encode
from .files import explained, keep_interrupted, read_record, regular_bytes, write_bytes
from .records import RunConfig, RunResult
from .rows import MOST_BYTES_OF_ROWS

__all__ = ["course_of", "restore_result", "rows_sha256"]

_WATCHING = frozenset({"target", "metric", "max_steps", "purpose", "noise_scale_groups", "stall_patience"})
_SPACING = "evaluation_"
"""Members of a configuration that begin like this say when it is evaluated."""


def course_of(config: RunConfig) -> str:
    """Hash of what decides a run's course: equal courses, equal steps as far as both go.

    Where it ends (target, number of steps at a constant schedule, stop rules) and how it is watched (purpose, metric,
    spacing of the evaluations, groups of the noise scale) is left out. A schedule that decays is bent by the number of
    steps.

    >>> from dataclasses import replace
    >>> config = RunConfig(task="digits", batch_size=32, micro_batch_size=32, lr=0.1, max_steps=100)
    >>> course_of(replace(config, max_steps=200, purpose="probe")) == course_of(config)
    True
    >>> linear = replace(config, schedule="linear")
    >>> course_of(replace(linear, max_steps=200)) == course_of(linear)
    False
    """
    members: dict[str, Any] = {
        name: value for name, value in encode(config).items() if name not in _WATCHING and not name.startswith(_SPACING)
    }
    if config.schedule != "constant":
        members["max_steps"] = config.max_steps
    return hashlib.sha256(json.dumps(members, sort_keys=True).encode()).hexdigest()


def rows_sha256(path: Path, rows: int) -> str:
    """SHA-256 hash of the first `rows` lines of a file of rows.

    Raises:
        StoreError: it cannot be read.
    """
    return hashlib.sha256(b"".join(_lines(path)[:rows])).hexdigest()


def restore_result(folder: Path) -> bool:
    """Put the newest result that was laid aside back, with its rows, where its run has none since; whether it was.

    The rows are those whose hash the result holds: the beginning of `rows.jsonl`, or of a file of rows kept beside it.

    Raises:
        StoreError: a file cannot be read or written, or is truncated.
    """
    result_path, rows_path = folder / "result.json", folder / "rows.jsonl"
    if result_path.exists():
        return False
    kept = [p for p in (rows_path, *_newest_first(folder, "rows.interrupted-*.jsonl")) if p.exists()]
    for aside in _newest_first(folder, "result.interrupted-*.json"):
        wanted = read_record(aside, RunResult).rows_sha256
        for path in kept:
            rows = _beginning(path, wanted)
            if rows is not None:
                if rows != b"".join(_lines(rows_path)) and rows_path.exists():
                    keep_interrupted(rows_path)
                write_bytes(rows_path, rows)
                with explained(result_path):
                    os.replace(aside, result_path)
                return True
    return False


def _beginning(path: Path, wanted: str) -> bytes | None:
    """The whole lines at the beginning of a file that have this hash; `None` where none have."""
    digest, seen = hashlib.sha256(), list[bytes]()
    for line in _lines(path):
        digest.update(line)
        seen.append(line)
        if digest.hexdigest() == wanted:
            return b"".join(seen)
    return None


def _lines(path: Path) -> list[bytes]:
    if not path.exists():
        return []
    with explained(path):
        return regular_bytes(path, MOST_BYTES_OF_ROWS).splitlines(keepends=True)


def _newest_first(folder: Path, pattern: str) -> list[Path]:
    numbered = [(path.stem.rpartition("-")[2], path) for path in folder.glob(pattern)]
    newest_first = sorted(((int(number), path) for number, path in numbered if number.isdecimal()), reverse=True)
    return [path for _, path in newest_first]
