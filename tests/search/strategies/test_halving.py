"""Successive halving spends what its formula says, and keeps the best where the order does not change."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscope.search.strategies.halving import Halving
from batchscope.search.strategies.space import Request, Space, Trial, best

from .surface import SPACE, Surface, requests_after_a_kill, search

FAR = 1e6
"""A floor that puts the target out of reach of every rung."""


@given(budget=st.floats(0.1, 1e4), configurations=st.integers(1, 100), factor=st.integers(2, 5))
def test_rungs_share_the_budget_equally_and_end_with_one_run(budget: float, configurations: int, factor: int) -> None:
    rungs = Halving(budget=budget, configurations=configurations, factor=factor).rungs()
    rounds = math.ceil(round(math.log(configurations) / math.log(factor), 9))
    assert [rung.runs for rung in rungs] == [math.ceil(configurations / factor**k) for k in range(rounds)]
    before = 0.0
    for runs, limit in rungs:
        assert runs * (limit - before) == pytest.approx(budget / rounds)
        before = limit


def test_spends_its_budget_and_what_the_last_run_still_needs() -> None:
    surface = Surface(floor=FAR)
    trials = search(Halving(budget=810.0), surface)
    winner = best(trials)
    assert winner is not None
    last = Halving(budget=810.0).rungs()[-1].limit
    assert surface.spent == pytest.approx(810.0 + winner.cost - last)
    costs = sorted(trial.cost for trial in trials)
    assert costs[:18] == pytest.approx([10.0] * 18)
    assert costs[18:24] == pytest.approx([40.0] * 6)
    assert costs[24:26] == pytest.approx([130.0] * 2)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("larger_is_better", [False, True])
def test_keeps_the_best_of_its_draws_where_the_order_does_not_change(seed: int, larger_is_better: bool) -> None:
    surface, halving = Surface(floor=FAR, edge=0.5, larger_is_better=larger_is_better), Halving(budget=100.0)
    drawn = halving.drawn(SPACE, seed)
    winner = best(search(halving, surface, seed=seed))
    assert winner is not None
    assert winner.pair == min((p for p in drawn if p[1] <= 0.5), key=lambda p: surface.cost_to_target(*p))


def test_is_misled_where_slow_runs_look_better_early() -> None:
    def found(crossing: bool) -> float:
        winner = best(search(Halving(budget=300.0), Surface(crossing=crossing)))
        assert winner is not None
        return winner.cost

    assert found(True) > 3 * found(False)


def test_no_run_goes_beyond_one_that_has_reached_the_target() -> None:
    surface = Surface()
    trials = search(Halving(budget=1e5), surface)
    winner = best(trials)
    assert winner is not None
    assert winner.cost == min(surface.cost_to_target(*trial.pair) for trial in trials)
    assert surface.requests[-1].limit is not None
    assert sum(trial.status == "reached" for trial in trials) < 10


def test_a_run_that_was_there_before_is_to_be_beaten() -> None:
    known = Surface(floor=50.0).make(Request(batch_size=64, lr=0.05, limit=None, why=""))
    surface = Surface()
    trials = search(Halving(budget=620.0), surface, given=[known])
    assert best(trials) is known
    assert max(trial.cost for trial in trials) == known.cost


def test_the_next_best_goes_on_where_the_last_run_fails() -> None:
    halving = Halving(budget=10.0, configurations=3)
    surface = Surface(floor=FAR)
    trials = search(halving, surface)
    winner = best(trials)
    assert winner is not None
    broken = [
        Trial(batch_size=t.batch_size, lr=t.lr, status="failed", cost=t.cost, curve=t.curve) if t is winner else t
        for t in trials
    ]
    request = halving(SPACE, broken, 0)
    assert request is not None
    assert (request.batch_size, request.lr) != winner.pair
    assert request.limit is None
    everything = [Trial(batch_size=t.batch_size, lr=t.lr, status="failed", cost=t.cost) for t in trials]
    assert halving(SPACE, everything, 0) is None


@pytest.mark.parametrize("floor", [100.0, FAR])
def test_a_killed_search_goes_on_where_it_was(floor: float) -> None:
    halving, surface = Halving(budget=620.0), Surface(floor=floor, edge=0.5)
    search(halving, surface, seed=3)
    for killed_after in (0, 1, 26, 27, 33, len(surface.requests)):
        assert requests_after_a_kill(halving, surface, killed_after, seed=3) == surface.requests[killed_after:]


def test_a_small_space_is_drawn_once() -> None:
    space = Space(batch_sizes=(8, 16), lr_low=0.1, lr_high=0.1)
    assert sorted(Halving(budget=1.0).drawn(space, 0)) == [(8, 0.1), (16, 0.1)]
    assert len(search(Halving(budget=100.0), Surface(), space=space)) == 2


def test_one_configuration_is_trained_to_its_end() -> None:
    surface = Surface()
    (only,) = search(Halving(budget=1.0, configurations=1), surface)
    assert only.status == "reached"
    assert [request.limit for request in surface.requests] == [None]


@pytest.mark.parametrize("wrong", [{"budget": 0.0}, {"configurations": 0}, {"factor": 1}])
def test_what_drops_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="at least 1 and at least 2"):
        Halving(**{"budget": 1.0, **wrong})  # type: ignore[arg-type]
