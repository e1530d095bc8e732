"""Raw numbers of the search benchmark: the environment, then one line a row, in `benchmarks/search/results/`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from batchscope.hardware.device import pick
from batchscope.hardware.environment import environment_of
from batchscope.store.codec import encode
from batchscope.store.files import write_text

__all__ = ["FOLDER", "read", "write"]

FOLDER = Path(__file__).resolve().parent / "results"


def write(name: str, rows: Sequence[Mapping[str, Any]], *, folder: Path = FOLDER, **more: Any) -> Path:
    """Write `NAME.json`; what is infinite is written as `null`.

    Args:
        name: of the file.
        rows: flat mappings of JSON types.
        folder: created where it is not there.
        more: written beside the environment.
    """
    head = {"environment": encode(environment_of(pick("cpu"))), **more}
    lines = ",\n".join("  " + json.dumps(_finite(row), allow_nan=False) for row in rows)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    write_text(path, json.dumps(head, indent=1)[:-2] + f',\n "rows": [\n{lines}\n ]\n}}\n')
    return path


def read(name: str, *, folder: Path = FOLDER) -> list[dict[str, Any]]:
    """The rows that `write` wrote."""
    return json.loads((folder / f"{name}.json").read_text())["rows"]


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value
