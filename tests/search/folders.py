"""What a search on the command line answers, and what it leaves in its folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Cli = Callable[..., Any]

CLOCK = ("seconds", "evaluation_seconds", "training_seconds", "training_here_s")
"""Members of the search's cost that are read off a clock here."""

DENSE = "--evaluation-share 100%"
"""Evaluations as dense as they get, so that runs do not depend on how long one takes here."""
DIGITS = f"find digits --hardware machine.json --target val_loss<=0.3 {DENSE}"


def answer(cli: Cli, command: str, *words: str) -> Any:
    """The plan of a search that gives a recipe."""
    ended = cli(f"{command} --json", *words)
    assert ended.status == 0, ended.err
    return ended.answer


def without_clock(plan: Any) -> Any:
    """A plan without the seconds that the search took here."""
    return {**plan, "search": {**plan["search"], **dict.fromkeys(CLOCK)}}


def files_of(out: str) -> dict[Path, tuple[int, bytes]]:
    """Every file of every run, with the time of its last change."""
    files = (path for path in Path(out).glob("runs/*/*") if path.is_file())
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def curves_of(out: str) -> dict[str, list[tuple[int, Any]]]:
    """The evaluations of each finished run."""
    return {
        path.parent.name: [
            (r["step"], r["metrics"]) for r in map(json.loads, path.read_text().splitlines()) if "metrics" in r
        ]
        for path in Path(out).glob("runs/*/rows.jsonl")
    }


def configs_of(out: str) -> list[Any]:
    """The configurations of the runs in a folder, first started first."""
    paths = sorted(Path(out).glob("runs/*/config.json"), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]
