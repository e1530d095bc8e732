"""The fuzz: what it counts as a fault, and a few of its cases, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
CASES = [
    *(f"table:{number}" for number in (4, 9, 14, 19, 24, 29, 34, 39)),
    *(f"arguments:{number}" for number in (0, 5, 12, 20, 33, 47, 58, 66, 71, 83)),
]

pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="needs benchmarks/, which a source distribution lacks")


@pytest.fixture(scope="session")
def fuzz(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("fuzz")


@pytest.mark.parametrize(
    ("words", "status", "out", "err", "fault"),
    [
        ("count", 0, "16 steps", "", None),
        ("count --json", 0, '{"steps": 16}', "", None),
        ("count", 2, "", "batchscope: --steps is 0; write 1 or more", None),
        ("find digits --json", 3, '{"recipe": null}', "range test", None),
        ("count", 1, "", "", "exit status 1"),
        ("count", 124, "", "", "exit status 124"),
        ("count", 2, "", "", "0 messages"),
        ("count", 2, "", "batchscope: one\nbatchscope: two", "2 messages"),
        ("count", 2, "", "Traceback (most recent call last)\nbatchscope: one", "a traceback"),
        ("fit a.csv", 3, "", "batchscope: internal error, a fault of batchscope: KeyError: 'a'", "an internal error"),
        ("count --json", 0, '{"steps": NaN}', "", "stdout is no JSON: it holds NaN"),
        ("count --json", 0, "[1]", "", "stdout is no JSON object"),
    ],
)
def test_what_counts_as_a_fault(
    fuzz: ModuleType, tmp_path: Path, words: str, status: int, out: str, err: str, fault: str | None
) -> None:
    ended = fuzz.Ended(command=words.split(), status=status, stdout=out, stderr=err, seconds=0.1)
    assert fuzz.faults_of(ended, tmp_path) == ([] if fault is None else [fault])


def test_a_number_that_is_none_in_a_kept_file_is_a_fault(fuzz: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "plan.json").write_text('{"lr": Infinity}')
    (tmp_path / "given.json").write_text("{")  # what was handed over may be anything
    ended = fuzz.Ended(command=["runs"], status=0, stdout="", stderr="", seconds=0.1)
    assert fuzz.faults_of(ended, tmp_path) == ["plan.json is no JSON: it holds Infinity"]


@pytest.mark.parametrize("kind", ["table", "arguments", "task"])
def test_a_case_is_the_same_wherever_it_is_made(fuzz: ModuleType, tmp_path: Path, kind: str) -> None:
    first, again, other = (tmp_path / name for name in ("first", "again", "other"))
    for folder in (first, again, other):
        folder.mkdir()
    command = fuzz.case_of(kind, 7, first)
    assert fuzz.case_of(kind, 7, again) == command
    assert fuzz.case_of(kind, 8, other) != command
    files = [[path.read_bytes() for path in sorted(folder.iterdir())] for folder in (first, again)]
    assert files[0] == files[1]


def test_some_cases_hold() -> None:
    """Those that need no training; `benchmarks/fuzz.py` tries all."""
    command = [sys.executable, str(BENCHMARKS / "fuzz.py"), "--only", *CASES]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["did not hold"] == 0
