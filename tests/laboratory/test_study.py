"""A study through the command and the library: its counts, its numbers against closed forms, and what stops it."""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import TensorDataset

from batchscope.errors import TargetError, UsageError
from batchscope.laboratory.files import read_study, rebuilt_study
from batchscope.laboratory.prepare import step_memory
from batchscope.laboratory.records import Arm, Finding, Length, NamedStudy, Study, StudyQuestion, grid
from batchscope.laboratory.study import study
from batchscope.probes.train_part import TrainPart
from batchscope.store.runs import read_runs
from batchscope.tasks.loading import load_task
from batchscope.tasks.workload import Workload
from batchscope.testing.fake_device import FakeDevice

Cli = Callable[..., Any]

EXAMPLES = 40
CURVATURE = 0.5


class Point(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, dtype=torch.float64))
        self.start = self.w.detach().clone()


@dataclass
class Quadratic:
    """Loss ½ h ‖w‖²: gradient descent is `w ← (1 - lr h) w`, from a start that depends on the seed."""

    name: str = "quadratic"

    def model(self) -> nn.Module:
        return Point()

    def train_data(self) -> TensorDataset:
        return TensorDataset(torch.zeros(EXAMPLES, 1, dtype=torch.float64))

    def loss(self, model: Any, batch: Any) -> Tensor:
        return (0.5 * CURVATURE * (model.w**2).sum() + batch[0].sum(1)).mean()

    def optimizer(self, params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        return SGD(params, lr=lr)

    def evaluate(self, model: Any) -> Mapping[str, float]:
        loss = 0.5 * CURVATURE * float((model.w**2).sum())
        return {"val_loss": loss, "score": -loss, "test_loss": 2 * loss, "start": float((model.start**2).sum())}


def question(**changes: Any) -> StudyQuestion:
    values: dict[str, Any] = {
        "batch_sizes": (4, 10),
        "lrs": (0.1, 0.5),
        "seeds": (0, 1),
        "length": Length(unit="epochs", amount=3),
    }
    return StudyQuestion(**{**values, **changes})


def made(tmp_path: Path, asked: StudyQuestion, task: Any = None, **how: Any) -> Study:
    return study(task or Quadratic(), asked, out=tmp_path / "out", **how)


# --- against closed forms -----------------------------------------------------------------------------------------


def test_a_quadratic_is_on_its_closed_form(tmp_path: Path) -> None:
    found = made(tmp_path, question())
    assert len(found.rows) == found.planned == 2 * 2 * 2
    assert found.complete
    for row in found.rows:
        steps = round(3 * EXAMPLES / row.batch_size)
        assert (row.steps, row.epochs, row.status) == (steps, steps * row.batch_size / EXAMPLES, "out-of-steps")
        start = row.values["final_start"]
        assert start is not None
        expected = 0.5 * CURVATURE * start * (1 - row.lr * CURVATURE) ** (2 * steps)
        for name in ("final_val_loss", "best_val_loss", "final_train_loss_eval", "best_train_loss_eval"):
            assert row.values[name] == pytest.approx(expected, rel=1e-6)
        assert row.values["final_test_loss"] == pytest.approx(2 * expected, rel=1e-6)
        assert row.values["best_epoch"] == pytest.approx(3.0)
        assert row.values["final_loss_ratio"] == pytest.approx(1.0)
        assert row.values["final_accuracy_gap"] is None


def test_a_seed_draws_the_same_weights_in_every_arm(tmp_path: Path) -> None:
    starts: dict[int, set[float | None]] = {}
    for row in made(tmp_path, question()).rows:
        starts.setdefault(row.seed, set()).add(row.values["final_start"])
    assert [len(values) for values in starts.values()] == [1, 1]
    assert starts[0] != starts[1]


def test_the_best_rate_has_the_least_mean_and_the_findings_say_so(tmp_path: Path) -> None:
    found = made(tmp_path, question())
    assert {(s.batch_size, s.lr) for s in found.summary if s.best_lr} == {(4, 0.5), (10, 0.5)}
    statement = found.findings[0].statement
    assert statement.startswith("batch size 4 at learning rate 0.5 has the best val_loss")
    assert set(found.findings[0].runs) == {r.run for r in found.rows if (r.batch_size, r.lr) == (4, 0.5)}
    assert any("test_loss" in f.statement and "looked at once" in f.source for f in found.findings)
    assert any("an end of the grid" in f.statement for f in found.findings)


@pytest.mark.parametrize(("metric", "larger"), [("score", True), ("score:max", True), ("val_loss", False)])
def test_choices_can_be_made_by_another_metric(tmp_path: Path, metric: str, larger: bool) -> None:
    found = made(tmp_path, question(metric=metric, seeds=(0,)))
    assert (found.metric, found.larger_is_better) == (metric.partition(":")[0], larger)
    assert {s.lr for s in found.summary if s.best_lr} == {0.5}


@pytest.mark.parametrize(
    ("metric", "said"), [("loss", "among what the task evaluates"), ("start", "start:min or start:max")]
)
def test_a_metric_that_cannot_be_used_is_refused(tmp_path: Path, metric: str, said: str) -> None:
    with pytest.raises(TargetError, match=said):
        made(tmp_path, question(metric=metric))


def test_runs_that_diverge_have_null_metrics_and_their_rate_is_not_chosen(tmp_path: Path) -> None:
    found = made(tmp_path, question(lrs=(0.1, 1e30), batch_sizes=(4,)))
    lost = [row for row in found.rows if row.lr == 1e30]
    assert {row.status for row in lost} == {"diverged"}
    metrics = [name for name in lost[0].values if name.startswith(("final_", "best_"))]
    assert metrics
    assert all(row.values[name] is None for row in lost for name in metrics)
    assert [s.lr for s in found.summary if s.best_lr] == [0.1]
    assert [s.diverged for s in found.summary] == [0, 2]
    assert "2 of 2 at batch size 4 at learning rate 1e30" in found.findings[-1].statement
    json.dumps(found.answer(), allow_nan=False)


# --- how long a run is --------------------------------------------------------------------------------------------


def test_fixed_steps_are_the_same_for_every_batch_size(tmp_path: Path) -> None:
    found = made(tmp_path, question(length=Length(unit="steps", amount=24), lrs=(0.1,)))
    assert {(row.steps, row.epochs) for row in found.rows} == {(24, 2.4), (24, 6.0)}
    for run in read_runs(tmp_path / "out"):
        assert len([r for r in run.rows if r["kind"] == "evaluation"]) == 25


def test_fixed_time_ends_by_the_clock(tmp_path: Path) -> None:
    found = made(tmp_path, question(length=Length(unit="seconds", amount=0.05), lrs=(0.1,), seeds=(0,)))
    for row in found.rows:
        assert row.status == "out-of-time"
        assert (row.values["train_time_s"] or 0.0) >= 0.05
    assert found.complete


class Scripted(Quadratic):
    """A validation loss that follows a script, one value an epoch of 4 steps."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.values = values

    def evaluate(self, model: Any) -> Mapping[str, float]:
        epoch = min(len(self.values) - 1, round(float(model.steps) / 4))
        return {"val_loss": self.values[epoch]}

    def model(self) -> nn.Module:
        model = Point()
        model.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        return model

    def loss(self, model: Any, batch: Any) -> Tensor:
        model.steps += model.training
        return super().loss(model, batch)


def test_patience_ends_a_run_and_the_best_epoch_is_kept(tmp_path: Path) -> None:
    values = [5.0, 4.0, 3.0, 3.5, 2.0, 2.1, 2.2, 2.3, 1.0, 0.5]
    length = Length(unit="until-stopped", amount=100, patience=3)
    asked = question(batch_sizes=(10,), lrs=(0.1,), seeds=(0,), length=length)
    row = made(tmp_path, asked, Scripted(values)).rows[0]
    assert (row.status, row.steps, row.epochs) == ("stopped-early", 28, 7.0)
    assert (row.values["best_epoch"], row.values["best_val_loss"], row.values["final_val_loss"]) == (4.0, 2.0, 2.3)


def test_a_longer_patience_waits_and_the_most_epochs_bound_it(tmp_path: Path) -> None:
    values = [5.0, 4.0, 3.0, 3.5, 2.0, 2.1, 2.2, 2.3, 1.0, 1.5]
    length = Length(unit="until-stopped", amount=11, patience=4)
    asked = question(batch_sizes=(10,), lrs=(0.1,), seeds=(0,), length=length)
    row = made(tmp_path, asked, Scripted(values)).rows[0]
    assert (row.status, row.epochs, row.values["best_epoch"]) == ("out-of-steps", 11.0, 8.0)


# --- stopped, and going on ----------------------------------------------------------------------------------------

COMMAND = "study digits --batch-sizes 64,256 --lrs 0.05,0.2 --seeds 2 --epochs 3 --out out"


def files_of(out: Path) -> dict[Path, tuple[int, bytes]]:
    found = (path for path in out.glob("runs/*/*") if path.is_file())
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def without_clock(answer: Any) -> Any:
    """Rows and summary without what the clock says."""
    clocks = ("step_time_s", "epoch_time_s", "train_time_s")
    return [[{k: v for k, v in row.items() if k not in clocks} for row in answer[part]] for part in ("rows", "summary")]


def test_a_killed_study_goes_on_and_repeats_nothing(cli: Cli) -> None:
    words = [sys.executable, "-m", "batchscope", *COMMAND.split()]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        limit = time.monotonic() + 100
        while len(list(Path("out").glob("runs/*/result.json"))) < 3 and process.poll() is None:
            assert time.monotonic() < limit
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    finished = {path.parent for path in Path("out").glob("runs/*/result.json")}
    assert 3 <= len(finished) <= 8
    before = {path: state for path, state in files_of(Path("out")).items() if path.parent in finished}
    resumed = cli(f"{COMMAND} --json")
    assert resumed.status == 0, resumed.err
    after = files_of(Path("out"))
    assert {path: after[path] for path in before} == before
    whole = cli(f"{COMMAND.replace('--out out', '--out whole')} --json")
    assert len(resumed.answer["rows"]) == 8
    by_run = [sorted(a["rows"], key=lambda row: row["run"]) for a in (resumed.answer, whole.answer)]
    assert without_clock({"rows": by_run[0], "summary": []}) == without_clock({"rows": by_run[1], "summary": []})
    again = cli(f"{COMMAND} --json")
    assert again.answer == resumed.answer
    assert "run 1" not in again.err


def test_a_budget_leaves_whole_runs_and_says_how_to_go_on(tmp_path: Path) -> None:
    cut = made(tmp_path, question(), budget_s=1e-6)
    assert (cut.complete, cut.rows) == (False, ())
    assert "0 of 8 runs were made" in cut.findings[0].statement
    assert made(tmp_path, question()).complete


def test_the_clock_stops_a_run_between_two_steps(tmp_path: Path) -> None:
    asked = question(batch_sizes=(1,), lrs=(0.1,), seeds=(0,), length=Length(unit="epochs", amount=10**6))
    started = time.monotonic()
    cut = made(tmp_path, asked, budget_s=2.0)
    assert time.monotonic() - started < 30
    assert not cut.complete


# --- the contract -------------------------------------------------------------------------------------------------


def test_the_json_is_what_scripts_rely_on(cli: Cli) -> None:
    ended = cli(f"{COMMAND} --json")
    assert ended.status == 0
    answer = ended.answer
    assert list(answer) == ["study", "task", "rows", "summary", "findings"]
    assert (answer["study"], answer["task"], len(answer["rows"]), len(answer["summary"])) == ("sweep", "digits", 8, 4)
    metrics = [f"{part}_{what}" for part in ("val", "test") for what in ("loss", "accuracy")]
    names = {"batch_size", "lr", "seed", "steps", "epochs", "status", "run"}
    names |= {f"{when}_{metric}" for when in ("final", "best") for metric in metrics}
    names |= {"final_train_accuracy_eval", "final_train_loss_eval", "best_epoch", "step_time_s", "epoch_time_s"}
    for row in answer["rows"]:
        assert names <= set(row)
        assert not any(isinstance(value, dict | list) for value in row.values())
        assert Path("out/runs", row["run"], "result.json").exists()
        assert row["final_accuracy_gap"] == pytest.approx(row["final_train_accuracy_eval"] - row["final_test_accuracy"])
        assert row["best_loss_ratio"] == pytest.approx(row["best_val_loss"] / row["best_train_loss_eval"])
    for entry in answer["summary"]:
        assert set(entry["best_val_loss"]) == {"value", "low", "high", "n", "unit", "method"}
        own = [r for r in answer["rows"] if (r["batch_size"], r["lr"]) == (entry["batch_size"], entry["lr"])]
        assert entry["best_val_loss"]["value"] == pytest.approx(np.mean([r["best_val_loss"] for r in own]))
    assert all({"statement", "tag", "source", "effect", "runs"} <= set(f) for f in answer["findings"])
    stored = json.loads(Path("out/study.json").read_text(encoding="utf-8"))
    assert {name: stored[name] for name in answer} == answer


def test_every_run_is_the_same_for_the_same_seeds(tmp_path: Path) -> None:
    task = load_task("digits")
    asked = question(batch_sizes=(128,), length=Length(unit="epochs", amount=1))
    first, second = (study(task, asked, out=tmp_path / name) for name in ("a", "b"))
    values = [[(r.run, r.values["final_val_loss"]) for r in found.rows] for found in (first, second)]
    assert values[0] == values[1]


def test_the_page_can_be_rebuilt_from_the_files(cli: Cli) -> None:
    cli(COMMAND)
    page = Path("out/report.html")
    before = page.read_text(encoding="utf-8")
    for section in ("findings", "sizes", "curves", "epochs", "rates", "gap", "costs", "runs", "conditions"):
        assert f'<section id="{section}">' in before
    assert cli("report out").status == 0
    assert page.read_text(encoding="utf-8") == before
    stored = json.loads(Path("out/study.json").read_text(encoding="utf-8"))
    del stored["page"]
    assert read_study(Path("out")).answer() == stored


def test_a_dry_run_trains_nothing(cli: Cli) -> None:
    ended = cli(f"{COMMAND} --dry-run")
    assert ended.status == 0
    assert "8 runs at the speed that was just measured" in ended.out
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("study digitz", r"no study 'digitz'; did you mean 'digits'\?.*path/to/file.py:factory"),
        ("study digits arrays", "there is no study 'digits'"),
        ("study digits", "--batch-sizes is missing"),
        ("study digits --batch-sizes 8", "--lrs is missing"),
        ("study digits --batch-sizes 8,x --lrs 1", "'x', which is not a whole number"),
        ("study digits --batch-sizes 8,8 --lrs 1", "--batch-sizes has 8 twice"),
        ("study digits --batch-sizes 0 --lrs 1", "at least one example"),
        ("study digits --batch-sizes 8 --lrs -1", "positive number"),
        ("study digits --batch-sizes 8 --lrs nan", "positive number"),
        ("study digits --batch-sizes 8 --lrs 1 --seeds 0", "--seeds 0 makes no sense"),
        ("study digits --batch-sizes 8 --lrs 1 --epochs 0", "0 epochs makes no sense"),
        ("study digits --batch-sizes 8 --lrs 1 --epochs 3 --steps 4", "--steps and --epochs both say"),
        ("study digits --batch-sizes 8 --lrs 1 --time 0s", "--time '0s' is not a length of time"),
        ("study digits --batch-sizes 8 --lrs 1 --patience 3", "--patience 3 belongs to --until-stopped"),
        ("study digits --batch-sizes 8 --lrs 1 --metric test_loss", "test metrics are reported only"),
        ("study digits --batch-sizes 8 --lrs 1 --metric f1", "not among what the task evaluates"),
        ("study digits --batch-sizes 8,2000 --lrs 1", "2000 is larger than the training set of 1437"),
        ("study digits --batch-sizes 8,1024 --lrs 1 --memory-limit 200KB", "--batch-sizes of at most 8"),
        ("study digits --batch-sizes 8 --lrs 1 --time 1s --schedule cosine", "give --epochs or --steps"),
    ],
)
def test_what_makes_no_sense_is_one_message(cli: Cli, words: str, said: str) -> None:
    ended = cli(words)
    assert (ended.status, ended.out) == (2, "")
    messages = [line for line in ended.err.splitlines() if line.startswith("batchscope: ")]
    assert len(messages) == 1, ended.err
    assert re.search(said, messages[0]), messages[0]


# --- memory, and the training part --------------------------------------------------------------------------------


def test_the_memory_of_a_step_is_foreseen_before_it_is_tried() -> None:
    device = FakeDevice(peak_bytes=lambda size: 1000.0 + 10 * size, capacity=2**40)
    assert step_memory(device.workload(examples=1000), [8, 64]) == ((8, 1080.0), (64, 1640.0))
    device = FakeDevice(peak_bytes=lambda size: 1000.0 + 10 * size, capacity=2**40)
    with pytest.raises(UsageError, match=r"batch size 512 needs about .* of at most 64"):
        step_memory(device.workload(examples=1000), [8, 64, 512], 2000)
    assert 512 not in device.sizes


def test_the_training_part_is_the_mean_loss_in_evaluation_mode() -> None:
    task: Any = load_task("digits").task
    workload = Workload(task)
    model = workload.model(0)
    inputs, targets = task.parts["train"]
    with torch.no_grad():
        outputs = model.eval()(inputs)
    model.train()
    found = TrainPart(workload).measure(model)
    expected = nn.functional.cross_entropy(outputs, targets)
    assert found["train_loss_eval"] == pytest.approx(float(expected), rel=1e-5)
    assert found["train_accuracy_eval"] == pytest.approx(float((outputs.argmax(1) == targets).double().mean()))
    assert model.training


def test_a_loss_that_refuses_evaluation_mode_is_left_out_and_said(tmp_path: Path) -> None:
    class Refuses(Quadratic):
        def loss(self, model: Any, batch: Any) -> Tensor:
            if not model.training:
                raise RuntimeError("no targets in evaluation mode")
            return super().loss(model, batch)

    found = made(tmp_path, question(lrs=(0.1,), seeds=(0,)), Refuses())
    assert any("no targets in evaluation mode" in note for note in found.notes)
    assert all("final_train_loss_eval" not in row.values for row in found.rows)
    assert found.rows[0].values["final_loss_ratio"] is None


# --- named studies ------------------------------------------------------------------------------------------------


def test_a_named_study_makes_its_own_runs_keeps_weights_and_notes(tmp_path: Path) -> None:
    def measure_all(laboratory: Any) -> None:
        arm = laboratory.arms[0]
        first = laboratory.run(arm, 0, keep=(0, 1, "best", "last"))
        start, end = laboratory.weights(first, 0), laboratory.weights(first, "last")
        double = laboratory.changed(optimizer=lambda params, lr: SGD(params, lr=2 * lr))
        other = laboratory.run(
            Arm(batch_size=10, lr=0.1, length=arm.length, variant="twice the rate"), 0, workload=double
        )
        assert other is not None
        assert torch.equal(laboratory.model(end).w, end["w"])
        if laboratory.read_note("moved") is None:
            laboratory.note("moved", float((start["w"] - end["w"]).norm()))

    def conclude(study: Study, runs: Any) -> list[Finding]:
        moved = study.measurements["moved"]
        return [Finding(statement=f"the weights moved by {moved:.3f}", tag="measured", source="this test")]

    def arms(asked: StudyQuestion, examples: int) -> list[Arm]:
        return list(grid(asked, examples))[:1]

    named = NamedStudy(
        name="mine", summary="", source="", question=question(), arms=arms, measure_all=measure_all, conclude=conclude
    )
    asked = question(batch_sizes=(10,), lrs=(0.1,), seeds=(0,))
    found = made(tmp_path, asked, named=named)
    assert [row.variant for row in found.rows] == ["", "twice the rate"]
    shrink = [(1 - f * 0.1 * CURVATURE) ** 12 for f in (1, 2)]
    start = found.rows[0].values["final_start"] or 0.0
    for row, factor in zip(found.rows, shrink, strict=True):
        assert row.values["final_val_loss"] == pytest.approx(0.5 * CURVATURE * start * factor**2, rel=1e-6)
    assert found.measurements == {"moved": pytest.approx(math.sqrt(start) * (1 - shrink[0]), rel=1e-6)}
    assert found.findings[0].statement.startswith("the weights moved by")
    before = files_of(tmp_path / "out")
    assert made(tmp_path, asked, named=named).answer() == found.answer()
    assert files_of(tmp_path / "out") == before
    assert "twice the rate" in rebuilt_study(tmp_path / "out")


def test_weights_that_were_not_kept_are_made_again(tmp_path: Path) -> None:
    def keeping(*keep: Any) -> NamedStudy:
        def measure_all(laboratory: Any) -> None:
            laboratory.run_all(keep=keep)

        return NamedStudy(name="mine", summary="", source="", question=question(), measure_all=measure_all)

    asked = question(batch_sizes=(10,), lrs=(0.1,), seeds=(0,))
    first = made(tmp_path, asked, named=keeping())
    second = made(tmp_path, asked, named=keeping(2, 50))
    run = tmp_path / "out" / "runs" / first.rows[0].run
    assert [path.name for path in run.glob("weights-*")] == ["weights-epoch-2.pt"]
    values = [[r.values["final_val_loss"] for r in found.rows] for found in (first, second)]
    assert values[0] == values[1]
