"""A table on disk: one compressed `.npz` of flat arrays, whole or not there, that several processes may add to."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import math
import os
import tempfile
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from curves import Curve

__all__ = ["Measured", "load", "locked", "rate_key", "save"]

Cell = tuple[int, float]
"""Batch size and learning rate."""


def rate_key(lr: float) -> float:
    """A rate to the six digits by which a table tells rates apart."""
    return float(f"{lr:.6g}")


@dataclass
class Measured:
    """All that was measured of one task.

    Attributes:
        curves: by batch size, rate and index of the choosing seed.
        fresh: steps to target on the fresh seeds, by batch size and rate; `None` where one was censored.
        fresh_most: the steps at which the fresh seeds of a cell were censored.
        meta: JSON types: environment, step times of this machine, the best cells, seconds spent.
    """

    curves: dict[tuple[int, float, int], Curve] = field(default_factory=dict)
    fresh: dict[Cell, list[float | None]] = field(default_factory=dict)
    fresh_most: dict[Cell, int] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)

    def take(self, other: Measured) -> None:
        """Add what another process measured meanwhile; what is here stays, except `meta` and shorter looks."""
        self.curves = {**other.curves, **self.curves}
        for cell, most in other.fresh_most.items():
            if most > self.fresh_most.get(cell, 0):
                self.fresh[cell], self.fresh_most[cell] = other.fresh[cell], most
        self.meta = {**self.meta, **other.meta}


def save(path: Path, measured: Measured) -> None:
    """Write under a temporary name, then rename. The same content gives the same bytes."""
    curves, cells = sorted(measured.curves.items()), sorted(measured.fresh.items())
    statuses = sorted({curve.status for _, curve in curves})
    arrays: Mapping[str, Any] = {
        "batch_size": np.array([key[0] for key, _ in curves], dtype=np.int32),
        "lr": np.array([key[1] for key, _ in curves], dtype=np.float64),
        "seed_index": np.array([key[2] for key, _ in curves], dtype=np.uint8),
        "status": np.array([statuses.index(curve.status) for _, curve in curves], dtype=np.uint8),
        "statuses": np.array(statuses, dtype=np.str_),
        "steps_to_target": _numbers([curve.steps_to_target for _, curve in curves]),
        "lengths": np.array([len(curve.steps) for _, curve in curves], dtype=np.int32),
        "steps": _joined([curve.steps for _, curve in curves], np.int32),
        "values": _joined([curve.values for _, curve in curves], np.float32),
        "fresh_batch_size": np.array([cell[0] for cell, _ in cells], dtype=np.int32),
        "fresh_lr": np.array([cell[1] for cell, _ in cells], dtype=np.float64),
        "fresh_most": np.array([measured.fresh_most[cell] for cell, _ in cells], dtype=np.int64),
        "fresh_steps": np.array([_numbers(steps) for _, steps in cells], dtype=np.float64),
        "meta": np.array(json.dumps(measured.meta, sort_keys=True)),
    }
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content.getvalue())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def load(path: Path) -> Measured:
    """What `save` wrote; nothing measured, where there is no file."""
    if not path.exists():
        return Measured()
    with np.load(path, allow_pickle=False) as file:
        data = {name: file[name] for name in file.files}
    ends = np.cumsum(data["lengths"])
    statuses = [str(name) for name in data["statuses"]]
    curves = {
        (int(batch_size), float(lr), int(seed)): Curve(steps, values, statuses[status], _optional(reached))
        for batch_size, lr, seed, status, reached, steps, values in zip(
            data["batch_size"],
            data["lr"],
            data["seed_index"],
            data["status"],
            data["steps_to_target"],
            np.split(data["steps"], ends)[:-1],
            np.split(data["values"], ends)[:-1],
            strict=True,
        )
    }
    cells = [(int(b), float(lr)) for b, lr in zip(data["fresh_batch_size"], data["fresh_lr"], strict=True)]
    return Measured(
        curves=curves,
        fresh={c: [_optional(s) for s in steps] for c, steps in zip(cells, data["fresh_steps"], strict=True)},
        fresh_most={cell: int(most) for cell, most in zip(cells, data["fresh_most"], strict=True)},
        meta=json.loads(str(data["meta"])),
    )


@contextlib.contextmanager
def locked(path: Path) -> Generator[None]:
    """Hold the right to replace a file; others who ask wait."""
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    with open(Path(tempfile.gettempdir()) / f"batchscope-table-{name}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _numbers(values: list[float | None]) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _optional(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _joined(parts: list[np.ndarray], kind: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, kind), *parts]).astype(kind)
