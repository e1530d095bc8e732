"""The price of a search in words, and its parts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscope.report.cost import cost_in_words, parts_of
from batchscope.store.records import Plan, SearchCost

from . import plans

SECONDS = st.floats(0.0, 1e6)


def cost(**members: Any) -> SearchCost:
    known: dict[str, Any] = {
        "seconds": 192.0,
        "device_seconds": 60.0,
        "examples": 1000,
        "runs": 5,
        "run_equivalents": 3.1,
        "evaluation_seconds": 40.0,
        "training_seconds": 110.0,
        "training_here_s": 62.0,
    }
    return SearchCost(**(known | members))


def plan(name: str, **members: Any) -> Plan:
    """A plan for the machine of this name, made on another or on that one."""
    made = plans.ok()
    assert made.bench is not None
    profile = replace(made.bench.profile, name=name)
    return replace(made, search=cost(**members), bench=replace(made.bench, profile=profile))


@given(SECONDS, SECONDS, SECONDS)
def test_the_parts_add_up(seconds: float, evaluations: float, steps: float) -> None:
    parts = parts_of(cost(seconds=seconds, evaluation_seconds=evaluations, training_seconds=steps))
    assert sum(parts.values()) == pytest.approx(seconds)
    assert min(parts.values()) >= 0


def test_the_price_is_told_by_the_clock() -> None:
    here = plan(plans.ok().environment.device_name)
    assert cost_in_words(here) == (
        "The search took 3 min 12 s for 5 runs: 1 min 50 s of training steps, 40 s of evaluations and 42 s of loading, "
        "timing, setting up and choosing the runs. One training with the recipe takes 62 s on this machine, "
        "evaluations included: the search took as long as 3.1 trainings."
    )


def test_another_machine_s_price_stands_beside_the_one_here() -> None:
    assert cost_in_words(plan("a large accelerator")).endswith(
        "On a large accelerator, which the answer is for, the training steps of the search would take 60 s, as long as "
        "those of 3.1 trainings with the recipe."
    )


def test_without_a_recipe_there_is_the_time_only() -> None:
    told = cost_in_words(plan("here", run_equivalents=None, training_here_s=None, evaluation_seconds=0.0))
    assert told.endswith("1 min 50 s of training steps and 82 s of loading, timing, setting up and choosing the runs.")


@pytest.mark.parametrize(("seconds", "in_trainings"), [(0.45, False), (9.9, False), (12.0, True)])
def test_a_search_is_not_told_in_trainings_of_a_few_seconds(seconds: float, in_trainings: bool) -> None:
    told = cost_in_words(plan(plans.ok().environment.device_name, training_here_s=seconds))
    assert ("as long as" in told) == in_trainings


def test_a_table_cost_nothing() -> None:
    told = cost_in_words(replace(plans.ok(), table="runs.csv"))
    assert told == "Nothing was trained: this follows from the 12 runs in runs.csv."
