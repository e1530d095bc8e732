"""The training loop, against recursions that can be written down."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from batchscope.errors import OutOfMemory, TaskError
from batchscope.fits.schedules import lr_factor
from batchscope.store.records import Row, RunConfig, RunStatus
from batchscope.tasks.builtin.digits import digits
from batchscope.tasks.workload import Workload
from batchscope.testing import without_clock
from batchscope.training.loop import train
from batchscope.training.stopping import StallRule

from .recursions import (
    CURVATURES,
    START,
    Quadratic,
    Regression,
    config,
    loss_at,
    metrics_of,
    run,
    target,
)


def test_every_evaluation_is_on_the_closed_form() -> None:
    result, rows = run(Quadratic())
    assert [row["kind"] for row in rows] == ["evaluation"] * len(rows)
    for row in rows:
        assert row["metrics"]["val_loss"] == pytest.approx(loss_at([1.0] * row["step"]), rel=1e-12)
        assert row["examples"] == 8 * row["step"]
    assert result.status is RunStatus.OUT_OF_STEPS
    assert (result.steps, result.examples, result.steps_to_target) == (40, 320, None)
    assert result.first == rows[0]["metrics"]
    assert result.last == result.best == rows[-1]["metrics"]


def test_the_training_loss_is_the_mean_over_the_steps_since_the_last_evaluation() -> None:
    _, rows = run(Quadratic(), evaluation_growth=1.6)
    assert rows[0]["train_loss"] is None
    for before, after in itertools.pairwise(rows):
        seen = [loss_at([1.0] * step) for step in range(before["step"], after["step"])]
        assert after["train_loss"] == pytest.approx(np.mean(seen), rel=1e-6)


@pytest.mark.parametrize("growth", [1.05, 1.5, 2.0])
def test_evaluations_come_on_a_geometric_grid(growth: float) -> None:
    _, rows = run(Quadratic(), evaluation_growth=growth, max_steps=100)
    expected = [0, 1]
    while expected[-1] < 100:
        expected.append(min(100, max(expected[-1] + 1, math.ceil(expected[-1] * growth))))
    assert [row["step"] for row in rows] == expected


def test_momentum_follows_its_recursion() -> None:
    _, rows = run(Quadratic(momentum=0.9))
    w, v, values = START.numpy().copy(), np.zeros(2), []
    for _ in range(41):
        values.append(float((0.5 * CURVATURES.numpy() * w**2).sum()))
        v = 0.9 * v + CURVATURES.numpy() * w
        w = w - 0.1 * v
    assert [row["metrics"]["val_loss"] for row in rows] == pytest.approx(
        [values[row["step"]] for row in rows], rel=1e-12
    )


@pytest.mark.parametrize(("metric", "mode"), [("val_loss", "min"), ("score", "max")])
def test_the_target_is_interpolated_in_log_steps(metric: str, mode: str) -> None:
    """F10: for a metric that grows as for one that falls."""
    sign = 1.0 if mode == "min" else -1.0
    result, rows = run(Quadratic(), target=target(sign * 0.5, metric, mode), evaluation_growth=1.5)
    before, after = rows[-2], rows[-1]
    assert result.status is RunStatus.REACHED
    assert before["metrics"]["val_loss"] > 0.5 >= after["metrics"]["val_loss"]
    share = (before["metrics"]["val_loss"] - 0.5) / (before["metrics"]["val_loss"] - after["metrics"]["val_loss"])
    expected = before["step"] ** (1 - share) * after["step"] ** share
    assert result.steps_to_target == pytest.approx(expected, rel=1e-9)
    assert result.steps == after["step"]


def test_finer_evaluation_approaches_the_exact_passage() -> None:
    """With one curvature the loss is ½ w² (1 - lr)^2s, so the passage is known; every step is evaluated."""
    flat = Quadratic()
    exact = math.log(0.5 / loss_at([])) / math.log(loss_at([1.0] * 2) / loss_at([1.0]))
    result, _ = run(flat, target=target(0.5), evaluation_growth=1.0)
    steps = [s for s in range(40) if loss_at([1.0] * s) <= 0.5]
    assert steps[0] - 1 < (result.steps_to_target or 0.0) <= steps[0]
    assert exact < steps[0]  # the fast direction is gone early, the slow one decides


# --- schedules, warm-up, optimizer changes ------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 5])
def test_schedules_reach_the_optimizer(schedule: Any, warmup: int) -> None:
    factors: list[float] = []
    for step in range(20):
        progress = (step - warmup) / (20 - warmup)
        decayed = {"constant": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}[schedule]
        factors.append((step + 1) / warmup if step < warmup else decayed)
    assert [lr_factor(schedule, step, 20, warmup=warmup) for step in range(20)] == pytest.approx(factors)
    result, _ = run(Quadratic(), schedule=schedule, warmup_steps=warmup, max_steps=20)
    assert result.last["val_loss"] == pytest.approx(loss_at(factors), rel=1e-10)


def test_groups_keep_their_ratio_under_a_schedule() -> None:
    class TwoRates(Quadratic):
        def optimizer(self, params: Iterable[nn.Parameter], lr: float) -> Optimizer:
            return SGD([{"params": list(params), "lr": lr / 4}], lr=lr)

    result, _ = run(TwoRates(), schedule="linear", max_steps=10)
    assert result.last["val_loss"] == pytest.approx(loss_at([0.25 * (1 - s / 10) for s in range(10)]), rel=1e-10)


def test_optimizer_changes_act() -> None:
    result, _ = run(Quadratic(), optimizer_changes={"weight_decay": 0.3})
    assert result.last["val_loss"] == pytest.approx(loss_at([1.0] * 40, decay=0.3), rel=1e-10)


# --- every ending is a result -------------------------------------------------------------------------------------


def test_a_diverged_run_is_a_result() -> None:
    result, rows = run(Quadratic(), lr=1e4, max_steps=1000)
    assert result.status is RunStatus.DIVERGED
    assert result.steps < 1000
    assert rows[-1]["train_loss"] == math.inf
    assert result.best == result.first
    assert result.best_step == 0


def test_a_stop_rule_ends_the_run() -> None:
    """At this rate the fast direction jumps to and fro for ever, so nothing improves after the first steps."""
    rows: list[Row] = []
    rule = StallRule(patience=0.5)
    result = train(Workload(Quadratic()), config(lr=1.0, max_steps=2000), stop_rules=[rule], on_row=rows.append)
    assert result.status in (RunStatus.STALLED, RunStatus.OVERFIT)
    assert result.steps - result.best_step >= max(50, result.steps / 2)
    assert result.message == result.status.meaning


def test_the_target_comes_before_the_rules() -> None:
    result = train(
        Workload(Quadratic()),
        config(target=target(0.5)),
        stop_rules=[lambda history: RunStatus.STALLED if history.reached else None],
    )
    assert result.status is RunStatus.REACHED


def test_lack_of_memory_names_the_size() -> None:
    with pytest.raises(OutOfMemory, match="a step of 8 examples did not fit") as caught:
        run(Quadratic(blow_up_at=3))
    assert caught.value.micro_batch_size == 8


def test_the_users_exception_in_the_middle_of_a_run() -> None:
    class Fails(Quadratic):
        def loss(self, model: Any, batch: Any) -> Tensor:
            if self.steps == 2:
                raise IndexError("Target 7 is out of bounds.")
            return super().loss(model, batch)

    with pytest.raises(TaskError, match=r"loss\(model, batch\) raised IndexError: Target 7 is out of bounds."):
        run(Fails())


# --- accumulation, determinism, isolation -------------------------------------------------------------------------


@pytest.mark.parametrize(("micro", "accum", "world"), [(8, 4, 1), (16, 1, 2), (1, 32, 1), (4, 4, 2)])
def test_accumulated_micro_batches_are_the_whole_batch(micro: int, accum: int, world: int) -> None:
    changes: dict[str, Any] = {"batch_size": 32, "lr": 0.01}
    _, whole = run(Regression(), **changes, micro_batch_size=32)
    _, parts = run(Regression(), **changes, micro_batch_size=micro, grad_accum_steps=accum, world_size=world)
    assert metrics_of(parts) == pytest.approx(metrics_of(whole), rel=1e-10)
    assert [r["train_loss"] for r in parts[1:]] == pytest.approx([r["train_loss"] for r in whole[1:]], rel=1e-6)


@pytest.mark.parametrize("make", [lambda: Regression(dropout=0.3), lambda: digits(model="cnn", norm="batch")])
def test_equal_configuration_gives_bitwise_equal_rows(make: Callable[[], Any]) -> None:
    """Whatever was drawn before, and whatever ran in between."""
    workload = Workload(make())
    rows: list[list[Row]] = []
    for _ in range(2):
        rows.append([])
        torch.rand(7)
        train(workload, config(seed=5, lr=0.01), on_row=rows[-1].append)
        train(workload, config(seed=6, lr=0.01, max_steps=5))
    assert without_clock(rows[0]) == without_clock(rows[1])
    _, other = run(make(), seed=6, lr=0.01)
    assert metrics_of(other) != metrics_of(rows[0])


def test_a_run_leaves_the_callers_random_state() -> None:
    """F24."""
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    train(Workload(Regression(dropout=0.3)), config(max_steps=5))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("draws", [0, 3])
def test_frequent_evaluation_does_not_change_the_run(draws: int) -> None:
    """F24, inside a run: evaluating after every step or hardly ever gives the same weights, dropout included."""

    class Drawing(Regression):
        def evaluate(self, model: nn.Module) -> Mapping[str, float]:
            torch.rand(draws)
            return super().evaluate(model)

    often, _ = run(Drawing(dropout=0.3), evaluation_growth=1.0)
    seldom, _ = run(Drawing(dropout=0.3), evaluation_growth=100.0)
    assert often.last == seldom.last


def test_device_seconds_leave_evaluation_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that only evaluation moves: no time is charged to the run."""
    now = [0.0]

    class Slow(Regression):
        def evaluate(self, model: nn.Module) -> Mapping[str, float]:
            now[0] += 100.0
            return super().evaluate(model)

    workload = Workload(Slow())
    monkeypatch.setattr(type(workload.device), "clock", lambda self: now[0])
    assert train(workload, config(max_steps=5)).device_seconds == 0.0


def test_a_clock_of_the_day_that_jumps_moves_no_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    """The day's clock goes back by an hour at each look; durations are read from another one, which never does."""
    jumping = itertools.count(1e9, -3600.0)
    monkeypatch.setattr(time, "time", lambda: next(jumping))
    rows: list[Row] = []
    result = train(Workload(Regression()), config(max_steps=30), on_row=rows.append)
    seconds = [row["device_seconds"] for row in rows]
    assert 0.0 < result.device_seconds < 600.0
    assert seconds == sorted(seconds)


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_has_its_own_number_of_threads_and_leaves_the_callers_as_it_was(fails: bool) -> None:
    seen: list[int] = []

    class Counting(Regression):
        def loss(self, model: nn.Module, batch: Any) -> Tensor:
            seen.append(torch.get_num_threads())
            if fails and len(seen) > 3:
                raise ValueError("later")
            return super().loss(model, batch)

        def evaluate(self, model: nn.Module) -> Mapping[str, float]:
            seen.append(torch.get_num_threads())
            return {"val_loss": 1.0}

    before = torch.get_num_threads()
    other = before + 1
    workload = Workload(Counting())
    with pytest.raises(TaskError, match="later") if fails else contextlib.nullcontext():
        train(workload, config(max_steps=4, num_threads=other))
    assert set(seen) == {other}
    assert torch.get_num_threads() == before


def test_evaluations_are_evenly_spaced_where_epochs_are_asked_for() -> None:
    """64 examples in batches of 24: an epoch ends within steps 3, 6 and 8."""
    workload = Workload(Quadratic())
    spaced = RunConfig(
        task="t", batch_size=24, micro_batch_size=24, lr=0.01, max_steps=9, evaluation_epochs=1.0, target=None
    )
    rows: list[Row] = []
    train(workload, spaced, on_row=rows.append)
    assert workload.examples == 64
    assert [row["step"] for row in rows] == [0, 3, 6, 8, 9]


def test_an_observer_sees_the_start_every_update_and_every_evaluation() -> None:
    class Watching:
        def __init__(self) -> None:
            self.calls: list[Any] = []

        def begin(self, model: nn.Module, optimizer: Optimizer) -> None:
            self.model, self.calls = model, ["begin"]

        def after_update(self, step: int) -> Row | None:
            self.calls.append(step)
            return {"kind": "weights", "step": step}

        def at_evaluation(self, step: int) -> Row | None:
            self.calls.append(("evaluation", step))
            return None

    watching = Watching()
    rows: list[Row] = []
    short = RunConfig(task="t", batch_size=32, micro_batch_size=32, lr=0.01, max_steps=2, target=None)
    train(Workload(Quadratic()), short, observers=[watching], on_row=rows.append)
    assert watching.calls == ["begin", ("evaluation", 0), 1, ("evaluation", 1), 2, ("evaluation", 2)]
    assert [row["step"] for row in rows if row["kind"] == "weights"] == [1, 2]
