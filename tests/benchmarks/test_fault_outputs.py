"""The quick form of the faults of outputs, disks and hostile strings: each holds, and nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FAULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "faults.py"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["outputs", "disks", "hostile"])
def test_every_fault_holds(kind: str, tmp_path: Path) -> None:
    words = [sys.executable, str(FAULTS), "--quick", "--only", kind, "--keep", str(tmp_path)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=900)
    assert ended.returncode == 0, ended.stdout
    assert "DID NOT HOLD" not in ended.stdout
