"""A machine with little memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture
def memory_profile(profile: Path) -> Path:
    """The machine with a memory of 1 MiB, 16 KiB for an example of `digits`."""
    data = json.loads(profile.read_text(encoding="utf-8"))
    table = [[size, 100_000 + 16_384 * size] for size in (1, 4, 16, 32)]
    profile.write_text(json.dumps({**data, "peak_memory_bytes": table, "capacity_bytes": 2**20}), encoding="utf-8")
    return profile
