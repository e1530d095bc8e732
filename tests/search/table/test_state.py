"""Decisions from tables of known truth: within the flat optimum, and doubt is said when there is some."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from batchscope.search.table.fit import fit
from batchscope.store.records import Plan, PlanStatus

SIZES = tuple(2**k for k in range(3, 14))


def steps_at(size: float, critical: float, alpha: float = 1.3, upper: float = math.inf) -> float:
    wall = 1 - (size / upper) ** 2
    return 200 * (1 + (critical / size) ** alpha) ** (1 / alpha) / wall if wall > 0 else math.inf


def step_time_at(size: float, knee: float) -> float:
    return 1e-2 * (1 + size / knee)


def table(
    folder: Path,
    sizes: tuple[int, ...],
    *,
    critical: float,
    knee: float,
    upper: float = math.inf,
    noise: float = 0.1,
    repeats: int = 3,
    lr: float | None = None,
) -> Path:
    rng, rows = np.random.default_rng(len(sizes)), ["batch_size,steps_to_target,step_time_s" + (",lr" if lr else "")]
    for size in sizes:
        for _ in range(repeats):
            steps = steps_at(size, critical, upper=upper) * math.exp(noise * rng.standard_normal())
            cell = f"{steps:.6g}" if math.isfinite(steps) else ""
            rows.append(f"{size},{cell},{step_time_at(size, knee):.6g}" + (f",{lr}" if lr else ""))
    path = folder / "runs.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def chosen(plan: Plan) -> int:
    assert plan.recipe is not None, plan.message
    return plan.recipe.batch_size


@pytest.mark.parametrize("critical", [40, 150, 600])
@pytest.mark.parametrize("knee", [30, 200, 1500])
def test_three_sizes_around_the_best_find_it_within_the_flat_optimum(tmp_path: Path, critical: int, knee: int) -> None:
    def time(size: float) -> float:
        return steps_at(size, critical) * step_time_at(size, knee)

    best = min(SIZES, key=time)
    plan = fit(table(tmp_path, (max(4, best // 8), best // 2, best * 4), critical=critical, knee=knee))
    assert plan.status is PlanStatus.OK
    assert time(chosen(plan)) <= 1.15 * time(best)
    assert plan.predicted is not None
    assert (plan.predicted.steps_to_target.low or 0) <= steps_at(chosen(plan), critical)
    assert steps_at(chosen(plan), critical) <= (plan.predicted.steps_to_target.high or math.inf)


def test_two_sizes_that_enclose_the_best_are_enough(tmp_path: Path) -> None:
    plan = fit(table(tmp_path, (32, 1024), critical=150, knee=200, lr=0.1))
    assert plan.status is PlanStatus.OK
    assert 64 <= chosen(plan) <= 512


def test_sizes_far_below_the_best_are_refused_with_a_safe_choice(tmp_path: Path) -> None:
    plan = fit(table(tmp_path, (4, 8), critical=4000, knee=4000))
    assert (plan.status, plan.recipe) == (PlanStatus.INSUFFICIENT_DATA, None)
    assert "Safe choice: 8, the best of those that were measured; measure at about 32 too" in plan.message
    assert plan.alternatives[0].recipe.batch_size == 8
    assert plan.alternatives[1].recipe.batch_size > 8
    assert plan.status.exit_status == 3


def test_one_size_cannot_tell(tmp_path: Path) -> None:
    plan = fit(table(tmp_path, (64,), critical=100, knee=100))
    assert plan.status is PlanStatus.INSUFFICIENT_DATA
    assert "only batch size 64 reached the target" in plan.message


def test_no_run_that_reached_it_is_no_answer(tmp_path: Path) -> None:
    plan = fit(table(tmp_path, (64, 128), critical=100, knee=100, upper=50))
    assert plan.status is PlanStatus.TARGET_NOT_REACHED
    assert "none of the 6 runs in runs.csv reached the target" in plan.message


def test_beyond_twice_the_measured_sizes_it_is_called_extrapolated(tmp_path: Path) -> None:
    plan = fit(table(tmp_path, (16, 64, 256), critical=1500, knee=3000, noise=0.02, lr=0.01))
    if plan.recipe is not None and plan.recipe.batch_size > 512:
        assert plan.status is PlanStatus.EXTRAPOLATED
        assert "times the largest that was run" in plan.message
    assert plan.recipe is None or plan.recipe.batch_size <= 8 * 256


def test_a_run_that_never_got_there_moves_the_answer_away_from_it(tmp_path: Path) -> None:
    known = table(tmp_path, (32, 64, 128), critical=1000, knee=1000).read_text()

    def with_missing(size: int) -> Plan:
        path = tmp_path / "more.csv"
        path.write_text(known + f"{size},,{step_time_at(size, 1000):.6g}\n" * 3)
        return fit(path)

    free, above, below = fit(tmp_path / "runs.csv"), with_missing(512), with_missing(8)
    guess = {"free": free, "above": above, "below": below}
    sizes = {name: (p.recipe or p.alternatives[-1].recipe).batch_size for name, p in guess.items()}
    assert sizes["above"] < 512
    assert sizes["above"] <= sizes["free"]
    assert sizes["below"] >= 64


def test_a_size_at_which_some_run_failed_is_not_chosen(tmp_path: Path) -> None:
    path = table(tmp_path, (32, 128, 512), critical=200, knee=300)
    best = chosen(fit(path))
    assert best in (128, 192, 256)
    path.write_text(path.read_text() + f"128,,{step_time_at(128, 300):.6g}\n")
    assert chosen(fit(path)) != 128


def test_steps_that_rise_with_the_batch_do_not_drive_it_up(tmp_path: Path) -> None:
    path = tmp_path / "rising.csv"
    rows = [(16, 3000), (64, 1500), (256, 2600)]
    path.write_text("batch_size,steps_to_target,step_time_s\n" + "".join(f"{b},{s},0.01\n" * 2 for b, s in rows))
    assert chosen(fit(path)) <= 128


def test_no_larger_batch_than_allowed(tmp_path: Path) -> None:
    path = table(tmp_path, (16, 64, 256), critical=400, knee=1000)
    for most in (200, 16, 3):
        assert chosen(fit(path, max_batch_size=most)) <= most


def test_fewest_examples_are_those_of_a_small_batch(tmp_path: Path) -> None:
    path = table(tmp_path, (16, 64, 256, 1024), critical=100, knee=2000, noise=0.02)
    few, fast = fit(path, objective="examples"), fit(path)
    assert chosen(few) < chosen(fast)
    assert few.objective == "examples"
    assert "fewest examples" in few.message


def test_several_learning_rates_at_each_size_are_fitted_together(tmp_path: Path) -> None:
    path, lr_max, critical, knee = tmp_path / "grid.csv", 0.4, 100.0, 400.0
    rows = ["batch_size,steps_to_target,step_time_s,lr"]
    for size in (16, 64, 256):
        best = lr_max / (1 + critical / size)
        for factor in (0.25, 0.5, 1.0, 1.6):
            steps = steps_at(size, critical, alpha=1.0) / (factor * (2 - factor))
            rows.append(f"{size},{steps:.6g},{step_time_at(size, knee):.6g},{best * factor:.4g}")
    path.write_text("\n".join(rows) + "\n")
    plan = fit(path, examples=50_000)
    size = chosen(plan)
    assert plan.recipe is not None
    assert plan.recipe.lr == pytest.approx(lr_max / (1 + critical / size), rel=0.35)

    def time(size: float) -> float:
        return steps_at(size, critical, alpha=1.0) * step_time_at(size, knee)

    assert time(size) <= 1.1 * min(time(b) for b in SIZES)
    assert any("together with the learning rate" in e.source for e in plan.evidence)


def test_of_several_learning_rates_at_one_size_the_best_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    rows = ["16,900,0.01,0.1", "64,400,0.011,0.1", "64,300,0.011,0.2", "256,250,0.014,0.4"]
    path.write_text("batch_size,steps_to_target,step_time_s,lr\n" + "\n".join(rows))
    plan = fit(path)
    assert "1 rows were left out" in " ".join(plan.notes)
    assert plan.search.runs == 3
