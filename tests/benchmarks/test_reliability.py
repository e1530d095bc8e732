"""The reliability table of what searches told: by hand, and that of the committed rows in the docs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
Script = Callable[[str], ModuleType]


def row(told: float | None, regret: float | None, half: str = "design") -> dict[str, Any]:
    return {"half": half, "probability_within_5_percent": told, "regret": regret}


def test_a_table_by_hand(script: Script) -> None:
    rows = [row(0.35, 1.0), row(0.35, 1.2), row(0.55, 1.04), row(None, 1.0), row(0.45, None, "held-out")]
    lines = script("reliability").table(rows).splitlines()[2:]
    assert lines[0] == "| design | 0.3 to 0.4 | 2 | 0.35 | 0.50 |"
    assert lines[1] == "| design | 0.5 to 0.6 | 1 | 0.55 | 1.00 |"
    assert lines[2] == "| design | **all** (resolution 0.75) | 3 | 0.42 | 0.67 |"
    assert lines[3] == "| design | nothing | 1 | | |"
    assert lines[4] == "| held-out | 0.4 to 0.5 | 1 | 0.45 | 0.00 |"


def test_the_docs_have_the_table_of_the_committed_rows(script: Script) -> None:
    rows = script("results").read("reliability")
    docs = (ROOT / "docs" / "search-benchmark.md").read_text(encoding="utf-8")
    for line in script("reliability").table(rows).splitlines():
        assert line.replace("| nothing |", "| nothing: one batch size only |") in docs


@pytest.mark.parametrize("half", ["design", "held-out"])
def test_what_is_told_holds_as_often_to_within_a_tenth(script: Script, half: str) -> None:
    reliability = script("reliability")
    rows = [
        r
        for r in script("results").read("reliability")
        if r["half"] == half and r["probability_within_5_percent"] is not None
    ]
    assert len(rows) > 50
    assert float(reliability.told(rows).mean()) == pytest.approx(float(reliability.held(rows).mean()), abs=0.101)
