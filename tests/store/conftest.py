"""A results folder with one finished run."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchscope.store.runs import Store

from .samples import QUESTION, finish


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a finished run of `CONFIG` stands."""
    with Store(tmp_path / "out", QUESTION) as store:
        return finish(store)
