"""Alternatives: one that is predicted to cost less than the recipe never stands there without a word."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from batchscope.search.alternatives import alternative, alternatives_to, looks_better
from batchscope.search.plan import build_plan
from batchscope.search.question import CurrentRecipe
from batchscope.search.recipe import NOT_MEASURED, predicted_at, recipe_of
from batchscope.search.state import SearchState
from batchscope.store.records import RunStatus

from .searches import run, search
from .test_plan import given

SLOW = (16, 0.02)
"""Recommended by nobody: a recipe beside which the others look better."""


@pytest.mark.parametrize(
    ("state", "pair", "why"),
    [
        (search(), (64, 0.2), "predicted 6. % faster in the median and run, but more at risk: its expected time, "),
        (search(), (80, 0.2), "predicted 6. % faster in the median, not run: its expected time, .* is not lower by"),
        (search(trainings=1.0), (80, 0.2), "not run: over 1 training that saves less than a run at it costs"),
        (search(cut_off=True), (80, 0.2), "predicted 6. % faster, not run: the budget ended first"),
        (search(current=CurrentRecipe(batch_size=16, lr=0.02)), (80, 0.2), "not run: no clear gain is expected"),
        (search(parts=given(search())), (80, 0.2), "not measured: make a run there"),
        (search(objective="examples"), (16, 0.1), "cheaper in examples in the median, not run: its expected cost, "),
    ],
)
def test_one_that_looks_better_says_why_it_was_not_taken(state: SearchState, pair: tuple[int, float], why: str) -> None:
    slow = predicted_at(state, *SLOW)
    found = alternative(state, "fewest examples", *pair, recommended=slow)
    assert found.why.startswith("fewest examples (")
    assert re.search(why, found.why), found.why
    assert f"batch size {pair[0]} is predicted to be " in looks_better(state, [found], slow)


def test_one_that_looks_worse_only_says_whether_it_was_run() -> None:
    state = search()
    best = predicted_at(state, 64, 0.2)
    assert alternative(state, "lowest memory", 16, 0.08, recommended=best).why == "lowest memory"
    other = alternative(state, "lowest memory", 16, 0.05, recommended=best)
    assert other.why == "lowest memory (predicted)"
    assert looks_better(state, [other], best) == ""


@pytest.mark.parametrize("trainings", [1.0, 12.0, 100.0])
def test_no_plan_offers_what_looks_better_without_a_reason_and_its_message_does_not_contradict_it(
    trainings: float,
) -> None:
    for runs in (None, [run(16, 0.08), run(16, 0.04), run(32, 0.1)], [run(256, 0.32), run(16, 0.08)]):
        plan = build_plan(search(runs, trainings=trainings))
        assert plan.predicted is not None
        own = plan.predicted.time_to_target_s.value
        assert own is not None
        for other in plan.alternatives:
            time = other.predicted.time_to_target_s.value
            assert time is not None
            if time < 0.995 * own:
                assert "predicted" in other.why
                assert "is predicted to be" in plan.message


def test_steps_are_no_fewer_than_the_run_at_the_recipe_needed() -> None:
    """The run at the recipe was unlucky: the law lies below it, and the recipe says as many steps as that run took."""
    lucky = [run(b, 1.05 * lr) for b, lr in ((64, 0.2), (128, 0.27), (16, 0.08), (256, 0.32))]
    recipe = recipe_of(search([*lucky, run(64, 0.2, steps=260.0)]), 64, 0.2)
    assert recipe.steps == 260
    assert recipe_of(search([*lucky, run(64, 0.2, steps=100.0)]), 64, 0.2).steps > 100


def largest_at_little_loss(state: SearchState) -> tuple[int, float]:
    """Batch size of that alternative, and how many times the examples of the recommended one it needs."""
    recommended = state.decision.batch_size, state.decision.lr
    own = predicted_at(state, *recommended).examples_to_target.value
    (found,) = (a for a in alternatives_to(state, *recommended) if a.why.startswith("largest batch size"))
    assert own is not None
    assert found.predicted.examples_to_target.value is not None
    return found.recipe.batch_size, found.predicted.examples_to_target.value / own


def test_the_largest_batch_size_at_little_loss_needs_at_most_twice_the_fewest_examples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = search([run(16, 0.08), run(64, 0.2)], objective="examples")
    monkeypatch.setattr(type(state.posterior), "critical_batch_size", lambda _: replace(NOT_MEASURED, value=1e6))
    batch_size, times = largest_at_little_loss(state)
    assert 32 <= batch_size < 128
    assert times <= 2.0


def test_a_batch_size_at_which_every_run_failed_is_not_offered() -> None:
    runs = [run(b, 0.1, steps=6400 / b) for b in (4, 8, 16)]
    runs += [run(32, lr, status=RunStatus.DIVERGED, steps=1e9, most=20) for lr in (0.1, 0.05, 0.025)]
    assert largest_at_little_loss(search(runs, objective="examples"))[0] == 24
