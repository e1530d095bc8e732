"""The space, and what trials say of one another."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscope.search.strategies.space import Request, Space, Trial, best, cut_off, follow, trial_at

from .surface import SPACE, Surface


def trial(lr: float, reached_at: float | None = None, **more: object) -> Trial:
    status = "stopped" if reached_at is None else "reached"
    return Trial(**{"batch_size": 8, "lr": lr, "status": status, "cost": 9.0, "cost_to_target": reached_at, **more})  # type: ignore[arg-type]


def test_rates_go_from_the_ceiling_down_to_a_three_thousandth_of_it() -> None:
    space = Space.below(0.6, [4, 8])
    assert (space.lr_low, space.lr_high) == (pytest.approx(2e-4), 0.6)
    assert space.batch_sizes == (4, 8)


@given(ceiling=st.floats(1e-6, 1e6), seed=st.integers(0, 1000), share=st.floats(0, 1))
def test_what_is_drawn_and_rounded_lies_in_the_space(ceiling: float, seed: int, share: float) -> None:
    space = Space.below(ceiling, (3, 5, 8))
    assert space.holds(space.draw(np.random.default_rng(seed)))
    assert space.holds((3, space.lr_at(share)))
    assert space.lr_at(0.0) == pytest.approx(space.lr_low, rel=5e-3)
    assert space.lr_at(1.0) == pytest.approx(space.lr_high, rel=5e-3)


def test_draws_are_uniform_in_the_list_of_sizes_and_in_the_logarithm_of_the_rate() -> None:
    rng = np.random.default_rng(0)
    drawn = [SPACE.draw(rng) for _ in range(4000)]
    sizes = Counter(size for size, _ in drawn)
    assert min(sizes.values()) > 0.8 * 4000 / len(SPACE.batch_sizes)
    shares = np.log([lr / SPACE.lr_low for _, lr in drawn]) / math.log(3000)
    assert np.quantile(shares, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.03)


@pytest.mark.parametrize(
    ("sizes", "low", "high"), [((), 1, 2), ((8, 4), 1, 2), ((4, 4), 1, 2), ((4,), 0, 2), ((4,), 3, 2)]
)
def test_a_space_without_room_is_refused(sizes: tuple[int, ...], low: float, high: float) -> None:
    with pytest.raises(ValueError, match=r"batch sizes|rates"):
        Space(batch_sizes=sizes, lr_low=low, lr_high=high)


def test_the_best_reached_the_target_at_the_least_cost() -> None:
    trials = [trial(0.1), trial(0.2, 7.0), trial(0.3, 5.0), trial(0.4, 5.0)]
    assert best(trials) is trials[2]
    assert best(trials[:1]) is None
    assert cut_off(trials, 2.0) == 10.0
    assert cut_off(trials[:1], 2.0) is None
    assert trial_at(trials, (8, 0.2)) is trials[1]
    assert trial_at(trials, (16, 0.2)) is None


def test_the_loss_at_a_cost_is_the_best_so_far_and_points_downwards() -> None:
    curve = [(0.0, 2.0), (1.0, 1.5), (2.0, math.nan), (3.0, 1.7), (4.0, 1.0)]
    down, up = trial(0.1, curve=curve), trial(0.1, curve=[(c, -v) for c, v in curve], larger_is_better=True)
    assert [down.loss_at(c) for c in (0.0, 2.5, 3.5, 9.0)] == [2.0, 1.5, 1.5, 1.0]
    assert [up.loss_at(c) for c in (0.0, 2.5, 3.5, 9.0)] == [2.0, 1.5, 1.5, 1.0]
    assert trial(0.1).loss_at(9.0) == math.inf


def test_following_ends_with_the_strategy_or_with_the_time() -> None:
    def one_after_another(space: Space, trials: Sequence[Trial], seed: int) -> Request | None:
        left = [b for b in space.batch_sizes if trial_at(trials, (b, 0.05)) is None]
        return Request(batch_size=left[0], lr=0.05, limit=None, why="") if left else None

    surface = Surface()
    assert [t.batch_size for t in follow(one_after_another, SPACE, surface.make)] == list(SPACE.batch_sizes)
    late = iter([surface.make, surface.make])
    made = follow(one_after_another, SPACE, lambda request: next(late, lambda _: None)(request), given=[trial(0.1)])
    assert [t.pair for t in made] == [(8, 0.1), (1, 0.05), (2, 0.05)]


def test_following_keeps_one_trial_a_pair_also_where_it_goes_on() -> None:
    def in_two_parts(space: Space, trials: Sequence[Trial], seed: int) -> Request | None:
        cost = trials[0].cost if trials else 0.0
        return Request(batch_size=64, lr=0.05, limit=40.0 if cost < 40 else None, why="") if cost < 100 else None

    surface = Surface()
    (made,) = follow(in_two_parts, SPACE, surface.make)
    assert (made.status, made.cost_to_target, surface.spent) == ("reached", 100.0, 100.0)


def test_following_does_not_go_on_for_ever() -> None:
    surface = Surface()
    follow(lambda space, trials, seed: Request(batch_size=1, lr=0.05, limit=1.0, why=""), SPACE, surface.make)
    assert 100 < len(surface.requests) <= 1000
