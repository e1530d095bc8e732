"""A target that no learning rate reaches: where a search looks then, and where it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from batchscope.search.state import SearchState
from batchscope.search.strategies.anchors import Proposal, propose
from batchscope.store.records import RunStatus

from .searches import run, search


def proposed(state: SearchState, *, bounded: bool) -> Proposal:
    choices = state.choices() if bounded else replace(state.choices(), lowest_lr=lambda batch_size: 0.0)
    found = propose(state.joint_posterior, choices, state.tried, seed=len(state.tried), must=True)
    assert found is not None
    return found


@pytest.mark.parametrize("bounded", [False, True])
def test_runs_that_all_stall_do_not_lead_to_ever_lower_learning_rates(bounded: bool) -> None:
    """Each says that its learning rate is too high, so the posterior alone follows them down without end."""
    state = search([run(64, 0.17, most=80, status=RunStatus.STALLED)])
    lowest = state.lowest_lr(64)
    assert state.rate_range is not None
    assert state.rate_range.pilot_lr / 200 < lowest < state.rate_range.pilot_lr / 10
    lrs: list[float] = []
    for _ in range(8):
        found = proposed(state, bounded=bounded)
        lrs.append(found.lr / state.lowest_lr(found.batch_size))
        stalled = run(found.batch_size, found.lr, most=80, status=RunStatus.STALLED)
        state = replace(state, runs=(*state.runs, stalled))
    assert (min(lrs) > 0.8) == bounded
    decided = state.candidate
    assert decided.lr > 0.8 * state.lowest_lr(decided.batch_size)


def test_a_search_without_a_range_test_has_no_lowest_learning_rate() -> None:
    assert search(rate_range=None).lowest_lr(64) == 0.0


def test_the_lowest_learning_rate_leaves_the_decision_of_a_search_that_arrives() -> None:
    state = search()
    free = replace(state.choices(), lowest_lr=lambda batch_size: 0.0)
    assert state.law.decide(free, {}, set()) == state.decide()
