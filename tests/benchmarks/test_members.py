"""The benchmark of members: a task with every member trains as the plain one, and as what people write by hand."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
RESULT = BENCHMARKS / "results" / "members.json"
NAMES = {path.stem for folder in (BENCHMARKS, BENCHMARKS / "real") for path in folder.glob("*.py")}
SAME = ("hand_against_plain", "neutral_against_plain", "at_work_against_hand", "averaged_against_hand")

pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="needs benchmarks/, which a source distribution lacks")


@pytest.fixture(scope="module")
def members() -> Iterator[ModuleType]:
    """The script, whose bare names and those that it imports are gone afterwards."""
    others = {each: sys.modules.pop(each) for each in NAMES if each in sys.modules}
    path = list(sys.path)
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("members")
    finally:
        sys.path[:] = path
        for each in NAMES & set(sys.modules):
            del sys.modules[each]
        sys.modules.update(others)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["tables", "sequences"])
def test_members_train_as_the_plain_task_and_as_by_hand(members: ModuleType, name: str) -> None:
    found = members.equality(members.TRAININGS[name], steps=3)
    assert found["moved"] > 1e-4
    for figure in SAME:
        assert found[figure] <= members.SAME, figure


@pytest.mark.shared
@pytest.mark.parametrize("name", ["tables", "sequences"])
def test_unequal_micro_batches_have_the_gradient_of_the_whole(members: ModuleType, name: str) -> None:
    found = members.accumulation(members.TRAININGS[name])
    assert len(set(found["terms"])) > 1
    assert found["weighted"] <= members.ACCUMULATED
    assert found["unweighted"] > 1e-3


@pytest.mark.shared
def test_each_way_is_timed_in_turn_and_the_first_time_left_out(members: ModuleType) -> None:
    now = iter(range(1000))
    found = members.step_times(members.TRAININGS["tables"], steps=1, repetitions=2, clock=lambda: float(next(now)))
    assert set(found["step_s"]) == {"hand", "plain", "neutral", "hand at work", "at work"}
    assert all(each == [1.0, 1.0] for each in found["step_s"].values())
    assert found["hand_over_plain"] == {"median": 1.0, "lowest": 1.0, "highest": 1.0}


def row(**changed: float) -> dict[str, Any]:
    times = {"hand_over_plain": {"median": 0.99}, "hand_over_members_at_work": {"median": changed.get("ratio", 1.0)}}
    equality = dict.fromkeys(SAME, 0.0) | {"at_work_against_hand": changed.get("difference", 0.0)}
    return {"times": times, "equality": equality, "accumulation": {"weighted": changed.get("error", 1e-16)}}


def test_the_worst_training_is_judged(members: ModuleType) -> None:
    met = {name: figure["met"] for name, figure in members.verdicts([row(), row()]).items()}
    assert all(met.values())
    found = members.verdicts([row(), row(difference=1e-3, ratio=0.5, error=1e-5)])
    missed = {name: figure["worst"] for name, figure in found.items() if not figure["met"]}
    assert missed == {
        "at_work_against_hand": 1e-3,
        "micro_batches_against_whole": 1e-5,
        "hand_over_members_at_work": 0.5,
    }


def test_models_of_another_make_differ_without_end(members: ModuleType) -> None:
    one = {"weight": torch.ones(2)}
    assert members.difference(one, {"weight": torch.tensor([1.0, 1.5])}) == 0.5
    assert members.difference(one, {}) == math.inf


def test_the_committed_result_holds_all_trainings_within_the_bounds(members: ModuleType) -> None:
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    assert [each["training"] for each in result["rows"]] == list(members.TRAININGS)
    assert result["verdicts"] == members.verdicts(result["rows"])
    assert all(result["verdicts"][name]["met"] for name in (*SAME, "micro_batches_against_whole"))
    assert result["environment"]["torch"]


def test_the_readme_states_the_committed_figures() -> None:
    rows = json.loads(RESULT.read_text(encoding="utf-8"))["rows"]
    text = " ".join((BENCHMARKS.parent / "README.md").read_text(encoding="utf-8").split())
    assert "bit by bit" in text
    assert all(row["equality"][name] == 0.0 for row in rows for name in SAME)
    unweighted = {row["training"]: row["accumulation"]["unweighted"] for row in rows}["sequences"]
    assert f"without `loss_weight` it is {100 * unweighted:.0f} % off on padded sequences" in text
    assert "within 1e-15 in float64" in text
    assert max(row["accumulation"]["weighted"] for row in rows) <= 1e-15
    plain, working = (
        sorted(1 / row["times"][name]["median"] for row in rows)
        for name in ("hand_over_plain", "hand_over_members_at_work")
    )
    assert f"a step takes {plain[0]:.2f} to {plain[-1]:.2f} times that of the loop by hand without members" in text
    assert f"and {working[0]:.2f} to {working[-1]:.2f} times with all of them at work" in text
