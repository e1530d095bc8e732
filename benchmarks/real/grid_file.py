"""A grid on disk: one compressed `.npz` a training, whole or not there, with every run's curve."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["FOLDER", "Curve", "Grid", "Key", "key", "load", "save"]

FOLDER = Path(__file__).resolve().parent / "grids"
Key = tuple[int, float, int]
"""Batch size, learning rate (to six digits) and seed."""
Curve = Mapping[str, list[float]]
_PARTS = {"steps": np.int32, "values": np.float32, "seconds": np.float32}


def key(batch_size: int, lr: float, seed: int) -> Key:
    """What a run is told by."""
    return batch_size, float(f"{lr:.6g}"), seed


@dataclass
class Grid:
    """What was measured of one training.

    Attributes:
        fingerprint: of the training.
        runs: what the loop said of each, without its curve; `limit_s` is where it would have been censored.
        curves: steps, values and seconds at the evaluations of each.
        meta: environment and the like.
    """

    fingerprint: str
    runs: dict[Key, dict[str, Any]] = field(default_factory=dict)
    curves: dict[Key, Curve] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)

    def add(self, of: Key, answer: Mapping[str, Any], **more: Any) -> None:
        """Take in what the loop printed, and what else is known of that run."""
        self.runs[of] = {name: value for name, value in answer.items() if name not in ("curve", "at")} | more
        self.curves[of] = answer["curve"]

    def seconds(self, batch_size: int, lr: float, seed: int) -> float | None:
        """Wall time to the target, evaluations apart; none, where the run did not reach it."""
        return self.runs[key(batch_size, lr, seed)]["seconds_to_target"]


def save(path: Path, grid: Grid) -> None:
    """Write under a temporary name, then rename."""
    keys = sorted(grid.runs)
    rows = [{"key": list(k), **grid.runs[k]} for k in keys]
    head = {"fingerprint": grid.fingerprint, "meta": grid.meta, "runs": rows}
    arrays = {
        part: np.array([np.nan if v is None else v for k in keys for v in grid.curves[k][part]], dtype=kind)
        for part, kind in _PARTS.items()
    }
    lengths = np.array([len(grid.curves[k]["steps"]) for k in keys], dtype=np.int32)
    content = io.BytesIO()
    np.savez_compressed(content, head=np.array(json.dumps(head, sort_keys=True)), lengths=lengths, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content.getvalue())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path, fingerprint: str) -> Grid:
    """What `save` wrote of that very training; an empty grid, where there is no file or it is of another one."""
    if not path.exists():
        return Grid(fingerprint)
    with np.load(path, allow_pickle=False) as file:
        data = {name: file[name] for name in file.files}
    head = json.loads(str(data["head"]))
    if head["fingerprint"] != fingerprint:
        return Grid(fingerprint)
    ends = np.cumsum(data["lengths"])[:-1]
    parts = {part: [each.tolist() for each in np.split(data[part], ends)] for part in _PARTS}
    grid = Grid(fingerprint, meta=head["meta"])
    for i, row in enumerate(head["runs"]):
        of = key(*row.pop("key"))
        grid.runs[of] = row
        grid.curves[of] = {part: parts[part][i] for part in _PARTS}
    return grid
