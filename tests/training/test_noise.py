"""The library function behind `batchscope noise`."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from batchscope.errors import TaskError, UsageError
from batchscope.store.codec import encode
from batchscope.store.records import RunStatus, Target
from batchscope.tasks.protocol import task
from batchscope.tasks.workload import Workload
from batchscope.training.lr_range import measure_rate_range
from batchscope.training.noise import NoiseReport, default_batch_size, measure_noise


def make_workload(*, norm: bool = False, adam: bool = False, scale: float = 1.0, **parts: Any) -> Workload:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(200, 6, generator=generator)
    y = (x[:, 0] + 0.3 * torch.randn(200, generator=generator) > 0).long()
    kind = torch.optim.AdamW if adam else torch.optim.SGD
    defaults: dict[str, Any] = {
        "model": lambda: nn.Sequential(
            nn.Linear(6, 8), nn.BatchNorm1d(8) if norm else nn.Identity(), nn.Tanh(), nn.Linear(8, 2)
        ),
        "train": TensorDataset(x, y),
        "loss": lambda model, batch: scale * nn.functional.cross_entropy(model(batch[0]), batch[1]),
        "optimizer": lambda params, lr: kind(params, lr=lr),
        "evaluate": lambda model: {"val_loss": float(nn.functional.cross_entropy(model(x), y))},
    }
    return Workload(task(**{**defaults, **parts}), name="toy")


@pytest.fixture(scope="module")
def report() -> NoiseReport:
    return measure_noise(make_workload(), lr=0.2, steps=120)


def test_report_holds_estimate_trace_and_the_rate_beside_it(report: NoiseReport) -> None:
    found = report.gradient_noise_scale
    assert (report.task, report.lr, report.lr_source, report.batch_size) == ("toy", 0.2, "given", 32)
    assert found.value is not None
    assert found.low is not None
    assert 0 < found.low < found.value
    assert found.n == 120
    assert len(report.trace) == 8
    assert sum(block.n for block in report.trace) == found.n
    assert (report.status, report.steps, report.examples) == (RunStatus.OUT_OF_STEPS, 120, 120 * 32)


def test_f42_the_report_says_what_the_number_is_not(report: NoiseReport) -> None:
    said = " ".join(report.notes)
    assert "rate 0.2 and batch size 32" in said
    assert "hint at the critical batch size" in said
    assert "optimizer" not in said


def test_report_is_valid_json(report: NoiseReport) -> None:
    assert json.loads(json.dumps(encode(report), allow_nan=False))["status"] == "out-of-steps"


def test_f43_an_adaptive_optimizer_is_said_not_to_fit() -> None:
    report = measure_noise(make_workload(adam=True), lr=0.01, steps=20)
    assert any("AdamW" in note and "raw gradients" in note for note in report.notes)


def test_f47_batch_normalisation_is_refused_not_measured() -> None:
    with pytest.raises(TaskError, match="not independent") as caught:
        measure_noise(make_workload(norm=True), lr=0.1, steps=10)
    assert "GroupNorm" in str(caught.value)
    assert caught.value.exit_status == 2


def test_rows_are_handed_on() -> None:
    rows: list[Any] = []
    measure_noise(make_workload(), lr=0.1, steps=10, on_row=rows.append)
    assert [row["step"] for row in rows if row["kind"] == "noise"] == list(range(10))
    assert any(row["kind"] == "evaluation" for row in rows)


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_f38_a_rate_is_chosen_at_which_the_task_trains(scale: float) -> None:
    """The loss's unit moves the right rate by four orders of magnitude; seeds move it by less than one."""
    workload = make_workload(scale=scale)
    rates = [measure_rate_range(workload, batch_size=32, micro_batch_size=32, seed=seed).pilot_lr for seed in range(3)]
    assert max(rates) / min(rates) < 10
    rows: list[Any] = []
    report = measure_noise(workload, steps=60, on_row=rows.append)
    assert "range test" in report.lr_source
    losses = [row["metrics"]["val_loss"] for row in rows if row["kind"] == "evaluation"]
    assert losses[-1] < 0.9 * losses[0]


def test_a_diverging_run_is_reported() -> None:
    workload = make_workload(evaluate=None, loss=lambda m, batch: (m(batch[0]) - 1.0).square().mean())
    report = measure_noise(workload, lr=1e6, steps=50)
    assert report.status is RunStatus.DIVERGED
    assert any("diverged" in note for note in report.notes)


def test_a_run_that_reaches_its_target_ends() -> None:
    report = measure_noise(make_workload(), lr=0.5, steps=500, target=Target.parse("val_loss<=0.5"))
    assert report.status is RunStatus.REACHED
    assert report.steps < 500


def test_the_budget_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = make_workload()
    ticks = iter(range(10**9))
    monkeypatch.setattr(type(workload.device), "wall_clock", lambda self: float(next(ticks)))  # a look takes a second
    report = measure_noise(workload, lr=0.1, steps=400, budget_s=300)
    assert report.status is RunStatus.OUT_OF_TIME
    assert report.steps < 400


def test_f24_the_callers_random_state_is_left_as_it_was() -> None:
    before = torch.get_rng_state()
    measure_noise(make_workload(), steps=10)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"batch_size": 0}, "--batch-size is 0; it must be at least 1"),
        ({"batch_size": 1}, "--batch-size is 1; .* a batch of 2 or more$"),
        ({"batch_size": 201}, "^--batch-size is 201, and the training set has 200 examples; give at most that$"),
        ({"batch_size": 101}, "choose an even batch size, 100"),
        ({"steps": 0}, "--steps is 0; it must be at least 1"),
        ({"budget_s": 0.0}, "must be positive"),
        ({"lr": -1.0}, "learning rate"),
    ],
    ids=str,
)
def test_impossible_numbers_are_refused(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        measure_noise(make_workload(), **{"lr": 0.1, **bad})


@pytest.mark.parametrize(("examples", "expected"), [(2, 2), (10, 2), (100, 16), (1437, 64), (10**6, 64)])
def test_default_batch_size(examples: int, expected: int) -> None:
    assert default_batch_size(examples) == expected
