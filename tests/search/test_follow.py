"""The other strategies in a whole search: how a run looks to them, and what the plan says of them."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchscope.errors import UsageError
from batchscope.search.follow import first_trials, limit_in_steps, space_of, strategy_of, trial_of
from batchscope.search.plan import build_plan
from batchscope.search.question import Question, Within
from batchscope.search.strategies.grid import Grid
from batchscope.search.strategies.halving import Halving
from batchscope.search.strategies.optuna import TreeParzen
from batchscope.search.strategies.space import Request
from batchscope.store.records import RunStatus

from .folders import without_clock
from .searches import run, step_time, true_steps
from .searches import search as state_of

Cli = Callable[..., Any]
NEEDED = true_steps(64, 0.2)
SEARCH = "find digits --hardware machine.json --target val_loss<=0.3 --search halving --out out --json"


def test_a_finished_run_reached_the_target_at_its_first_passage() -> None:
    trial = trial_of(run(64, 0.2), state_of())
    assert trial.status == "reached"
    assert trial.cost_to_target == pytest.approx(NEEDED * step_time(64))
    assert trial.cost >= NEEDED * step_time(64)
    assert trial.curve[0][0] == 0.0
    assert not trial.larger_is_better


def test_a_run_is_seen_as_far_as_it_was_asked_for() -> None:
    state, made = state_of(), run(64, 0.2)
    for limit in (1, 10, 60):
        trial = trial_of(made, state, limit)
        assert (trial.status, trial.cost_to_target) == ("stopped", None)
        assert limit <= trial.cost / step_time(64) <= 1.06 * limit + 1
        assert trial.curve[-1][0] == pytest.approx(trial.cost)
    assert trial_of(made, state, 10_000) == trial_of(made, state)


@pytest.mark.parametrize("status", [RunStatus.DIVERGED, RunStatus.STALLED, RunStatus.OUT_OF_TIME])
def test_a_run_that_ended_by_itself_failed_unless_its_limit_came_first(status: RunStatus) -> None:
    ended = run(64, 0.2, most=50, status=status)
    assert trial_of(ended, state_of()).status == "failed"
    assert trial_of(ended, state_of(), limit=500).status == "failed"
    assert trial_of(ended, state_of(), limit=20).status == "stopped"


def test_a_run_that_waits_at_its_limit_is_stopped() -> None:
    waits = run(64, 0.2, most=50, status=RunStatus.PAUSED)
    assert trial_of(waits, state_of(), limit=50).status == "stopped"


def test_a_limit_in_seconds_or_examples_is_the_step_by_which_it_is_spent() -> None:
    request = Request(batch_size=64, lr=0.1, limit=10 * step_time(64) + 1e-9, why="")
    assert limit_in_steps(request, state_of()) == 11
    counts = state_of(objective="examples")
    assert limit_in_steps(replace(request, limit=640.0), counts) == 10
    assert limit_in_steps(replace(request, limit=1e-12), state_of()) == 1
    assert limit_in_steps(replace(request, limit=None), state_of()) is None


def test_the_name_decides_the_strategy_and_the_first_run_its_scale() -> None:
    runs = (run(64, 0.2, purpose="pilot"), run(64, 0.1, purpose="trial"))
    asked = {name: state_of(runs=runs, search=name) for name in ("optuna", "halving", "grid")}
    assert strategy_of(asked["optuna"]) == TreeParzen()
    assert strategy_of(asked["grid"]) == Grid()
    halving = strategy_of(asked["halving"])
    assert isinstance(halving, Halving)
    assert halving.budget == pytest.approx(6 * NEEDED * step_time(64))
    assert [trial.pair for trial in first_trials(asked["grid"])] == [(64, 0.2)]
    space = space_of(asked["grid"])
    assert space.batch_sizes == asked["grid"].batch_sizes
    assert space.lr_high == pytest.approx(3000 * space.lr_low)


@pytest.mark.parametrize(("search", "words"), [("halving", "successive halving"), ("grid", "a grid")])
def test_the_recipe_is_the_best_run_and_the_plan_says_who_chose_it(search: Any, words: str) -> None:
    runs = tuple(run(b, lr, purpose="trial") for b, lr in ((8, 0.02), (64, 0.12), (256, 0.05)))
    plan = build_plan(state_of(runs=runs, search=search))
    assert plan.recipe is not None
    assert (plan.recipe.batch_size, plan.recipe.lr) == (64, 0.12)
    assert plan.message.startswith(f"The fastest of 3 runs chosen by {words}")
    assert any(words in e.statement and e.tag == "measured" for e in plan.evidence)
    assert not any("--trainings" in e.source for e in plan.evidence)
    assert plan.verified is not None
    assert math.isclose(plan.verified.steps, true_steps(64, 0.12))


def test_a_length_of_training_is_for_our_search_only() -> None:
    with pytest.raises(UsageError, match="--search grid"):
        Question(search="grid", within=Within(amount=3.0, unit="epochs"))


@pytest.mark.usefixtures("profile")
def test_halving_finds_a_recipe_and_a_killed_search_goes_on_where_it_was(cli: Cli) -> None:
    whole = cli(SEARCH)
    assert whole.status == 0, whole.err
    assert "successive halving" in whole.answer["message"]
    assert whole.answer["search"]["runs"] == 28
    results = sorted(Path("out").glob("runs/*/result.json"), key=lambda path: path.stat().st_mtime_ns)
    statuses = [json.loads(path.read_text())["status"] for path in results]
    assert statuses.count("paused") > 10
    for path in [*results[14:], Path("out/plan.json")]:
        path.unlink()
    again = cli(SEARCH)
    assert "14 finished runs" in again.err
    assert without_clock(again.answer) == without_clock(whole.answer)
    before = {path: path.stat().st_mtime_ns for path in results}
    assert without_clock(cli(SEARCH).answer) == without_clock(whole.answer)
    assert {path: path.stat().st_mtime_ns for path in results} == before


@pytest.mark.usefixtures("profile")
def test_without_optuna_the_search_is_refused_before_anything_is_measured(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    ended = cli("find digits --hardware machine.json --search optuna --out out")
    assert ended.status == 2
    assert 'pip install -c constraints.txt ".[optuna]"' in ended.err
    assert not list(Path("out").glob("bench.json"))
