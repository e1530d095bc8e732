"""The grid covers the space, begins in its centre, and finds the best point it has."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscope.search.strategies.grid import Grid
from batchscope.search.strategies.space import Space, best

from .surface import SPACE, Surface, requests_after_a_kill, search


@given(smallest=st.integers(1, 64), doublings=st.integers(0, 12), ceiling=st.floats(1e-4, 10.0))
def test_every_pair_has_a_point_within_half_a_step(smallest: int, doublings: int, ceiling: float) -> None:
    space = Space.below(ceiling, tuple(smallest * 2**k for k in range(doublings + 1)))
    points = Grid().order(space)
    assert all(space.holds(pair) for pair in points)
    for size in space.batch_sizes:
        for share in (0.0, 0.3, 0.77, 1.0):
            lr = space.lr_at(share)
            assert any(
                abs(math.log(size / b)) <= math.log(2.01) and abs(math.log(lr / r)) <= math.log(10) / 4 + 0.01
                for b, r in points
            )


def test_the_centre_comes_first_and_the_corners_last() -> None:
    points = Grid().order(SPACE)
    assert len(points) == len(set(points)) == 7 * 8
    assert points[0][0] == 64
    assert 0.03 < points[0][1] < 0.2
    assert {b for b, _ in points[-4:]} == {1, 4096}
    assert {r for _, r in points[-4:]} == {SPACE.lr_low, SPACE.lr_high}


def test_no_more_points_than_asked_for() -> None:
    surface = Surface()
    assert len(search(Grid(points=5), surface)) == 5
    assert [(r.batch_size, r.lr) for r in surface.requests] == Grid().order(SPACE)[:5]


def test_finds_the_best_of_its_points_and_cuts_off_the_slow_ones() -> None:
    surface = Surface(edge=0.5)
    trials = search(Grid(), surface)
    found = best(trials)
    assert found is not None
    fastest = min(surface.cost_to_target(*pair) for pair in Grid().order(SPACE) if pair[1] <= 0.5)
    assert found.cost_to_target == pytest.approx(fastest)
    assert len(trials) == 7 * 8
    assert surface.spent < 1.1 * fastest * 7 * 8


def test_a_killed_search_goes_on_where_it_was() -> None:
    surface = Surface()
    search(Grid(), surface)
    for killed_after in (0, 1, 30, 56):
        assert requests_after_a_kill(Grid(), surface, killed_after) == surface.requests[killed_after:]


def test_one_size_and_one_rate_are_a_grid() -> None:
    assert Grid().order(Space(batch_sizes=(8,), lr_low=0.1, lr_high=0.1)) == [(8, 0.1)]
