"""The figures that the README quotes are those of the committed results."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def regret() -> dict[str, dict[str, float]]:
    text = (ROOT / "benchmarks" / "results" / "regret.json").read_text()
    data = json.loads(text)
    return {**data["tasks"], "**all**": data["summary"]}


def test_every_row_of_the_regret_table_is_measured(regret: dict[str, dict[str, float]]) -> None:
    readme = (ROOT / "README.md").read_text().splitlines()
    for name, figures in regret.items():
        (row,) = [line for line in readme if line.startswith(f"| {name} |")]
        quoted = [float(cell) for cell in row.strip("| ").split("|")[1:]]
        keys = ("searches", "regret_median", "regret_p90", "cost_median")
        measured = [math.inf if figures[key] is None else figures[key] for key in keys]
        assert quoted == pytest.approx(measured, abs=0.006)


def test_the_searches_meet_what_the_readme_says_of_them(regret: dict[str, dict[str, float]]) -> None:
    everything = regret["**all**"]
    assert everything["regret_median"] <= 1.15
    assert everything["regret_p90"] <= 1.5
    assert everything["cost_median"] <= 8
