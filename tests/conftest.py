"""What every test may rely on: one thread, and the reasons for which a marked test is skipped."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

SHARED = Path(__file__).resolve().parents[2] / "shared"

# Before torch is imported. The models here are tiny, and threads that wait for one another on a busy machine cost far
# more than they give: with two threads the tests of the tasks and probes took nine times as long as with one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("batchscope", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("batchscope")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("slow") and not item.config.getoption("--slow"):
        pytest.skip("slow; run with --slow")
    if item.get_closest_marker("shared") and not SHARED.is_dir():
        pytest.skip("needs the data sets in ../shared, which is not there")
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.accelerator.is_available():
            pytest.skip("needs an accelerator; there is none")


@pytest.fixture
def shared() -> Path:
    """The folder of real data sets; for tests marked `shared`."""
    return SHARED


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def answer(self) -> Any:
        """The one JSON object on stdout; anything else there, or a NaN in it, is an error."""
        return json.loads(self.out, parse_constant=pytest.fail)


Cli = Callable[..., Ended]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command line in this process, in an empty folder; texts are split into words."""
    monkeypatch.chdir(tmp_path)

    def run(command: str, *words: str | Path) -> Ended:
        from batchscope.cli import main

        with pytest.raises(SystemExit) as ended:
            main([*command.split(), *map(str, words)])
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def cli_in() -> Cli:
    """The command line in this process, in a folder: for a run that several tests look at, and change nothing of."""

    def run(folder: Path, command: str) -> Ended:
        from batchscope.cli import main

        out, err = StringIO(), StringIO()
        with contextlib.chdir(folder), redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main(command.split())
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def machine() -> str:
    """A machine with a fixed step time, 1 ms x (1 + size / 64), so that nothing depends on this one's clock."""
    table = [[size, 1e-3 * (1 + size / 64)] for size in (1, 8, 64, 512, 4096)]
    return json.dumps({"name": "machine", "step_time_s": table})


@pytest.fixture
def profile(tmp_path: Path, machine: str) -> Path:
    """The profile of that machine as a file."""
    path = tmp_path / "machine.json"
    path.write_text(machine, encoding="utf-8")
    return path
