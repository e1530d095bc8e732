"""Small inputs made after public reports, each with what is right to say or to answer: all must hold."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"
NAMES = (
    [case["id"] for case in tomllib.loads((CASES / "cases.toml").read_text())["case"]] if CASES.is_dir() else ["none"]
)


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_case_holds(name: str) -> None:
    program = Path(sysconfig.get_path("scripts")) / "batchscope"
    command = [sys.executable, str(CASES / "run.py"), name]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "BATCHSCOPE": str(program)}
    )
    assert done.returncode == 0, done.stdout + done.stderr
