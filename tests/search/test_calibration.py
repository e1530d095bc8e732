"""The probability of being within 5 %: what the law misses lowers it, and none is told where it was not checked."""

from __future__ import annotations

import math

import numpy as np
import pytest

from batchscope.search.calibration import probability_within_5_percent, share_within_5_percent
from batchscope.search.question import CurrentRecipe
from batchscope.search.state import SearchState

from .searches import TRIED, run, search


def recipe(state: SearchState) -> tuple[int, float]:
    return state.decision.batch_size, state.decision.lr


def test_without_misfit_it_is_the_share_of_draws() -> None:
    state = search()
    size, lr = recipe(state)
    sizes = np.array(state.batch_sizes)
    cost = np.log([state.seconds_of(int(b)) for b in sizes])
    best = (state.posterior.log_best_steps(sizes) + cost).min(axis=1)
    own = state.posterior.log_steps(size, lr) + math.log(state.seconds_of(size))
    by_hand = float(np.mean(own - best <= math.log(1.05)))
    assert share_within_5_percent(state, size, lr, 0.0) == pytest.approx(by_hand)


def test_what_the_law_misses_makes_it_less_sure_and_the_same_every_time() -> None:
    state = search([run(b, lr, seed=s) for b, lr in TRIED if lr != 0.4 for s in range(3)])
    told = [share_within_5_percent(state, *recipe(state), misfit) for misfit in (0.0, 0.15, 0.5)]
    assert told == sorted(told, reverse=True)
    assert told[0] > told[1] + 0.1
    assert 0.0 < told[2] < told[1] < 1.0
    assert probability_within_5_percent(state, *recipe(state)) == told[1]


def test_it_is_told_of_a_current_recipe_between_the_batch_sizes_that_are_searched() -> None:
    state = search(current=CurrentRecipe(batch_size=80, lr=0.21))
    told = probability_within_5_percent(state, 80, 0.21)
    assert told is not None
    assert 0.0 <= told <= 1.0


@pytest.mark.parametrize(
    "state",
    [search(cut_off=True), search([run(64, 0.2), run(64, 0.1)]), search(search="grid")],
    ids=["cut off", "one batch size", "another strategy"],
)
def test_none_is_told_where_it_was_not_checked(state: SearchState) -> None:
    assert probability_within_5_percent(state, *recipe(state)) is None
