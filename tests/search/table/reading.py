"""Texts as tables, for the tests of what is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from batchscope.errors import TableError
from batchscope.search.table.measurement import Table
from batchscope.search.table.reading import read_table
from batchscope.store.records import Target

__all__ = ["read", "refusal"]


def read(folder: Path, text: str, target: str = "", columns: Mapping[str, str] | None = None) -> Table:
    """The table of a text."""
    path = folder / "runs.csv"
    path.write_bytes(text.encode())
    return read_table(path, target=Target.parse(target) if target else None, columns=columns)


def refusal(folder: Path, text: str, target: str = "", columns: Mapping[str, str] | None = None) -> str:
    """What is said where a text is refused."""
    with pytest.raises(TableError) as error:
        read(folder, text, target, columns)
    return str(error.value)
