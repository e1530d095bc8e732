"""Every benchmark's raw numbers with the environment that they were measured in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchscope.hardware.device import pick
from batchscope.hardware.environment import environment_of
from batchscope.store.files import write_json

__all__ = ["RESULTS", "read", "write"]

RESULTS = Path(__file__).parent / "results"


def write(name: str, data: Mapping[str, Any], *, device: str = "cpu") -> Path:
    """Write `results/<name>.json`: the environment, then the numbers."""
    path = RESULTS / f"{name}.json"
    write_json(path, {"environment": environment_of(pick(device)), **data})
    return path


def read(name: str) -> dict[str, Any]:
    """What `write` wrote."""
    return json.loads((RESULTS / f"{name}.json").read_text())
