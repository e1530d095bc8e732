"""The small trainings carry the good learning rates that the grid of `benchmarks/search` found."""

from __future__ import annotations

import json
from pathlib import Path

from batchscope.testing.small_trainings import SMALL_TRAININGS

GRID = Path(__file__).resolve().parents[2] / "benchmarks" / "search" / "results" / "first-learning-rates.json"


def test_what_is_good_was_found_by_a_grid_with_worse_learning_rates_on_both_sides() -> None:
    rows = {row["training"]: row for row in json.loads(GRID.read_text(encoding="utf-8"))["rows"]}
    assert len(SMALL_TRAININGS) == len(rows) >= 12
    for training in SMALL_TRAININGS:
        row = rows[training.name]
        assert (*training.good, training.batch_size, training.steps) == (
            *row["good"],
            row["batch_size"],
            row["most_steps"],
        )
        assert row["lrs"][0] < training.good[0] <= training.good[1] < row["lrs"][-1]
