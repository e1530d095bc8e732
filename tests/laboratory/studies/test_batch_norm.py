"""The study of batch normalisation as a whole, on small tasks: which runs it makes, and what it measures on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from batchscope.laboratory.records import Length, Study, StudyQuestion
from batchscope.laboratory.studies.batch_norm import STUDY, arms
from batchscope.laboratory.studies.batch_norm.effects import AFTER, BEFORE, NONE, ghost, one_example, ordered
from batchscope.laboratory.study import study
from batchscope.store.runs import read_runs
from batchscope.tasks.protocol import Task, task

from ..cut_off import no_time_for_runs

EXAMPLES = 48


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))


def convolution() -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (1, 5)), nn.Unflatten(2, (1, 5)), *_convolved(), nn.Linear(10, 2))


def _convolved() -> tuple[nn.Module, ...]:
    return nn.Conv2d(1, 2, (1, 3), padding=(0, 1)), nn.ReLU(), nn.Flatten()


class Calls(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


def small(model: Callable[[], nn.Module] = perceptron) -> Task:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2 * EXAMPLES, 5, generator=generator)
    y = (x.sum(1) > 0).long()
    return task(
        model=model,
        train=TensorDataset(x[:EXAMPLES], y[:EXAMPLES]),
        val=TensorDataset(x[EXAMPLES:], y[EXAMPLES:]),
        loss=lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
        optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
    )


def question(**changes: Any) -> StudyQuestion:
    values: dict[str, Any] = {
        "batch_sizes": (8, 24),
        "lrs": (0.1, 0.5),
        "seeds": (0, 1),
        "length": Length(unit="epochs", amount=2),
        "repeats": 3,
    }
    return StudyQuestion(**{**values, **changes})


def made(out: Path, model: Callable[[], nn.Module] = perceptron, **changes: Any) -> Study:
    return study(small(model), question(**changes), out=out, named=STUDY)


def test_the_grid_has_every_variant_and_ghosts_where_they_differ() -> None:
    planned = arms(question(), EXAMPLES)
    keys = {arm.key for arm in planned}
    assert {(v, b, lr) for v in (NONE, BEFORE, AFTER) for b in (8, 24) for lr in (0.1, 0.5)} <= keys
    assert {key for key in keys if key[0] == ghost(8)} == {(ghost(8), 24, 0.1), (ghost(8), 24, 0.5)}
    assert not any(arm.variant.startswith("ghost") for arm in arms(question(batch_sizes=(8, 12)), EXAMPLES))
    assert len(planned) * 2 >= 2 * (14 + 4) + 2 * 3


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    out = tmp_path_factory.mktemp("whole")
    return made(out), out


def test_all_runs_are_there_and_planned(whole: tuple[Study, Path]) -> None:
    found, _ = whole
    assert found.complete
    assert len(found.rows) == 14 * 2 + 2 * 3 <= found.planned
    assert all(row.values["best_val_loss"] is not None for row in found.rows)


def test_a_seed_is_the_same_start_without_and_in_ghosts_as_with(whole: tuple[Study, Path]) -> None:
    """In evaluation mode a fresh batch normalisation is the identity, up to its ε."""
    _, out = whole
    starts: dict[int, list[float]] = {}
    for run in read_runs(out):
        if not str(run.config.settings["variant"]).startswith("orders"):
            first = next(row for row in run.rows if row["kind"] == "evaluation")
            starts.setdefault(run.config.seed, []).append(first["metrics"]["val_loss"])
    assert all(values == pytest.approx([values[0]] * 14, rel=1e-4) for values in starts.values())
    assert starts[0][0] != pytest.approx(starts[1][0], rel=1e-4)


def test_runs_in_other_orders_begin_alike_and_end_differently(whole: tuple[Study, Path]) -> None:
    _, out = whole
    for variant in (NONE, BEFORE):
        runs = [run for run in read_runs(out) if run.config.settings["variant"] == ordered(variant)]
        evaluated = [[row["metrics"]["val_loss"] for row in run.rows if row["kind"] == "evaluation"] for run in runs]
        assert len({values[0] for values in evaluated}) == 1
        assert len({values[-1] for values in evaluated}) == len(runs) == 3


def test_best_rates_are_measured_with_and_without(whole: tuple[Study, Path]) -> None:
    found, _ = whole
    best = [s for s in found.summary if s.best_lr and s.variant in (NONE, BEFORE)]
    ids = {row.run for row in found.rows for arm in best if (row.variant, row.batch_size, row.lr) == arm.key}
    assert len(ids) == 8
    for what in ("robustness", "shift-early", "shift-best"):
        assert {f"{what}-{run}" for run in ids} == {n for n in found.measurements if n.startswith(f"{what}-")}
    records = found.measurements[f"robustness-{min(ids)}"]
    row = next(row for row in found.rows if row.run == min(ids))
    assert records[0]["metrics"]["val_loss"] == pytest.approx(row.values["best_val_loss"], rel=1e-5)
    layers = found.measurements["definition"]["layers"]
    assert {r["layer"] for r in layers} == {"2.0", "4.0"}
    assert all(r["mean"] < 1e-5 for r in layers if r["mode"] == "training")
    assert found.measurements["refused"].keys() == {BEFORE, AFTER}


def test_nothing_is_made_or_measured_twice(whole: tuple[Study, Path]) -> None:
    found, out = whole
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name.startswith(("measured", "result"))}
    assert made(out).answer() == found.answer()
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_batch_of_one_is_left_to_those_who_can(tmp_path: Path) -> None:
    def without_own() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2))

    found = made(tmp_path, without_own, batch_sizes=(1, 8), lrs=(0.1,), seeds=(0,), repeats=2)
    assert {row.variant for row in found.rows if row.batch_size == 1} == {NONE}
    assert {row.variant for row in found.rows if row.batch_size == 8} >= {NONE, BEFORE, AFTER, ordered(BEFORE)}
    refused = next(f for f in found.findings if "on batches of one example" in f.statement)
    assert refused.verdict == "so"
    assert "no step can be made" in refused.statement


def test_images_are_trained_on_one_by_one(tmp_path: Path) -> None:
    found = made(tmp_path, convolution, batch_sizes=(8,), lrs=(0.1,), repeats=2)
    assert found.measurements["refused"] == {}
    single = [row for row in found.rows if row.batch_size == 1]
    assert {(row.variant, row.lr, row.steps) for row in single} == {
        (one_example(v), 0.0125, 12) for v in (NONE, BEFORE)
    }
    assert any("steps can be made" in f.statement for f in found.findings)


def test_a_model_that_cannot_be_configured_is_trained_as_it_came(tmp_path: Path) -> None:
    found = made(tmp_path, Calls)
    assert {row.variant for row in found.rows} == {""}
    assert len(found.rows) == 2 * 2 * 2
    assert "function calls cannot be seen" in found.findings[0].statement
    assert "function calls cannot be seen" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_budget_that_ends_early_is_said(tmp_path: Path) -> None:
    with no_time_for_runs():
        cut = study(small(), question(), out=tmp_path, named=STUDY)
    assert not cut.complete
    assert made(tmp_path).complete
