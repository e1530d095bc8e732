"""The whole answer: what a table does not say stays open, files and page are written, the command says it all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batchscope import fit
from batchscope.errors import OutOfMemory, TableError
from batchscope.hardware.profile import load_profile
from batchscope.report import build
from batchscope.search.question import CurrentRecipe
from batchscope.store.files import read_record
from batchscope.store.records import Plan, PlanStatus, Target
from batchscope.store.runs import read_runs

EXAMPLES = 4096
ROWS = ((16, 10.5, 2.56), (16, 11.25, 2.56), (64, 12.5, 0.8), (64, 11.75, 0.8), (256, 19.5, 0.36), (1024, None, 0.25))
"""Batch size, epochs to target, seconds an epoch."""


def write(path: Path, unit: str = "epochs", *, time: str = "epoch", lr: bool = True) -> Path:
    lines = [f"batch_size,{unit}_to_target" + (f",{time}_time_s" if time else "") + (",lr" if lr else "")]
    for size, epochs, seconds in ROWS:
        scale = {"epochs": 1.0, "steps": EXAMPLES / size, "examples": EXAMPLES}[unit]
        cells = [str(size), "" if epochs is None else repr(epochs * scale)]
        cells += [repr(seconds if time == "epoch" else seconds * size / EXAMPLES)] if time else []
        lines.append(",".join([*cells, *([repr(0.01 * size**0.5)] if lr else [])]))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write(tmp_path / "runs.csv")


@pytest.fixture
def plan(table: Path) -> Plan:
    return fit(table, examples=EXAMPLES)


def test_a_lack_of_memory_is_told_in_words(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("batchscope.search.table.fit.read_table", too_large)
    with pytest.raises(OutOfMemory, match=r"the memory of this machine is used up.*are free"):
        fit(table, examples=EXAMPLES)


@pytest.mark.parametrize(
    ("unit", "time"), [("epochs", "step"), ("steps", "step"), ("examples", "step"), ("examples", "epoch")]
)
def test_every_unit_gives_the_same_plan(tmp_path: Path, plan: Plan, unit: str, time: str) -> None:
    other = fit(write(tmp_path / "other.csv", unit, time=time), examples=EXAMPLES)
    assert plan.recipe is not None
    assert other.recipe is not None
    assert other.recipe.batch_size == plan.recipe.batch_size
    assert other.recipe.steps == pytest.approx(plan.recipe.steps, abs=1)
    assert plan.predicted is not None
    assert other.predicted is not None
    for name in ("steps_to_target", "time_to_target_s", "examples_to_target"):
        theirs, ours = (getattr(p, name) for p in (other.predicted, plan.predicted))
        assert (theirs.low, theirs.value, theirs.high) == pytest.approx((ours.low, ours.value, ours.high), rel=1e-6)


def test_the_answer_is_whole(plan: Plan) -> None:
    assert plan.status in (PlanStatus.OK, PlanStatus.EXTRAPOLATED)
    recipe, predicted = plan.recipe, plan.predicted
    assert recipe is not None
    assert predicted is not None
    assert recipe.lr == pytest.approx(0.01 * recipe.batch_size**0.5, rel=0.01)
    assert recipe.epochs == pytest.approx(recipe.steps * recipe.batch_size / EXAMPLES, rel=0.02)
    assert recipe.early_stop.patience is not None
    assert recipe.early_stop.patience >= 1
    value, time, step = (
        e.value for e in (predicted.steps_to_target, predicted.time_to_target_s, predicted.step_time_s)
    )
    assert value is not None
    assert time is not None
    assert step is not None
    assert time == pytest.approx(value * step, rel=0.05)
    assert (plan.table, plan.search.runs, plan.search.seconds) == ("runs.csv", len(ROWS), 0.0)
    assert {e.tag for e in plan.evidence} == {"measured", "fitted", "assumption"}
    assert any("grow as the batch size to the power 0.5" in e.statement for e in plan.evidence)
    assert plan.environment.torch is None
    assert plan.measured.largest_micro_batch_size.value is None


def test_a_measured_recipe_says_what_its_runs_took(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("batch_size,steps_to_target,step_time_s\n16,900,1\n64,250,1.1\n64,270,1.1\n256,240,2\n")
    plan = fit(path, max_batch_size=64)
    assert plan.recipe is not None
    assert plan.recipe.batch_size == 64
    assert plan.verified is not None
    assert plan.verified.steps == pytest.approx(260)
    assert plan.verified.time_s == pytest.approx(286)


def test_what_the_table_does_not_say_stays_open(tmp_path: Path) -> None:
    plan = fit(write(tmp_path / "runs.csv", "steps", time="", lr=False), objective="examples", out=tmp_path / "out")
    recipe, predicted = plan.recipe, plan.predicted
    assert recipe is not None
    assert predicted is not None
    assert (recipe.lr, recipe.epochs, recipe.steps_per_epoch) == (None, None, None)
    assert (recipe.early_stop.best_epoch, recipe.early_stop.patience) == (None, None)
    assert predicted.step_time_s.value is predicted.time_to_target_s.value is None
    assert predicted.examples_to_target.value is not None
    assert plan.measured.hardware_knee.value is None
    assert plan.bench is None
    assert plan.curves is not None
    assert not plan.curves.time_to_target_s.batch_size
    assert not plan.curves.lr.batch_size
    assert any("they are not known" in e.statement for e in plan.evidence)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "The table has no learning rates." in page
    assert "Nothing was measured here" in page


def test_without_learning_rates_no_batch_size_is_offered_twice(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    rows = [f"{b},{200 * (1 + 15 / b):.5g},{0.01 * (1 + b / 20):.5g}" for b in (8, 64, 512)]
    path.write_text("\n".join(["batch_size,steps_to_target,step_time_s", *rows]))
    plan = fit(path)
    assert plan.recipe is not None
    assert plan.recipe.lr is None
    sizes = [plan.recipe.batch_size, *(a.recipe.batch_size for a in plan.alternatives)]
    assert len(sizes) == len(set(sizes)) == 2


def test_without_any_time_only_examples_can_be_saved(tmp_path: Path) -> None:
    path = write(tmp_path / "runs.csv", "steps", time="")
    with pytest.raises(TableError, match=r"runs\.csv says nothing of time.*--hardware.*--objective examples"):
        fit(path)


def test_missing_times_follow_from_the_others(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    rows = "16,900,0.0116\n64,300,\n256,180,0.0356\n1024,160,0.1124\n"
    path.write_text(f"batch_size,steps_to_target,step_time_s\n{rows}")
    plan = fit(path)
    assert any(e.statement == "step times at 64 follow from the others" for e in plan.evidence)
    assert plan.recipe is not None
    assert plan.recipe.batch_size in (48, 64, 96, 128)


def test_a_profile_answers_for_another_machine(tmp_path: Path, profile: Path) -> None:
    path = write(tmp_path / "runs.csv")
    here, there = fit(path, examples=EXAMPLES), fit(path, examples=EXAMPLES, profile=load_profile(profile))
    assert there.predicted is not None
    assert there.recipe is not None
    assert there.predicted.step_time_s.value == pytest.approx(1e-3 * (1 + there.recipe.batch_size / 64), rel=0.05)
    assert any("--hardware has others" in note for note in there.notes)
    assert here.recipe is not None
    assert there.recipe.batch_size <= here.recipe.batch_size


def test_the_current_recipe_is_kept_unless_the_gain_is_clear(table: Path, plan: Plan) -> None:
    assert plan.recipe is not None
    best = plan.recipe.batch_size
    same = fit(table, examples=EXAMPLES, current=best)
    assert same.status is PlanStatus.KEEP_CURRENT
    worse = fit(table, examples=EXAMPLES, current=16)
    assert worse.status is plan.status
    assert worse.current is not None
    assert (worse.current.batch_size, worse.current.lr) == (16, pytest.approx(0.04))
    assert "90 % credible interval" in worse.message
    other = fit(table, examples=EXAMPLES, current=CurrentRecipe(batch_size=16, lr=0.5))
    assert any("learning rate 0.5 is not the one of the table" in note for note in other.notes)


def test_the_folder_holds_the_plan_the_page_and_the_runs(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = fit(table, examples=EXAMPLES, out=out, target=Target.parse("val_accuracy>=0.9"))
    kept = read_record(out / "plan.json", Plan)
    assert kept.recipe == plan.recipe
    runs = read_runs(out)
    assert len(runs) == len(ROWS)
    page = build(kept, runs)
    assert page == (out / "report.html").read_text()
    for part in ("val_accuracy&gt;=0.9", "All 6 runs", "runs.csv holds 6 runs", "the hardware of runs.csv"):
        assert part in page
    for absent in ("Loss curves", "noise scale along training"):
        assert absent not in page
    assert fit(table, examples=EXAMPLES, out=out, target=Target.parse("val_accuracy>=0.9")).recipe == plan.recipe


def test_a_refusal_has_a_page_too(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("batch_size,steps_to_target,step_time_s\n64,500,0.01\n128,,0.01\n")
    plan = fit(path, out=tmp_path / "out")
    assert (plan.status, plan.recipe) == (PlanStatus.INSUFFICIENT_DATA, None)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Safe choice: 64" in page
    assert "safe choice" in page


# --- the command ----------------------------------------------------------------------------------------------------


def command(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-X", "importtime", "-m", "batchscope", "fit", *map(str, words)]
    return subprocess.run(program, capture_output=True, text=True, timeout=120, check=False, cwd=folder)


def test_the_command_prints_one_object_and_never_imports_torch(table: Path, tmp_path: Path) -> None:
    ended = command(tmp_path, table, "--examples", str(EXAMPLES), "--json")
    assert ended.returncode == 0, ended.stderr
    answer: dict[str, Any] = json.loads(ended.stdout, parse_constant=pytest.fail)
    assert (
        answer["recipe"]["batch_size"]
        == json.loads((tmp_path / "batchscope-runs/runs/plan.json").read_text())["recipe"]["batch_size"]
    )
    imported = {
        line.rpartition("|")[2].strip() for line in ended.stderr.splitlines() if line.startswith("import time:")
    }
    assert "numpy" in imported
    assert "torch" not in imported


def test_the_command_in_words(cli: Any, table: Path) -> None:
    ended = cli("fit", table, "--examples", str(EXAMPLES), "--current", "batch_size=16")
    assert ended.status == 0
    for part in ("Train with batch size", "time to target", "follows from the 6 runs in runs.csv", "report.html"):
        assert part in ended.out
    rebuilt = cli("report batchscope-runs/runs")
    assert rebuilt.status == 0
    assert "6" in cli("runs batchscope-runs/runs --json").out


def test_a_refusal_ends_with_three_and_a_mistake_with_two(cli: Any, tmp_path: Path, table: Path) -> None:
    few = tmp_path / "few.csv"
    few.write_text("batch_size,steps_to_target,step_time_s\n64,500,0.01\n")
    refused = cli("fit", few, "--json")
    assert (refused.status, refused.answer["status"], refused.answer["recipe"]) == (3, "insufficient-data", None)
    missing = cli("fit", table)
    assert missing.status == 2
    assert "add --examples N" in missing.err
    nothing = cli("fit nothing.csv --json")
    assert (nothing.status, nothing.answer["error"]) == (2, "TableError")
    assert cli("fit", table, "--examples", "4096", "--current", "lr=1").status == 2


def test_the_command_takes_columns_and_a_target(cli: Any, tmp_path: Path) -> None:
    curves = tmp_path / "curves.csv"
    rows = [f"{b},{at},{v}" for b, s in ((16, 900), (64, 300), (256, 200)) for at, v in ((s / 9, 0.9), (s, 0.2))]
    curves.write_text("config.batch_size,_step,eval/loss\n" + "\n".join(rows))
    asked = ("fit", curves, "--objective", "examples", "--target", "val_loss<=0.2", "--json")
    ended = cli(*asked)
    assert ended.status == 0
    assert "val_loss is eval/loss" in " ".join(ended.answer["notes"])
    chosen = cli(*asked, "--column", "batch_size=config.batch_size", "--column", "val_loss=eval/loss")
    assert chosen.answer["recipe"] == ended.answer["recipe"]
    wrong = cli(*asked, "--column", "batch_size")
    assert wrong.status == 2
    assert "write ROLE=NAME" in wrong.err


def test_a_large_table_says_what_it_is_doing(tmp_path: Path) -> None:
    said: list[str] = []
    path = tmp_path / "runs.csv"
    rows = (f"{b},{1000 + 16 * k // b},{k}" for k in range(10_002) for b in [(16, 64, 256)[k % 3]])
    path.write_text("batch_size,steps_to_target,seed\n" + "\n".join(rows))
    plan = fit(path, objective="examples", out=tmp_path / "out", tell=said.append)
    assert said == ["fitting the law to 10,002 runs", "writing the results"]
    assert plan.search.runs == 10_002
    assert len(read_runs(tmp_path / "out")) == 100
    assert any("100 of 10,002 runs" in note for note in plan.notes)
