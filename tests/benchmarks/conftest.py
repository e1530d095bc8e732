"""The benchmark's scripts import one another by bare names, which folders of tests bear as well."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPTS = {path.stem for folder in (BENCHMARKS, BENCHMARKS / "search") for path in folder.glob("*.py")}


@pytest.fixture(scope="session")
def script() -> Callable[[str], ModuleType]:
    """Imports a script of `benchmarks/search` by its bare name, and leaves no such name behind."""
    known: dict[str, ModuleType] = {}

    def load(name: str) -> ModuleType:
        others = {each: sys.modules.pop(each) for each in SCRIPTS if each in sys.modules}
        sys.modules.update(known)
        sys.path[:0] = [str(BENCHMARKS / "search"), str(BENCHMARKS)]
        try:
            return importlib.import_module(name)
        finally:
            del sys.path[:2]
            known.update({each: sys.modules.pop(each) for each in SCRIPTS if each in sys.modules})
            sys.modules.update(others)

    return load
