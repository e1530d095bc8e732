"""The figures that the README quotes are those of the committed results."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, float | None]]:
    return json.loads((ROOT / "benchmarks" / "search" / "results" / "ours.json").read_text())["summary"]


def test_every_row_of_the_regret_table_is_measured(measured: dict[str, dict[str, float | None]]) -> None:
    readme = (ROOT / "README.md").read_text().splitlines()
    for name, figures in measured.items():
        (row,) = [line for line in readme if line.startswith(f"| {name} |")]
        quoted = [float(cell) for cell in row.strip("| ").split("|")[1:]]
        keys = ("searches", "regret_median", "regret_p95", "cost_median", "covered_90")
        values = [math.inf if figures[key] is None else figures[key] for key in keys]
        assert quoted == pytest.approx(values, abs=0.006)


def test_the_searches_are_near_the_best_for_a_few_trainings(
    measured: dict[str, dict[str, float | None]],
) -> None:
    everything = measured["**all**"]
    assert everything["regret_median"] is not None
    assert everything["regret_median"] <= 1.15
    assert everything["cost_median"] is not None
    assert everything["cost_median"] <= 4
    assert everything["covered_90"] is not None
    assert everything["covered_90"] >= 0.85
