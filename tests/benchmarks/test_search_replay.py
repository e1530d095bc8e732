"""The replay of searches against a table: what a trial costs, what a search would give, and the figures made of it."""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

Script = Callable[[str], ModuleType]

RATES = {0.1: 400.0, 0.2: 200.0, 0.4: 100.0, 0.8: None}
"""Steps to target by rate at batch size 8; at 64 they are a quarter. The highest diverges after ten steps."""


def curve(script: Script, reached: float | None) -> Any:
    last = 10 if reached is None else math.ceil(reached)
    steps = np.unique(np.r_[np.arange(20), np.geomspace(20, max(20, last), 40).astype(int)])
    steps = steps[steps <= last].astype(np.int32)
    values = np.full(len(steps), np.nan) if reached is None else 1.0 - 0.9 * steps / reached
    status = "diverged" if reached is None else "reached"
    return script("curves").Curve(steps, values.astype(np.float32), status, reached)


@pytest.fixture
def table(script: Script, tmp_path: Path) -> Any:
    tables, measured = script("tables"), script("table_file").Measured()
    for size, share in ((8, 1.0), (64, 0.25)):
        for lr, steps in RATES.items():
            for seed in range(3):
                measured.curves[size, lr, seed] = curve(script, steps and share * steps)
    best = {"batch_size": 64, "lr": 0.4, "steps": 30.0, "time_s": 30.0 * 2e-3}
    measured.meta = {"best": dict.fromkeys(tables.PROFILES, best), "step_time_s": [[8, 0.002], [64, 0.002]]}
    return tables.Table(tables.TASKS["digits-sgd"], tmp_path / "digits-sgd.npz", measured)


@pytest.fixture
def game(script: Script, table: Any, tmp_path: Path) -> Any:
    yardstick = script("yardstick").Yardstick(tmp_path / "yardstick.json")
    return script("replay").Game(table=table, yardstick=yardstick, profile="knee64", seed=0)


def test_a_trial_plays_the_nearest_rate_and_costs_its_steps(game: Any) -> None:
    trial = game.trial(64, 0.35)
    assert trial.cell_lr == 0.4
    assert trial.reached_s == pytest.approx(25 * 2e-3)
    assert trial.seconds == pytest.approx(25 * 2e-3)
    assert trial.values[0] == 1.0
    assert trial.value_at(12.4 * 2e-3) == pytest.approx(1 - 0.9 * 12 / 25)


def test_a_trial_is_censored_at_so_many_times_the_best_of_its_batch_size(game: Any) -> None:
    trial = game.trial(8, 0.1)
    assert trial.reached_s is None
    assert trial.seconds == pytest.approx(250 * 1e-3 * (1 + 8 / 64), rel=0.01)
    assert trial.times[-1] <= trial.seconds


def test_below_the_lowest_rate_the_curve_is_stretched_and_never_reaches(game: Any) -> None:
    lowest, below = game.trial(8, 0.1), game.trial(8, 0.1 / 4)
    assert below.reached_s is None
    assert below.seconds == lowest.seconds
    assert below.value_at(1e9) == pytest.approx(1 - 0.9 * 250 / 4 / 400, abs=0.02)


def test_a_rate_just_below_the_lowest_is_the_lowest(game: Any) -> None:
    assert game.trial(64, 0.095).times[-1] == game.trial(64, 0.1).times[-1]


def test_above_the_highest_rate_training_diverges_as_there_and_is_cheap(game: Any) -> None:
    trial = game.trial(8, 3.0)
    assert trial.reached_s is None
    assert trial.seconds == pytest.approx(10 * 1e-3 * (1 + 8 / 64))
    assert np.isfinite(trial.values).all()


def test_the_objective_ranks_those_that_reach_before_those_that_do_not(game: Any) -> None:
    fast, slow, censored, worse = (game.trial(8, lr).objective for lr in (0.4, 0.2, 0.1, 0.01))
    assert fast < slow < censored < worse < game.trial(8, 3.0).objective


def test_regret_is_that_of_the_fastest_trial_so_far(game: Any) -> None:
    game.pay(game.trial(8, 0.2))  # 200 steps of 1.125 ms: 3.75 best runs
    game.pay(game.trial(64, 0.1), stopped_s=0.01)
    game.pay(game.trial(64, 0.4))
    assert game.spent_s == pytest.approx(0.225 + 0.01 + 0.05)
    assert game.regret((3.7, 3.75, 4.5, 5.0)) == pytest.approx([math.inf, 3.75, 3.75, 1.0])
    assert game.recipes == [(8, 0.2), (64, 0.4)]
    assert game.trials == 3


def test_a_game_ends_with_its_budget(game: Any) -> None:
    assert game.open
    game.spend(game.budget * game.best_s)
    assert not game.open


def test_reports_come_at_the_same_times_for_every_batch_size(game: Any) -> None:
    small, large = game.reports(game.trial(8, 0.2)), game.reports(game.trial(64, 0.2))
    assert [unit for unit, _, _ in large] == [unit for unit, _, _ in small][: len(large)]
    assert all(seconds == pytest.approx(unit * game.unit_s) for unit, seconds, _ in small)
    assert all(a >= b for (_, _, a), (_, _, b) in itertools.pairwise(small))


def test_random_search_repeats_itself_and_spends_its_budget(script: Script, game: Any) -> None:
    other = script("replay").Game(table=game.table, yardstick=game.yardstick, profile="knee64", seed=0)
    for each in (game, other):
        script("rivals").RIVALS["random search"](each)
    assert game.recipes == other.recipes
    assert game.spent_s == other.spent_s >= game.budget * game.best_s


@pytest.mark.parametrize("rival", ["Optuna TPE", "Optuna TPE, median", "Optuna TPE, Hyperband", "Ray Tune ASHA"])
def test_search_tools_find_the_best_cell(script: Script, game: Any, rival: str) -> None:
    rivals = script("rivals")
    if rivals.missing(rival):
        pytest.skip(f"{rivals.NEEDS[rival]} is not installed")
    rivals.RIVALS[rival](game)
    assert game.trials > 5
    assert (64, 0.4) in game.recipes


def test_a_decaying_schedule_is_left_to_recipes(script: Script) -> None:
    plays = script("rivals").plays
    assert plays("random search", "constant")
    assert plays("default", "linear")
    assert not plays("Optuna TPE", "linear")


def test_the_yardstick_prefers_fresh_seeds_and_counts_censored_ones_as_long_as_they_ran(
    script: Script, table: Any, tmp_path: Path
) -> None:
    yardstick = script("yardstick").Yardstick(tmp_path / "yardstick.json")
    assert yardstick.mean_steps(table, 64, 0.4) == 30.0
    assert yardstick.mean_steps(table, 8, 0.2) == pytest.approx(200.0)
    table._measured.curves[8, 0.2, 0] = curve(script, 400.0)
    assert yardstick.mean_steps(table, 8, 0.2) == pytest.approx(200.0 * 2 ** (1 / 3))
    assert yardstick.mean_steps(table, 8, 0.8) == math.inf
    yardstick._of(table)["8 0.2"] = [150.0] * 9
    yardstick.save()
    again = script("yardstick").Yardstick(tmp_path / "yardstick.json")
    assert again.mean_steps(table, 8, 0.2) == pytest.approx(150.0)
    with pytest.raises(KeyError, match="not measured"):
        again.steps(table, 8, 0.3)


def test_results_are_read_as_written_and_infinity_is_null(script: Script, tmp_path: Path) -> None:
    results = script("results")
    results.write("some", [{"a": 1.5, "b": [math.inf, 2.0], "c": "x"}, {"a": None}], folder=tmp_path, costs=[1])
    assert results.read("some", folder=tmp_path) == [{"a": 1.5, "b": [None, 2.0], "c": "x"}, {"a": None}]


def test_intervals_of_half_the_width_cover_as_a_log_normal_would(script: Script) -> None:
    ours = script("ours")
    rng = np.random.default_rng(0)
    fresh = list(np.exp(5 + 0.2 * rng.standard_normal(4000)))
    low, high = math.exp(5 - 0.2 * 1.6449), math.exp(5 + 0.2 * 1.6449)
    assert ours.covered(fresh, low, high, 0.9) == pytest.approx(0.9, abs=0.02)
    assert ours.covered(fresh, low, high, 0.5) == pytest.approx(0.5, abs=0.03)
    assert ours.covered([None, 1.0], None, None, 0.5) == 0.5


@pytest.mark.parametrize(
    ("kept", "current", "regret", "right"),
    [(True, 1.0, 1.0, True), (True, 1.5, 1.5, False), (True, 1.2, 1.2, None), (False, 1.0, 1.0, False)],
)
def test_keep_is_right_of_recipes_near_the_best(
    script: Script, kept: bool, current: float, regret: float, right: bool | None
) -> None:
    assert script("ours").kept_rightly(kept, current, regret) is right
    assert script("ours").kept_rightly(False, 2.0, 1.0) is True


def test_the_critical_batch_size_is_that_of_the_law(script: Script, table: Any) -> None:
    curves = {}
    for size in (4, 16, 64, 256, 1024):
        for seed in range(3):
            curves[size, 0.1, seed] = curve(script, 40.0 * (1 + (90 / size) ** 1.3) ** (1 / 1.3))
    table._measured.curves = curves
    assert script("ours").critical_batch_size(table) == pytest.approx(90, rel=0.02)


def rows_of(script: Script, rival: str, regrets: dict[float, float], tasks: int = 4) -> list[dict[str, Any]]:
    costs = script("replay").COSTS
    levels = [[value for at, value in regrets.items() if at <= cost] for cost in costs]
    regret = [each[-1] if each else None for each in levels]
    head = {"rival": rival, "half": "design", "profile": "knee64", "best_s": 0.1, "regret": regret, "trained": False}
    return [head | {"task": f"t{i}", "seed": s} for i in range(tasks) for s in range(3)]


def test_our_curve_takes_the_dearest_search_within_the_cost(script: Script) -> None:
    head = {"task": "t", "half": "design", "profile": "p", "seed": 0, "best_s": 0.1, "current": None}
    rows = [head | {"cost": 2.5, "regret": 1.3, "verified": True}, head | {"cost": 6.0, "regret": 1.1}]
    (found,) = script("figures").curves_of_ours(rows, (2.0, 3.0, 6.0, 50.0))
    assert found["regret"] == [None, 1.3, 1.1, 1.1]
    assert found["trained"] == [False, True, False, False]


def test_break_even_is_where_the_saved_time_pays_the_search(script: Script) -> None:
    figures = script("figures")
    ours, rival = rows_of(script, "ours", {5.0: 1.0}), rows_of(script, "default", {0.0: 2.0})
    assert figures.break_even(rival, ours, "default") == (6, math.inf)  # 5 + n < 2 n
    assert figures.break_even(ours, rival, "ours") == (1, 4)
    assert figures.break_even(ours, ours, "ours") is None
    assert figures.total_at(ours, 10) == pytest.approx(15.0)
    trained = [row | {"trained": True} for row in ours]
    assert figures.total_at(trained, 10) == pytest.approx(14.0)
    assert figures.total_at(trained, 1) == pytest.approx(5.0)


def test_only_tasks_on_which_everybody_was_run_are_compared(script: Script) -> None:
    rows = [*rows_of(script, "one", {0.0: 2.0}, tasks=3), *rows_of(script, "other", {0.0: 1.0}, tasks=2)]
    found, left_out = script("figures").common(rows, [])
    assert {row["task"] for row in found} == {"t0", "t1"}
    assert left_out == {"t2"}


def test_bootstrap_intervals_are_as_wide_as_the_tasks_differ(script: Script) -> None:
    figures = script("figures")
    rng = np.random.default_rng(1)
    means = rng.standard_normal(25)
    rows = [{"task": i, "seed": s, "x": means[i]} for i in range(25) for s in range(2)]
    low, high = figures.bootstrap(rows, lambda part: float(np.mean([row["x"] for row in part])), resamples=400)
    assert high - low == pytest.approx(2 * 1.645 * means.std() / 5, rel=0.2)


def test_the_chart_is_whole_and_names_every_line(script: Script, tmp_path: Path) -> None:
    rows = [*rows_of(script, "a & b", {0.0: 2.0, 5.0: 1.0}), *rows_of(script, "other", {10.0: 1.5})]
    for seconds in (False, True):
        script("figures").draw(rows, tmp_path / "chart.svg", seconds=seconds)
        texts = [
            each.text for each in ElementTree.parse(tmp_path / "chart.svg").iter("{http://www.w3.org/2000/svg}text")
        ]
        assert {"a & b", "other"} <= set(texts)
    shown = script("figures").regret_table(rows, (3.0, 10.0))
    assert shown.splitlines()[2] == "| a & b | 2.00 (2.00 to 2.00); 2.00 | 1.00 (1.00 to 1.00); 1.00 |"
    assert shown.splitlines()[3].startswith("| other | ∞")
