"""What every test may rely on: one thread, and the reasons for which a marked test is skipped."""

from __future__ import annotations

import os
from pathlib import Path

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
