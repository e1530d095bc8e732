"""The climb of first learning rates: from a first one that misleads, in either direction, to where training begins."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest

from batchscope.fits.end_values import End
from batchscope.search.ladder import Climb

FRESH = math.log(1.8)


def climbed(first: float, ends_at: Callable[[float], float | None], *, most: int = 20) -> list[float]:
    """Learning rates of a climb, in order, where a run at each leaves so much; `None`: it diverges."""
    ends: list[End] = []
    lr: float | None = first
    while lr is not None and len(ends) < most:
        value = ends_at(lr)
        ends.append(End(batch_size=24, lr=lr, left=None if value is None else math.log(value), sd=0.01))
        rung = Climb(first=first, ends=ends, fresh=FRESH, least=0.02).next
        lr = rung.lr if rung else None
    return [end.lr for end in ends]


def bowl(best: float, edge: float) -> Callable[[float], float]:
    """Lowest at a learning rate, at chance from an edge on."""
    return lambda lr: 1.8 * 1.02 if lr > edge else 1.8 - 0.9 * math.exp(-(math.log(lr / best) ** 2) / 4)


def test_far_above_the_edge_it_goes_lower_until_training_is_found_and_passed() -> None:
    tried = climbed(14.0, bowl(0.05, 0.3))
    assert tried[:3] == pytest.approx([14.0, 3.5, 0.438], rel=0.01)
    assert min(tried) < 0.05
    assert any(0.05 / 3 < lr < 0.3 for lr in tried)
    assert len(tried) <= 6


def test_far_below_the_best_it_goes_higher_while_that_is_better() -> None:
    tried = climbed(6e-5, bowl(0.03, 10.0))
    assert tried[1] < tried[0]
    assert max(tried) > 0.01
    unmoved = climbed(6e-5, lambda lr: 1.8 if lr < 0.005 else 0.9)
    assert max(unmoved) > 0.01


def test_at_a_good_learning_rate_it_takes_a_lower_and_a_higher_run() -> None:
    assert climbed(0.05, bowl(0.05, 10.0)) == [0.05, 0.0125, 0.2]


@pytest.mark.parametrize("lost", [None, 1.81, 1.79])
def test_where_nothing_trains_it_ends(lost: float | None) -> None:
    tried = climbed(1.0, lambda lr: lost)
    lower = tried[:6]
    assert all(high > low for high, low in itertools.pairwise(lower))
    assert len(tried) == (6 if lost is None else 9)


def test_runs_that_are_all_a_little_better_than_bad_fresh_weights_do_not_end_it() -> None:
    """A network that only learnt the shares of the classes ends below fresh weights, at any learning rate."""
    tried = climbed(1.0, lambda lr: 1.7 if lr > 0.01 else 0.7 if lr > 0.001 else 1.2)
    assert any(0.001 < lr < 0.01 for lr in tried)


def test_without_a_value_of_fresh_weights_there_is_nothing_to_climb_by() -> None:
    ends = [End(batch_size=8, lr=0.1, left=0.0)]
    assert Climb(first=0.1, ends=ends, fresh=None, least=0.02).next is None
