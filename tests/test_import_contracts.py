"""The import contracts name every module that they are about: a contract cannot be kept by leaving a module out."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from typing import Any

import pytest

CONTRACTS: list[dict[str, Any]] = tomllib.loads(
    (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8")
)["tool"]["importlinter"]["contracts"]


@pytest.mark.parametrize(
    ("key", "modules"),
    [
        (
            "source_modules",
            "codec count errors fits plan records report search stopping store "
            "study study_courses study_file study_findings study_options study_rows study_view",
        ),
    ],
)
def test_contracts_name_every_module_they_are_about(key: str, modules: str) -> None:
    named = {module for contract in CONTRACTS for module in contract.get(key, ())}
    there = {f"batchscope.{m}" for m in modules.split() if importlib.util.find_spec(f"batchscope.{m}")}
    assert there <= named, f"add {sorted(there - named)} to {key} of its contract in pyproject.toml"
