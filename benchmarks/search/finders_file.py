"""What the rivals that train by themselves have found, as `finders.json` keeps it; `finders.py` writes it."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from batchscope.store.files import write_text
from tables import Table
from yardstick import fingerprint

__all__ = ["PATH", "SEEDS", "entry_of", "found", "keep"]

PATH = Path(__file__).resolve().parent / "finders.json"
SEEDS = 3


@functools.cache
def _read(written_ns: int) -> dict[str, Any]:
    return json.loads(PATH.read_text()) if written_ns else {}


def _kept() -> dict[str, Any]:
    return _read(PATH.stat().st_mtime_ns if PATH.exists() else 0)


def _key(table: Table) -> str:
    return f"{table.task.name} {fingerprint(table)}"


def entry_of(table: Table) -> Mapping[str, Any]:
    """What was found on a task, by rival; empty where no finder was run."""
    return _kept().get(_key(table), {})


def found(rival: str, table: Table, seed: int) -> dict[str, Any]:
    """What a finder found: `batch_size`, `lr`, and its `steps` by batch size. Three seeds were run.

    Raises:
        KeyError: it was not run on this task.
    """
    return entry_of(table)[rival][seed % SEEDS]


def keep(table: Table, rival: str, results: Sequence[Mapping[str, Any]]) -> None:
    """Write down what a finder found on a task, one result a seed."""
    kept = _kept()
    kept.setdefault(_key(table), {})[rival] = list(results)
    write_text(PATH, json.dumps(kept, indent=1, sort_keys=True) + "\n")
