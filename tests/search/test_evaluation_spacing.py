"""How far apart evaluations lie: their share of simulated runs, what decides it, and what is said of it."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscope.search.evaluation_spacing import (
    FEWEST,
    Spacing,
    dear_at,
    evaluations_at,
    evaluations_in,
    note_before,
    spacing_at,
    spacing_before,
    spacing_of,
)
from batchscope.search.plan import build_plan
from batchscope.search.question import Question
from batchscope.store.records import Evidence, RunConfig, Timing
from batchscope.store.runs import StoredRun
from batchscope.training.evaluation_grid import evaluations_within

from .searches import TARGET, run, search, step_time, true_steps


def taken(spacing: Spacing, cost: float, steps: int) -> tuple[int, float]:
    """Evaluations of a run after its start, and the share of its time that all of them take."""
    config = RunConfig(task="", batch_size=1, micro_batch_size=1, lr=0.0, max_steps=steps, **spacing.members())
    made = len(evaluations_within(config, steps))
    return made - 1, made * cost / (made * cost + steps)


@given(st.floats(0.01, 500.0), st.floats(81.0, 5000.0), st.floats(0.7, 1.0))
def test_a_training_that_can_pay_has_eight_evaluations_for_at_most_a_tenth_of_its_time(
    cost: float, ratio: float, known: float
) -> None:
    """But for the one where the run ends, which comes paid or not; two more where it was expected to be shorter."""
    steps = max(20, round(ratio * cost))
    made, share = taken(spacing_of(cost, 0.1, steps), cost, steps)
    assert made >= FEWEST
    assert share <= 0.1 + cost / steps or made <= FEWEST + 1
    longer, share = taken(spacing_of(cost, 0.1, known * steps), cost, steps)
    assert made <= longer <= made + 3
    assert share <= 0.1 + 3 * cost / steps


@given(st.floats(0.01, 500.0), st.floats(1.0, 80.0))
def test_a_training_that_cannot_pay_has_eight_to_ten(cost: float, ratio: float) -> None:
    steps = max(20, round(ratio * cost))
    made, _ = taken(spacing_of(cost, 0.1, steps), cost, steps)
    assert FEWEST <= made <= 10 or cost <= 0.25, "20 steps pay for more than 10 cheap ones"


@given(st.floats(0.0, 500.0), st.integers(1, 100_000))
def test_a_run_of_unknown_length_pays_for_itself_in_the_end(cost: float, steps: int) -> None:
    made, share = taken(spacing_of(cost, 0.1), cost, steps)
    if steps >= 20 * cost and steps >= 20:
        assert made >= FEWEST - 1
    if steps >= 400 * cost:
        assert share <= 0.11


@pytest.mark.parametrize("steps", [None, 50.0, 1e6])
def test_cheap_evaluations_and_a_share_of_all_are_as_dense_as_ever(steps: float | None) -> None:
    assert spacing_of(0.1, 0.1, steps) == spacing_of(300.0, 1.0, steps) == Spacing(every=1, gap=1)


@given(st.floats(0.2, 300.0), st.floats(-0.01, 0.01))
def test_a_little_noise_of_the_clock_seldom_changes_a_spacing(cost: float, noise: float) -> None:
    """And where it does, to the next of a coarse grid."""
    first, second = (spacing_of(cost * factor, 0.1, 5000.0).every for factor in (1.0, 1.0 + noise))
    assert max(first, second) / min(first, second) in (1.0, 4 / 3, 1.5, 2.0)


# --- in a search --------------------------------------------------------------------------------------------------

TIMING = Timing(evaluation_s=20 * step_time(128), budget_s=600.0, step_s=step_time(128))
"""An evaluation takes as long as 20 steps at batch size 128."""


def test_an_evaluation_costs_more_steps_where_steps_are_short() -> None:
    state = search([])
    dear, cheap = (spacing_at(state, TIMING, size, 0.1, purpose="pilot") for size in (1, 1024))
    assert dear.every == spacing_of(20 * step_time(128) / step_time(1), 0.1).every
    assert cheap.every == spacing_of(20 * step_time(128) / step_time(1024), 0.1).every
    assert dear.every > cheap.every


def test_the_runs_so_far_say_how_long_a_run_will_be() -> None:
    before = spacing_at(search([]), TIMING, 64, 0.2, purpose="probe")
    assert before == spacing_of(20 * step_time(128) / step_time(64), 0.1)
    after = spacing_at(search(), TIMING, 64, 0.2, purpose="probe")
    assert 0.5 * true_steps(64, 0.2) <= 13 * after.gap <= true_steps(64, 0.2)


def test_a_length_that_is_given_decides() -> None:
    assert spacing_at(search(), TIMING, 64, 0.2, purpose="pilot", length=4000).gap == 256
    assert spacing_at(search(), TIMING, 64, 0.2, purpose="pilot", length=160).gap == 12


def test_a_run_that_may_go_on_keeps_its_spacing() -> None:
    made = run(64, 0.2, purpose="trial", evaluation_every=12, evaluation_gap=3)
    state = search([made])
    assert spacing_at(state, TIMING, 64, 0.2, purpose="trial") == Spacing(every=12, gap=3)
    assert spacing_at(state, TIMING, 64, 0.2, purpose="recipe") != Spacing(every=12, gap=3)


@pytest.mark.parametrize("spacing", [Spacing(every=1, gap=1), Spacing(every=30, gap=4), Spacing(every=192, gap=192)])
def test_evaluations_are_as_many_as_the_grid_has(spacing: Spacing) -> None:
    config = RunConfig(task="", batch_size=1, micro_batch_size=1, lr=0.0, max_steps=9000, **spacing.members())
    steps = np.array([1.0, 7.0, 100.0, 9000.0])
    counted = [len(evaluations_within(config, int(each))) for each in steps]
    assert evaluations_in(steps, spacing).tolist() == counted


def test_evaluations_that_take_next_to_no_time_are_not_spared() -> None:
    timing = replace(TIMING, step_s=0.001, evaluation_s=0.001, budget_s=600.0)
    assert spacing_before(timing, 0.1, 100.0) == Spacing(every=1, gap=1)
    assert spacing_before(replace(timing, evaluation_s=0.003), 0.1, 100.0).every > 1
    assert spacing_before(replace(timing, budget_s=60.0), 0.1, 100.0).every > 1


# --- what is said -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("evaluation_s", "budget_s", "said"),
    [
        (5.5, 600.0, ""),
        (
            5.6,
            600.0,
            "one evaluation takes 5.6 s, as long as 5.6 steps at batch size 64: the 8 .* take 44.8 s, 10 % of",
        ),
        (35.0, 600.0, "as long as 35 steps at batch size 64.*41 % .* fewer validation examples would make the search"),
        (125.0, 600.0, "one evaluation takes 2.08 min"),
        (0.5, 1.0, ""),
        (2.0, 100.0, "one evaluation takes 2 s, as long as 2 steps"),
    ],
)
def test_a_dear_evaluation_is_said_before_the_search(evaluation_s: float, budget_s: float, said: str) -> None:
    timing = Timing(evaluation_s=evaluation_s, budget_s=budget_s, step_s=1.0, step_batch_size=64)
    note = note_before(replace(timing, budget_s=10_000.0) if not said else timing, 0.1)
    assert bool(note) == bool(said)
    assert re.match(f".*{said}", note)


def evaluated(*, every: int, seconds: float) -> StoredRun:
    """A run of 200 steps or so, each evaluation of which took so long, and each step 1 ms."""
    made = run(64, 0.2, evaluation_every=every)
    rows = [{**row, "evaluation_seconds": seconds * (i + 1)} for i, row in enumerate(made.rows)]
    return replace(made, rows=tuple(rows))


def test_the_spacing_stands_with_the_answer_and_what_evaluations_took() -> None:
    others = [run(16, 0.08), run(128, 0.27)]
    plan = build_plan(search([evaluated(every=24, seconds=0.5), *others]))
    assert plan.recipe is not None
    assert plan.evaluations is not None
    steps = [row["step"] for row in evaluated(every=24, seconds=0.5).rows]
    assert plan.evaluations.number == len(steps)
    assert plan.evaluations.every_steps == steps[-1] - steps[-2]
    assert plan.evaluations.every_examples == 64 * plan.evaluations.every_steps
    assert plan.search.evaluation_seconds == pytest.approx(0.5 * len(steps))
    assert f"every {plan.evaluations.every_steps} steps" in how_often(plan.evidence)


def test_runs_that_are_evaluated_densely_are_said_to_be() -> None:
    assert "whenever its steps had grown by 5 %" in how_often(build_plan(search()).evidence)


def how_often(evidence: tuple[Evidence, ...]) -> str:
    return next(e.source for e in evidence if str(TARGET) in e.statement and "reached" in e.statement)


@pytest.mark.parametrize(("every", "dear"), [(1, False), (8, False), (1000, True)])
def test_where_eight_evaluations_cost_more_than_the_share_the_plan_says_so(every: int, dear: bool) -> None:
    state = search([evaluated(every=every, seconds=0.05)])
    note = dear_at(state, 64, 0.2)
    assert bool(note) == dear
    if dear:
        assert "of 50 ms each, more than the 10 % of --evaluation-share: a training gets at least 8" in note
    assert not dear_at(replace(state, question=Question(target=TARGET, evaluation_share=1.0)), 64, 0.2)
    assert evaluations_at(state, 16, 0.08) is None
