"""`--at` for a table: far outside, above the data set or the memory, one size, sizes that failed, other targets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from batchscope import fit
from batchscope.errors import TableError
from batchscope.report import build
from batchscope.store.records import HardwareProfile, Plan, PlanStatus, WhatIf

EXAMPLES = 50_000
PROFILE = HardwareProfile(
    name="small",
    step_time_s=((1, 1e-3), (64, 2e-3), (512, 9e-3)),
    peak_memory_bytes=((1, 1e6), (64, 64e6), (512, 512e6)),
    capacity_bytes=300_000_000,
)


def steps_at(size: int) -> float:
    return 100 * (1 + 300 / size)


def write(
    folder: Path, sizes: tuple[int, ...] = (32, 128, 512), *, failed: tuple[int, ...] = (), extra: str = ""
) -> Path:
    rng = np.random.default_rng(0)
    lines = ["batch_size,steps_to_target,lr" + (",target" if extra else "")]
    for size in (*sizes, *failed):
        for number in range(3):
            cell = "" if size in failed else f"{steps_at(size) * np.exp(0.03 * rng.standard_normal()):.1f}"
            goal = ("0.75" if number else extra) if extra else ""
            lines.append(f"{size},{cell},{0.01 * size**0.5:.4g}" + (f",{goal}" if extra else ""))
    path = folder / "runs.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def answers(plan: Plan) -> dict[int, WhatIf]:
    return {answer.batch_size: answer for answer in plan.what_if}


def test_the_truth_lies_in_the_interval_and_the_learning_rate_continues_those_of_the_table(tmp_path: Path) -> None:
    for size, answer in answers(fit(write(tmp_path), objective="examples", at=(16, 64, 256, 1024))).items():
        assert answer.predicted is not None
        steps = answer.predicted.steps_to_target
        assert (steps.low or 0) <= steps_at(size) <= (steps.high or np.inf)
        assert answer.lr == pytest.approx(0.01 * size**0.5, rel=0.02)


def test_far_outside_and_above_the_data_set_and_the_memory(tmp_path: Path) -> None:
    plan = fit(write(tmp_path), examples=EXAMPLES, profile=PROFILE, at=(100_000, 512, 1_073_741_789))
    found = answers(plan)
    assert "examples fit into memory at once, so it is counted in" in found[512].doubt
    assert "far outside, 200 times the largest" in found[100_000].doubt
    assert "larger than the training set (50,000 examples)" in found[100_000].doubt
    assert found[1_073_741_789].doubt
    for answer in plan.what_if:
        assert answer.predicted is not None


def test_sizes_that_failed_and_a_table_in_which_all_did(tmp_path: Path) -> None:
    plan = fit(write(tmp_path, failed=(2048,)), objective="examples", at=(2048,))
    assert "3 of 3 runs at it never reached the target" in answers(plan)[2048].doubt
    none = fit(write(tmp_path, (), failed=(32, 64)), objective="examples", at=(32, 128))
    assert none.status is PlanStatus.TARGET_NOT_REACHED
    assert none.message == "none of the 6 runs in runs.csv reached the target; add runs that did"
    assert {answer.doubt for answer in none.what_if} == {"no run reached the target"}


def test_one_size_says_so_once_and_answers_with_its_doubt(tmp_path: Path) -> None:
    plan = fit(write(tmp_path, (32,)), objective="examples", at=(32, 64))
    assert plan.status is PlanStatus.INSUFFICIENT_DATA
    assert plan.message.startswith(
        "only batch size 32 reached the target: one size cannot tell what another would need"
    )
    found = answers(plan)
    assert found[32].doubt == ""
    assert "only batch size 32 reached the target: how others compare with it is assumed" in found[64].doubt


@pytest.mark.parametrize("goal", ["0.76", "val_loss"])
def test_targets_that_differ_are_refused_with_the_lines(tmp_path: Path, goal: str) -> None:
    with pytest.raises(TableError, match=rf"runs.csv line 3: target is '0.75', and in line 2 '{goal}'.*one target"):
        fit(write(tmp_path, extra=goal), objective="examples")
    assert fit(write(tmp_path, extra="0.750"), objective="examples").recipe is not None  # the advice followed


def test_the_command_the_page_and_the_folder_tell_it(tmp_path: Path) -> None:
    path, out = write(tmp_path), tmp_path / "out"
    base = [sys.executable, "-m", "batchscope", "fit", str(path), "--objective", "examples", "--out", str(out)]
    subprocess.run(base, check=True, capture_output=True)
    told = subprocess.run([*base, "--at", "64,8192"], check=True, capture_output=True, text=True).stdout
    assert "At 8,192: Far outside, 16 times the largest batch size that reached the target (512)" in told
    page = (out / "report.html").read_text()
    assert "At other batch sizes" in page
    assert "16 times the largest batch size that reached the target" in page
    data = json.loads((out / "plan.json").read_text())
    assert [answer["batch_size"] for answer in data["what_if"]] == [64, 8192]
    ended = subprocess.run([*base, "--at", "64,x"], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "a batch size of --at is x" in ended.stderr


def test_a_plan_without_the_question_has_no_such_section(tmp_path: Path) -> None:
    plan = fit(write(tmp_path), objective="examples")
    assert plan.what_if == ()
    assert "At other batch sizes" not in build(plan, ())
