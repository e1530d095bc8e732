"""How long a search takes: guessed before its first run, renewed by its runs, and what a training takes here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscope.search.evaluation_spacing import Spacing, evaluations_in, spacing_before
from batchscope.search.forecast import (
    Here,
    Pace,
    expected_steps,
    forecast,
    renewed,
    training_here,
    trainings_left,
)
from batchscope.search.question import Question, Within
from batchscope.search.runs import used_earlier
from batchscope.store.records import Target, Timing

from .searches import TARGET, run, search, step_time

DENSE = Spacing(every=1, gap=1)
TIMING = Timing(evaluation_s=0.5, budget_s=600.0, step_s=0.1)
ASKED = Question(target=TARGET)
SECONDS = st.floats(0.0, 1e5)


def pace(timing: Timing = TIMING, **members: Any) -> Pace:
    return Pace(**({"timing": timing, "budget_s": 600.0, "spent_s": 20.0} | members))


def test_what_is_left_falls_but_a_search_that_goes_on_is_never_over() -> None:
    quantiles = [trainings_left(2.8, spent) for spent in (0.0, 1.0, 3.0, 10.0, 100.0)]
    assert quantiles[0][1] == pytest.approx(2.8)
    assert quantiles[1][1] < quantiles[0][1]
    assert all(0 < low < middle < high for low, middle, high in quantiles)


@given(st.floats(1e-6, 1e3), SECONDS, SECONDS, SECONDS, st.sampled_from(["anchors", "grid", "halving"]))
def test_the_forecast_lies_within_its_interval_and_after_what_is_spent(
    step_s: float, evaluation_s: float, spent_s: float, earlier_s: float, name: Any
) -> None:
    timing = Timing(evaluation_s=evaluation_s, budget_s=600.0, step_s=step_s)
    told = forecast(
        Question(target=TARGET, search=name), pace(timing, spent_s=spent_s, earlier_s=earlier_s), examples=1000
    )
    assert spent_s <= told.low <= told.seconds <= told.high
    training = told.training_s
    assert training is not None
    assert training.low is not None
    assert training.value is not None
    assert training.high is not None
    assert training.low <= training.value <= training.high
    assert (told.spent_s, told.earlier_s) == (spent_s, earlier_s)


def test_a_clock_that_stands_still_gives_a_forecast_too() -> None:
    still = Timing(evaluation_s=0.0, budget_s=600.0, step_s=0.0)
    told = forecast(ASKED, pace(still), examples=1000)
    assert told.low <= told.seconds <= told.high


def test_recorded_searches_and_trainings_lie_within_the_first_forecast() -> None:
    """90 % of 126 recorded searches took 1.8 to 5.2 trainings; the best trainings 21 to 398 steps at batch size 128."""
    low, _, high = trainings_left(2.8)
    assert low < 1.82
    assert high > 5.22
    told = forecast(ASKED, pace(Timing(evaluation_s=0.0, budget_s=600.0, step_s=1.0)), examples=1000).training_s
    assert told is not None
    assert told.low is not None
    assert told.high is not None
    assert told.low < 21
    assert told.high > 398


def test_runs_that_find_the_length_of_a_schedule_are_foreseen() -> None:
    at_constant, decaying = (
        forecast(replace(ASKED, schedule=schedule), pace(), examples=1000).trainings or 0.0
        for schedule in ("constant", "wsd")
    )
    assert at_constant + 1.8 <= decaying <= at_constant + 3.0
    within = Question(schedule="wsd", within=Within(amount=300, unit="seconds"))
    assert (
        forecast(within, pace(), examples=1000).trainings
        == forecast(replace(within, schedule="constant"), pace(), examples=1000).trainings
    )


def test_a_length_that_is_given_is_the_time_of_one_training() -> None:
    seconds = forecast(Question(within=Within(amount=300, unit="seconds")), pace(), examples=1000).training_s
    assert seconds is not None
    assert (seconds.low, seconds.value, seconds.high) == (300, 300, 300)
    epochs = forecast(Question(within=Within(amount=12.8, unit="epochs")), pace(), examples=1000).training_s
    assert epochs is not None
    evaluations = float(evaluations_in(np.array(100.0), spacing_before(TIMING, 0.1, 100.0)))
    assert epochs.value == pytest.approx(100 * 0.1 + evaluations * 0.5)


def test_a_search_that_goes_on_starts_from_what_is_stored() -> None:
    stored = [run(64, 0.1, slower=50.0), run(128, 0.27, slower=50.0)]
    clock = [sum(r.result.device_seconds for r in [each] if r.result) for each in stored]
    evaluations = [len(each.rows) * 0.5 for each in stored]
    told = forecast(ASKED, pace(earlier_s=100.0), examples=1000, stored=stored)
    assert told.training_s is not None
    assert told.training_s.value in [pytest.approx(c + e) for c, e in zip(clock, evaluations, strict=True)]
    assert told.trainings is not None
    assert told.trainings < 2.8
    assert told.assumption == "what 2 stored runs showed"


@pytest.mark.parametrize(
    ("given_s", "earlier_s", "budget_s", "nothing_left"),
    [
        (600.0, 100.0, 600.0, True),
        (600.0, 600.0, 600.0, True),
        (600.0, 100.0, 1200.0, True),
        (60.0, 61.0, 600.0, False),
    ],
    ids=["again", "again, cut", "it was done before its budget", "its budget had ended it"],
)
def test_a_search_that_was_done_has_nothing_left(
    given_s: float, earlier_s: float, budget_s: float, nothing_left: bool
) -> None:
    timing = Timing(evaluation_s=0.5, budget_s=600.0, step_s=0.1, given_s=given_s)
    told = forecast(ASKED, pace(timing, earlier_s=earlier_s, budget_s=budget_s), examples=1000, stored=[run(64, 0.1)])
    assert (told.trainings == 0.0) is nothing_left
    assert (told.high < 30) is nothing_left


def test_runs_renew_the_forecast_by_their_own_clock() -> None:
    """The law needs 200 steps at (64, 0.2); by the clock here a step takes a hundred times what the bench says."""
    state = search([run(64, lr, slower=100.0) for lr in (0.1, 0.2, 0.4)])
    told = renewed(state, pace(runs=3, between_s=6.0))
    assert told is not None
    assert told.training_s is not None
    assert told.training_s.value is not None
    steps_s = 100.0 * step_time(64) * 200
    evaluations_s = 0.5 * float(evaluations_in(np.array(200.0), DENSE))
    assert told.training_s.value == pytest.approx(steps_s + evaluations_s, rel=0.3)
    assert 20.0 < told.low <= told.seconds <= told.high
    first = forecast(ASKED, pace(), examples=1000)
    assert told.high / told.low < 1.1 * first.high / first.low


@pytest.mark.parametrize("state", [search([]), search(target=None)], ids=["no run", "no target"])
def test_nothing_is_renewed_before_a_run_tells(state: Any) -> None:
    assert renewed(state, pace()) is None


def test_other_searches_are_renewed_by_their_best_run() -> None:
    state = search([run(64, 0.2, slower=100.0)], search="halving")
    told = renewed(state, pace())
    assert told is not None
    assert told.training_s is not None
    assert told.training_s.value == pytest.approx(
        100.0 * 200 * step_time(64) + 0.5 * float(evaluations_in(np.array(200.0), DENSE)), rel=0.1
    )
    assert renewed(search([run(64, 0.2, most=20)], search="halving"), pace()) is None


def test_the_step_at_which_a_run_will_end() -> None:
    state = search()
    config = run(64, 0.2).config
    steps = expected_steps(state, config)
    assert steps is not None
    assert steps == pytest.approx(200, rel=0.25)
    assert expected_steps(state, config, limit=60) == 60
    milestone = Target(metric="val_loss", value=0.6, mode="min")
    there = expected_steps(search([run(64, 0.2)], milestone=milestone), config, milestone)
    assert there is not None
    assert there <= steps * 1.5
    assert expected_steps(search([]), config) is None
    assert expected_steps(search([run(64, 0.01, most=20)]), config) is None
    within = search(question=Question(within=Within(amount=5, unit="epochs")))
    assert expected_steps(within, run(64, 0.2, most=78).config) == 78


def test_a_training_here_counts_evaluations_and_this_machine_s_clock() -> None:
    state = search([run(64, 0.2, slower=3.0)], bench_counts=False)
    steps = 200.0
    assert training_here(state, steps * step_time(64), 64) == pytest.approx(3.0 * steps * step_time(64))
    here = Here.of(state, TIMING)
    assert here is not None
    assert here.evaluation_s == 0.5
    assert training_here(search([]), 1.0, 64) is None


def test_rows_that_tell_what_evaluations_took_are_believed() -> None:
    one = run(64, 0.2)
    rows = tuple({**row, "evaluation_seconds": 2.0 * (i + 1)} for i, row in enumerate(one.rows))
    state = search([replace(one, rows=rows)])
    here = Here.of(state, TIMING)
    assert here is not None
    assert here.evaluation_s == pytest.approx(2.0)


def test_a_run_measured_along_the_way_does_not_set_the_pace() -> None:
    slow = run(64, 0.2, slower=9.0, noise_scale_groups=2)
    both = Here.of(search([slow, run(64, 0.1, slower=2.0)], bench_counts=False))
    alone = Here.of(search([slow], bench_counts=False))
    assert both is not None
    assert alone is not None
    assert (both.step_ratio, alone.step_ratio) == (pytest.approx(2.0), pytest.approx(9.0))


def test_a_first_command_used_nothing_of_the_budget() -> None:
    assert used_earlier(0.0, 600.0) == ""
