"""The tables of the search benchmark: what is written is read, and the pure parts do what they say."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

Script = Callable[[str], ModuleType]


def curve(script: Script, length: int, status: str, reached: float | None) -> Any:
    steps = np.arange(length, dtype=np.int32)
    return script("curves").Curve(steps, np.exp(-steps / 7).astype(np.float32), status, reached)


def same(one: Any, other: Any) -> bool:
    return (
        np.array_equal(one.steps, other.steps)
        and np.array_equal(one.values, other.values, equal_nan=True)
        and (one.status, one.steps_to_target) == (other.status, other.steps_to_target)
    )


def filled(script: Script) -> Any:
    measured = script("table_file").Measured()
    for seed, (status, reached) in enumerate([("reached", 8.25), ("out-of-steps", None), ("diverged", None)]):
        measured.curves[64, 0.32, seed] = curve(script, 10 + seed, status, reached)
        measured.curves[4, 0.01, seed] = curve(script, 3, "reached", 2.0 + seed)
    measured.curves[4, 0.01, 1].values[1] = np.nan
    measured.fresh[64, 0.32], measured.fresh_most[64, 0.32] = [1.5, None, *[2.0] * 7], 400
    measured.meta = {"environment": {"torch": "2"}, "step_time_s": [[4, 0.001], [64, 0.004]]}
    return measured


def test_what_is_read_is_what_was_written(script: Script, tmp_path: Path) -> None:
    file, path = script("table_file"), tmp_path / "some.npz"
    written = filled(script)
    file.save(path, written)
    read = file.load(path)
    assert read.curves.keys() == written.curves.keys()
    assert all(same(read.curves[key], written.curves[key]) for key in written.curves)
    assert (read.fresh, read.fresh_most, read.meta) == (written.fresh, written.fresh_most, written.meta)
    assert read.curves[64, 0.32, 0].steps.dtype == np.int32
    assert read.curves[64, 0.32, 0].values.dtype == np.float32
    assert [each.name for each in tmp_path.iterdir()] == ["some.npz"]


def test_an_empty_table_is_written_and_read(script: Script, tmp_path: Path) -> None:
    file = script("table_file")
    file.save(tmp_path / "some.npz", file.Measured())
    assert file.load(tmp_path / "some.npz").curves == {}


def test_two_writers_lose_nothing(script: Script, tmp_path: Path) -> None:
    tables, file = script("tables"), script("table_file")
    file.save(tmp_path / "digits-sgd.npz", filled(script))
    one, other = (tables.Table.read("digits-sgd", tmp_path) for _ in range(2))
    one._measured.fresh[8, 0.01], one._measured.fresh_most[8, 0.01] = [1.0] * 9, 100
    one._save(step_time_s=[[4, 0.002], [64, 0.004]])
    other._measured.fresh[8, 0.02], other._measured.fresh_most[8, 0.02] = [2.0] * 9, 100
    other._save()
    both = tables.Table.read("digits-sgd", tmp_path)
    assert len(both._measured.fresh) == 3
    assert both.step_time("here", 4) == pytest.approx(0.002)


def test_a_table_answers_from_its_cells(script: Script, tmp_path: Path) -> None:
    tables = script("tables")
    script("table_file").save(tmp_path / "digits-sgd.npz", filled(script))
    table = tables.Table.read("digits-sgd", tmp_path)
    assert table.batch_sizes == (4, 64)
    assert table.rates(4) == (0.01,)
    assert table.cell_steps(4, 0.01) == pytest.approx(24 ** (1 / 3))
    assert math.isinf(table.cell_steps(64, 0.1 + 0.22))
    assert table.step_time("knee64", 128) == pytest.approx(3e-3)
    assert table.fresh(64, 0.32, 400)[:2] == [1.5, None]
    assert table.fresh(64, 0.32, 1) == [None] * 9
    with pytest.raises(KeyError):
        table.curve(64, 0.64, 0)


def test_a_cell_is_trained_once_and_kept(script: Script, tmp_path: Path) -> None:
    table = script("tables").Table.read("digits-sgd", tmp_path)
    steps = table._fill_cell(256, 0.64, 40, 100)
    again = script("tables").Table.read("digits-sgd", tmp_path)
    assert math.isfinite(steps)
    assert again.cell_steps(256, 0.64) == steps
    run = again.curve(256, 0.64, 1)
    assert run.status == "reached"
    assert run.steps[0] == 0
    assert run.values[-1] <= 0.15 < run.values[-2]
    assert run.steps[-2] <= run.steps_to_target <= run.steps[-1]


@pytest.mark.parametrize("peak", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("start", [0.32, 0.01])
def test_a_column_ends_with_two_clearly_worse_rates_on_each_side(script: Script, peak: float, start: float) -> None:
    def steps(lr: float) -> float:
        value = 100 * math.exp(abs(math.log(lr / peak)))
        return value if value < 400 else math.inf

    column, candidate = {}, start
    while candidate is not None:
        column[candidate] = steps(candidate)
        candidate = script("tables").next_rate(column, start)
    best = min(column, key=column.__getitem__)
    worse = [lr for lr, value in column.items() if value >= 2.5 * column[best]]
    assert sum(lr < best for lr in worse) >= 2 <= sum(lr > best for lr in worse)
    rates = sorted(column)
    assert all(high == 2 * low for low, high in itertools.pairwise(rates))


def test_a_target_out_of_reach_is_said_to_be(script: Script) -> None:
    with pytest.raises(RuntimeError, match="reaches the target"):
        script("tables").next_rate({2.0**k: math.inf for k in range(-7, 8)}, 1.0)


@pytest.mark.parametrize("least", [1, 7, 60, 333])
@pytest.mark.parametrize("start", [1, 50, 500])
def test_the_shortest_horizon_is_found_to_its_precision(script: Script, least: int, start: int) -> None:
    curves, tried = script("curves"), list[int]()

    def run(horizon: int) -> Any:
        tried.append(horizon)
        reached = horizon >= least
        return curve(script, 2, "reached" if reached else "out-of-steps", float(horizon) if reached else None)

    found = curves.shortest_horizon(run, start, 500).steps_to_target
    assert least <= found <= max(1.15 * least, least + 1)
    assert len(tried) <= 15


def test_no_horizon_reaches_or_the_run_diverges(script: Script) -> None:
    curves = script("curves")
    assert curves.shortest_horizon(lambda h: curve(script, 2, "out-of-steps", None), 3, 100).steps_to_target is None
    assert curves.shortest_horizon(lambda h: curve(script, 2, "diverged", None), 3, 100).status == "diverged"


def test_the_tasks_are_as_many_and_as_different_as_promised(script: Script) -> None:
    tasks = script("tasks").TASKS
    halves = [task.half for task in tasks.values()]
    assert halves.count("design") >= 7 <= halves.count("held-out")
    assert any(task.schedule == "linear" for task in tasks.values())
    assert any(task.goal.mode == "max" for task in tasks.values())
    for name, task in tasks.items():
        assert task.name == name
        assert list(task.batch_sizes) == sorted(task.batch_sizes)


@pytest.mark.parametrize("name", ["teacher-sgd", "interpolating-sgd", "residual-adamw"])
def test_a_generated_task_is_the_same_each_time_and_trains(script: Script, name: str) -> None:
    task = script("tasks").TASKS[name]
    one, other = task.workload(), task.workload()
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(one.tensors, other.tensors, strict=True))
    run = script("curves").measured(one, task, 32, task.first_lr / 16, 1, 16)
    assert run.values[-1] < run.values[0]


@pytest.mark.shared
@pytest.mark.parametrize("name", ["label-noise-adamw", "cnn-batch-sgd"])
def test_a_task_on_shared_images_trains(script: Script, name: str) -> None:
    task = script("tasks").TASKS[name]
    run = script("curves").measured(task.workload(), task, 64, task.first_lr / 2, 1, 12)
    assert run.values[-1] < run.values[0]


@pytest.mark.shared
def test_a_fifth_of_the_labels_is_drawn_at_random(script: Script) -> None:
    fashion = script("generated").fashion
    clean, wrong = (fashion(examples=5000, side=7, wrong_labels=share).parts for share in (0.0, 0.2))
    changed = (clean["train"][1] != wrong["train"][1]).float().mean()
    assert float(changed) == pytest.approx(0.2 * 0.9, abs=0.02)
    assert bool((clean["val"][1] == wrong["val"][1]).all())
