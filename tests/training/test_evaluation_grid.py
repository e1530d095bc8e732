"""When a run is evaluated: the grid itself, its share of the time, and what an interpolated passage loses by it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscope.fits.curves import first_passage
from batchscope.store.records import RunConfig
from batchscope.training.evaluation_grid import evaluations_within, next_evaluation

from .recursions import Quadratic, run


def config(every: int = 1, gap: int = 1, growth: float = 1.05) -> RunConfig:
    return RunConfig(
        task="t",
        batch_size=1,
        micro_batch_size=1,
        lr=0.1,
        max_steps=1,
        evaluation_every=every,
        evaluation_gap=gap,
        evaluation_growth=growth,
    )


@given(
    st.integers(1, 3000),
    st.integers(1, 3000),
    st.floats(1.0, 3.0),
    st.integers(1, 20_000),
    st.sampled_from([1.05, 2.0]),
)
def test_the_grid_rises_ends_at_the_last_step_and_leaves_no_gap_that_is_too_far(
    every: int, gap: int, stretch: float, steps: int, growth: float
) -> None:
    found = evaluations_within(config(every, gap, growth), steps)
    assert (found[0], found[-1]) == (0, steps)
    for before, after in itertools.pairwise(found):
        assert before < after
        assert after - before <= max(gap, math.ceil(before / 3), math.ceil(before * growth) - before, 1)


def test_cheap_evaluations_are_as_dense_as_their_growth_lets_them_be() -> None:
    expected = [0, 1]
    while expected[-1] < 500:
        expected.append(min(500, max(expected[-1] + 1, math.ceil(expected[-1] * 1.05))))
    assert evaluations_within(config(), 500) == expected


@pytest.mark.parametrize("gap", [300, 500, 1000])
def test_what_came_unpaid_is_made_up_for(gap: int) -> None:
    """In the end there is one evaluation for every so many steps, as long as growth does not thin them out further."""
    every, steps = 1000, 19_500
    assert len(evaluations_within(config(every, gap), steps)) == pytest.approx(steps / every, abs=1)


@pytest.mark.parametrize("gap", [1, 2, 10, 250])
def test_eight_evaluations_come_in_13_gaps_however_dear_they_are(gap: int) -> None:
    assert 8 <= len(evaluations_within(config(10**9, gap), 13 * gap)) - 1 <= 9


def test_a_run_is_evaluated_where_the_grid_says() -> None:
    _, rows = run(Quadratic(), evaluation_every=8, evaluation_gap=3, max_steps=100)
    assert [row["step"] for row in rows] == evaluations_within(config(8, 3), 100)


def test_so_many_evaluations_an_epoch_stand_apart() -> None:
    epochs = RunConfig(task="t", batch_size=8, micro_batch_size=8, lr=0.1, max_steps=1, evaluation_epochs=0.5)
    steps = [next_evaluation(epochs, step, 1, examples=100) for step in (0, 7, 13)]
    assert steps == [7, 13, 19]


@pytest.mark.parametrize(
    ("curve", "level"),
    [
        (lambda s: 5.0 * s**-0.5, 5.0 * 1000**-0.5),
        (lambda s: 0.1 + s**-1.0, 0.1 + 1 / 1000),
        (lambda s: math.exp(-s / 400), math.exp(-1000 / 400)),
        (lambda s: 2.0 - math.log1p(s) / 5, 2.0 - math.log1p(1000) / 5),
    ],
)
@pytest.mark.parametrize("gap", range(40, 77))
def test_the_passage_of_a_known_curve_is_found_within_two_per_cent(
    curve: Callable[[float], float], level: float, gap: int
) -> None:
    """The target lies at step 1000; with these gaps it has 8 evaluations or more before it."""
    found = evaluations_within(config(10**9, gap), 3000)[1:]
    assert sum(step <= 1000 for step in found) >= 8
    passage = first_passage(found, [curve(step) for step in found], level, rising=False)
    assert passage == pytest.approx(1000, rel=0.02)
