"""A study through the library: its counts, its numbers against closed forms, its runs and weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from batchscope.errors import TargetError
from batchscope.laboratory.files import rebuilt_study
from batchscope.laboratory.records import Arm, Finding, Length, NamedStudy, Study, StudyQuestion, grid
from batchscope.probes.train_part import TrainPart
from batchscope.store.runs import read_runs
from batchscope.tasks.loading import load_task
from batchscope.tasks.workload import Workload

from .quadratic import CURVATURE, EXAMPLES, Point, Quadratic, files_of, made, question

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


@pytest.mark.parametrize(("metric", "larger"), [("score:max", True), ("val_loss", False)])
def test_choices_can_be_made_by_another_metric(tmp_path: Path, metric: str, larger: bool) -> None:
    found = made(tmp_path, question(metric=metric, seeds=(0,)))
    assert (found.metric, found.larger_is_better) == (metric.partition(":")[0], larger)
    assert {s.lr for s in found.summary if s.best_lr} == {0.5}


@pytest.mark.parametrize(
    ("metric", "said"), [("loss", "among what the task evaluates"), ("start", "start:max or start:min")]
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


# --- the training part ------------------------------------------------------------------------------------------


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
