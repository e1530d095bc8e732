"""Rows that are there several times, and step times that contradict each other, are named; large tables are pooled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from batchscope.errors import TableError
from batchscope.fits.steps_to_target import Observation, Prior
from batchscope.fits.steps_to_target import fit as fit_joint
from batchscope.search.table.fit import fit
from batchscope.search.table.pooled import pooled
from batchscope.search.table.repeats import step_times_of

from .reading import read


@pytest.mark.parametrize(
    ("text", "rows", "said"),
    [
        ("batch_size,steps_to_target,seed\n32,1458,0\n32,1458,0\n32,1458,1\n", 2, "1 row is an exact copy of another"),
        ("run,batch_size,steps_to_target\na,32,1400\nb,32,1400\na,32,1400\n", 2, "(line 4 of line 2) and counted once"),
        ("batch_size,steps_to_target\n32,1458\n32,1458\n64,1001\n", 2, "give them a column seed"),
        ("batch_size,epochs_to_target\n32,14\n32,14\n64,11\n", 3, "taken as repeats"),
        ("batch_size,steps_to_target\n32,1400\n32,1400\n64,900\n", 3, "taken as repeats"),
        ("batch_size,steps_to_target\n32,1458\n32,1459\n", 2, ""),
    ],
)
def test_copies_are_counted_once(tmp_path: Path, text: str, rows: int, said: str) -> None:
    table = read(tmp_path, text)
    assert len(table.rows) == rows
    assert any(said in note for note in table.notes) is bool(said)


def test_a_table_that_was_pasted_three_times_is_said_in_one_line(tmp_path: Path) -> None:
    rows = "".join(f"{b},{s},{i}\n" for i, (b, s) in enumerate(((32, 1458), (64, 777), (128, 501)))) * 3
    (note,) = read(tmp_path, "batch_size,steps_to_target,seed\n" + rows).notes
    assert (
        "6 rows are exact copies of others (line 5 of line 2, line 6 of line 3, line 7 of line 4, and 3 more)" in note
    )


def test_times_of_one_batch_size_that_differ_are_named() -> None:
    times, notes = step_times_of(
        "t.csv", {32: [(0.01, 2), (0.011, 3), (0.0105, 4), (0.01, 5), (0.5, 6)], 64: [(0.012, 7)]}
    )
    assert times == ((32, 0.0105), (64, 0.012))
    (note,) = notes
    for part in ("at 1 batch size", "10 ms in line 2", "500 ms in line 6", "the median, 10.5 ms"):
        assert part in note
    assert step_times_of("t.csv", {32: [(0.01, 2), (0.012, 3)], 64: [(0.02, 4)]})[1] == ()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (
            {32: [(0.0042, 2), (4.2, 3)]},
            ["batch size 32", "4.2 ms in line 2", "4.2 s in line 3", "1,000 times as long"],
        ),
        ({32: [(0.01, 2), (0.01, 3), (0.9, 4)]}, ["line 4"]),
        ({32: [(0.0042, 2)], 64: [(4.4, 3)]}, ["4.2 ms at batch size 32 (line 2)", "4.4 s at 64 (line 3)"]),
        ({32: [(4.2, 2)], 64: [(0.0044, 3)]}, ["contradict", "4.2 s at batch size 32"]),
    ],
)
def test_times_in_two_units_are_refused(seconds: dict[int, list[tuple[float, int]]], said: list[str]) -> None:
    with pytest.raises(TableError) as error:
        step_times_of("t.csv", seconds)
    for part in said:
        assert part in str(error.value)


def test_times_of_neighbours_that_no_machine_explains_are_said(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("batch_size,steps_to_target,step_time_s\n16,900,0.05\n64,300,0.01\n256,200,0.012\n")
    notes = " ".join(fit(path).notes)
    assert "a step takes 50 ms at batch size 16 (line 2) and 10 ms at 64 (line 3)" in notes


def test_many_batch_sizes_and_learning_rates_are_pooled(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(8, 4096, 3000)
    rows = [f"{b},{200 * (1 + 150 / b):.5g},{10 ** rng.uniform(-3, -1):.4g}" for b in sizes]
    table = read(tmp_path, "batch_size,steps_to_target,lr\n" + "\n".join(rows))
    small = pooled(table)
    assert len({row.batch_size for row in small.rows}) <= 40
    assert len({row.lr for row in small.rows}) <= 60
    for before, after in zip(table.rows, small.rows, strict=True):
        assert after.batch_size / before.batch_size == pytest.approx(1, abs=0.2)
        assert (after.to_target or 0) * after.batch_size == pytest.approx((before.to_target or 0) * before.batch_size)
    assert any("batch sizes were pooled into" in note for note in small.notes)
    few = read(tmp_path, "batch_size,steps_to_target\n32,10\n64,8\n")
    assert pooled(few) is few


def test_many_runs_are_fitted_as_their_parts() -> None:
    rng = np.random.default_rng(1)

    def observations(repeats: int) -> list[Observation]:
        return [
            Observation(
                batch_size=b,
                lr=lr,
                kind="reached",
                steps=300 * (1 + 100 / b) * (0.05 / lr) * np.exp(0.1 * rng.normal()),
            )
            for b in (16, 64, 256)
            for lr in (0.01, 0.02, 0.04)
            for _ in range(repeats)
        ]

    all_, few = fit_joint(observations(200), Prior(), particles=64), fit_joint(observations(12), Prior(), particles=64)
    assert (all_.observations, few.observations) == (1800, 108)
    pairs = [float(np.median(fitted.log_steps(64, 0.02))) for fitted in (all_, few)]
    assert pairs[0] == pytest.approx(np.log(300 * (1 + 100 / 64) * 2.5), abs=0.1)
    assert pairs[0] == pytest.approx(pairs[1], abs=0.1)
    spread = [float(np.std(fitted.log_steps(64, 0.02))) for fitted in (all_, few)]
    assert spread[0] < spread[1]
