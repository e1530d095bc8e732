"""What is read off the courses of runs, on hand-made rows and on a bowl with a closed form."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchscope.laboratory.readings import (
    DISTANCE,
    EndMetric,
    arm_of,
    end_metric_of,
    over_seeds,
    readings,
    with_distance,
)
from batchscope.laboratory.records import Length, Study, StudyQuestion, StudyRow
from batchscope.laboratory.studies.fixed_steps import STUDY
from batchscope.laboratory.study import study
from batchscope.store.records import Estimate
from batchscope.store.runs import read_runs

from .studies.bowl import Bowl


@pytest.fixture(scope="module")
def descent(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    folder = tmp_path_factory.mktemp("descent") / "out"
    asked = StudyQuestion(batch_sizes=(4, 20), lrs=(0.1,), seeds=(0, 1), length=Length(unit="steps", amount=20))
    return study(Bowl(), asked, out=folder, named=STUDY), folder


def test_a_course_is_the_evaluations_with_the_distances_of_their_steps(descent: tuple[Study, Path]) -> None:
    found, folder = descent
    for run in read_runs(folder):
        losses, distances = readings(found, run, "val_loss"), readings(found, run, DISTANCE)
        assert [r.step for r in losses] == [r.step for r in distances]
        assert [r.epoch for r in losses] == [r.step * run.config.batch_size / 40 for r in losses]
        for reading in distances:
            expected = math.sqrt(sum(10 * (1 - (1 - 0.1 * h) ** reading.step) ** 2 for h in (0.5, 0.2)))
            assert reading.value == pytest.approx(expected)
        assert readings(found, run, "no_such_metric") == ()


def test_the_mean_course_has_the_distance(descent: tuple[Study, Path]) -> None:
    found, folder = descent
    runs, arm = read_runs(folder), arm_of(found, 20, 0.1)
    assert arm is not None
    course = with_distance(found, runs, arm)
    assert course is not None
    own = [run for run in runs if run.config.batch_size == 20]
    values = np.array([[r.value for r in readings(found, run, DISTANCE)] for run in own])
    assert course.mean[DISTANCE] == pytest.approx(values.mean(0))
    assert course.low[DISTANCE] == pytest.approx(values.min(0))
    assert course.high[DISTANCE] == pytest.approx(values.max(0))
    bare = [replace(run, rows=tuple(r for r in run.rows if r["kind"] != "weights")) for run in runs]
    without = with_distance(found, bare, arm)
    assert without is not None
    assert DISTANCE not in without.mean


def test_a_number_of_every_run_that_did_not_diverge(descent: tuple[Study, Path]) -> None:
    found, folder = descent
    runs, arm = read_runs(folder), arm_of(found, 4, 0.1)
    assert arm is not None
    mean, by_seed = over_seeds(found, runs, arm, lambda run: float(run.config.seed))
    assert by_seed == {0: 0.0, 1: 1.0}
    assert (mean.value, mean.n) == (0.5, 2)
    lost = replace(found, rows=tuple(replace(row, status="diverged") if row.seed else row for row in found.rows))
    assert over_seeds(lost, runs, arm, lambda run: float(run.config.seed))[1] == {0: 0.0}
    assert arm_of(found, 4, 0.2) is None


@pytest.mark.parametrize(
    ("metrics", "metric", "expected"),
    [
        (("test_accuracy", "val_accuracy", "val_loss"), "val_loss", ("test_accuracy", True)),
        (("val_accuracy", "val_loss", "test_loss"), "val_loss", ("val_accuracy", True)),
        (("val_loss", "test_loss"), "val_loss", ("test_loss", False)),
        (("val_loss",), "val_loss", ("val_loss", False)),
    ],
)
def test_runs_are_compared_by_what_the_task_has(
    descent: tuple[Study, Path], metrics: tuple[str, ...], metric: str, expected: tuple[str, bool]
) -> None:
    values: dict[str, Any] = {f"final_{name}": 1.0 for name in metrics}
    row = StudyRow(
        run="", variant="", batch_size=4, lr=0.1, seed=0, steps=1, epochs=1.0, status="out-of-steps", values=values
    )
    outcome = end_metric_of(replace(descent[0], rows=(row,), metric=metric, larger_is_better=False))
    assert (outcome.name, outcome.larger_is_better) == expected


def test_a_loss_is_as_good_up_to_a_tenth() -> None:
    def by(low: float | None, high: float | None) -> Estimate:
        return Estimate(value=0.0, low=low, high=high, n=3, unit="", method="")

    loss = EndMetric(name="test_loss", larger_is_better=False)
    verdicts = [loss.as_good(by(*ends), 1.0) for ends in ((-0.5, 0.05), (0.2, 0.3), (0.05, 0.2), (None, None))]
    assert verdicts == [True, False, None, None]
    assert loss.as_good(by(-0.5, 0.05), None) is None
    assert (loss.margin, EndMetric(name="val_accuracy", larger_is_better=True).margin) == ("a tenth of it", "0.01")
