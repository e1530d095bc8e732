"""The benchmark of industrial trainings: what it counts, and that the committed figures follow from the raw rows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
RESULT = BENCHMARKS / "results" / "mlperf.json"
DOCUMENT = BENCHMARKS.parent / "docs" / "industrial.md"

pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="needs benchmarks/, which a source distribution lacks")


@pytest.fixture(scope="module")
def mlperf(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("mlperf")


def row(error: float, *, holds: bool = True, extrapolated: bool = False) -> dict[str, object]:
    predicted = [1.0 + error - 0.1, 1.0 + error, 1.0 + error + 0.1]
    return {"truth": 1.0, "predicted": predicted, "holds": holds, "trainings": 0.5, "extrapolated": extrapolated}


def test_errors_are_medians_and_intervals_are_counted(mlperf: ModuleType) -> None:
    found = mlperf.figures([row(0.02), row(-0.04), row(0.3, holds=False, extrapolated=True)])
    assert found["error"] == pytest.approx(math.expm1(0.04))
    assert found["extrapolated"] == pytest.approx(math.expm1(0.3))
    assert found["holds"] == pytest.approx(2 / 3)
    assert found["width"] == pytest.approx(math.exp(0.2))


def test_constants_are_chosen_on_four_workloads_and_reported_on_three(mlperf: ModuleType) -> None:
    found = mlperf.summary({name: [row(0.1, extrapolated=True)] for name in mlperf.EXAMPLES})
    assert len(found["chosen_on"]["workloads"]) == 4
    assert len(found["reported_on"]["workloads"]) == 3
    assert set(found["chosen_on"]["workloads"] + found["reported_on"]["workloads"]) == set(mlperf.EXAMPLES)


def test_the_committed_figures_follow_from_the_raw_rows_and_stand_in_the_document(mlperf: ModuleType) -> None:
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    assert result["environment"]
    assert mlperf.summary(result["rows"]) == result["figures"]["law"]
    assert mlperf.tables(result["figures"]).split("\n\n")[0] in DOCUMENT.read_text(encoding="utf-8")


def test_the_intervals_hold_over_the_workloads_and_on_each(mlperf: ModuleType) -> None:
    over = mlperf.summary(json.loads(RESULT.read_text(encoding="utf-8"))["rows"])["all"]
    assert over["holds"] >= 0.85
    assert over["least_holds"] >= 0.70
