"""A run at the recipe that contradicts the law of all runs: the prediction is the run's, and it is said."""

from __future__ import annotations

import functools
import math

import pytest

from batchscope.report.summary import summary
from batchscope.search.plan import build_plan, clear_gain
from batchscope.search.question import CurrentRecipe
from batchscope.search.state import SearchState
from batchscope.store.records import Estimate, Plan

from .searches import TRIED, run, search, step_time, true_steps

PAIR = 64, 0.2
SAID = "the run at this recipe took "


@functools.cache
def state(factor: float) -> SearchState:
    """The run at the current recipe takes so many times the steps that the others let expect."""
    runs = [run(b, lr, steps=true_steps(b, lr) * (factor if (b, lr) == PAIR else 1.0)) for b, lr in TRIED]
    return search(runs, current=CurrentRecipe(batch_size=PAIR[0], lr=PAIR[1]))


@functools.cache
def plan(factor: float) -> Plan:
    return build_plan(state(factor))


def inside(value: float, interval: Estimate) -> bool:
    return (interval.low or 0.0) <= value <= (interval.high or math.inf)


@pytest.mark.parametrize("factor", [3.0, 6.0])
def test_prediction_length_and_price_are_those_of_the_run(factor: float) -> None:
    found, steps = plan(factor), factor * true_steps(*PAIR)
    assert found.recipe is not None
    assert found.predicted is not None
    assert (found.recipe.batch_size, found.recipe.lr) == PAIR
    assert found.predicted.steps_to_target.value == pytest.approx(steps)
    assert found.predicted.time_to_target_s.value == pytest.approx(steps * step_time(PAIR[0]), rel=0.01)
    assert found.predicted.examples_to_target.value == pytest.approx(steps * PAIR[0])
    assert found.recipe.steps == pytest.approx(steps, abs=1)
    spent = found.search.device_seconds / (found.predicted.time_to_target_s.value or 0.0)
    assert found.search.run_equivalents == pytest.approx(spent)


@pytest.mark.parametrize("factor", [3.0, 6.0])
def test_the_interval_holds_the_run_and_what_the_law_says(factor: float) -> None:
    found = plan(factor)
    assert found.verified is not None
    assert found.predicted is not None
    assert inside(found.verified.steps, found.predicted.steps_to_target)
    assert inside(found.verified.steps / (found.verified.times_the_law or 0.0), found.predicted.steps_to_target)


def test_it_is_said_first_and_no_probability_is_told() -> None:
    found = plan(6.0)
    assert found.message.lower().startswith(SAID)
    assert "as many steps as the law of all runs says: the law does not hold here" in found.message
    first, *rest = summary(found)
    assert first.startswith(SAID.capitalize())
    assert not any(SAID in sentence.lower() for sentence in rest)
    assert found.probability_within_5_percent is None


def test_a_comparison_with_the_recipe_counts_with_the_run() -> None:
    off_law = [run(b, lr, steps=true_steps(b, lr) * (6.0 if (b, lr) == (16, 0.08) else 1.0)) for b, lr in TRIED]
    current = CurrentRecipe(batch_size=16, lr=0.08)
    by_law, by_run = (clear_gain(search(runs, current=current))[1] for runs in (None, off_law))
    assert by_run > 2 * by_law


def test_a_run_inside_the_interval_changes_nothing() -> None:
    found = plan(1.1)
    assert found.verified is not None
    assert found.predicted is not None
    assert found.verified.times_the_law is None
    assert SAID not in found.message.lower()
    assert found.predicted.steps_to_target.value != pytest.approx(found.verified.steps, rel=1e-6)
    assert found.probability_within_5_percent is not None
