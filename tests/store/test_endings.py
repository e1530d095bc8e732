"""How a run ended, in words that need no legend."""

from __future__ import annotations

import pytest

from batchscope.store.endings import ending_of, endings_of, gained
from batchscope.store.records import Metric, RunStatus, Target
from batchscope.store.runs import StoredRun
from batchscope.testing import evaluation, stored_run


def behind(*values: float, metric: str = "val_loss", mode: str = "min", by: str = "target") -> StoredRun:
    rows = [evaluation(10 * i, {metric: value}) for i, value in enumerate(values)]
    sign = "<=" if mode == "min" else ">="
    judged = Target.parse(f"{metric}{sign}0.5") if by == "target" else None
    watched = Metric.parse(f"{metric}:{mode}") if by == "metric" else None
    return stored_run(8, 0.1, rows, status=RunStatus.BEHIND, target=judged, metric=watched)


@pytest.mark.parametrize(
    ("run", "gains"),
    [
        (behind(2.0, 2.1, 1.99), False),
        (behind(2.0, 2.1, 1.9), True),
        (behind(0.5, 0.4, 0.502, metric="val_accuracy", mode="max"), False),
        (behind(0.5, 0.4, 0.6, metric="val_accuracy", mode="max"), True),
        (behind(2.0, 2.1, by="metric"), False),
        (behind(2.0, 2.1, by="neither"), True),
    ],
)
def test_a_run_that_did_no_better_than_fresh_weights_did_not_fall_behind(run: StoredRun, gains: bool) -> None:
    assert gained(run) == gains
    assert (ending_of(run) == RunStatus.BEHIND.ending) == gains


def test_endings_are_counted_the_most_frequent_first() -> None:
    runs = [behind(2.0, 2.1), behind(2.0, 1.0), behind(2.0, 1.1)]
    assert [n for _, n in endings_of(runs)] == [2, 1]
