"""First passages and values at a moment against the formula, closed forms, and each other."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from batchscope.fits.curves import (
    best_held,
    between,
    curve_of,
    first_passage,
    seconds_at,
    spread_of_clock,
    steps_to_target,
    up_to_target,
    value_at,
)
from batchscope.store.records import Target
from batchscope.training.stopping import History

LOSS = Target(metric="val_loss", value=0.5, mode="min")
SCORE = Target(metric="val_accuracy", value=0.9, mode="max")


def rows(points: dict[int, float | None], metric: str = "val_loss") -> list[dict[str, Any]]:
    return [{"kind": "evaluation", "step": step, "metrics": {metric: value}} for step, value in points.items()]


@st.composite
def curves(draw: st.DrawFn) -> tuple[list[float], list[float]]:
    """A curve of any course, from step 0 or later, with gaps."""
    steps = sorted(draw(st.sets(st.integers(0, 10**6), min_size=2, max_size=12)))
    finite = st.floats(-1e3, 1e3)
    values = draw(st.lists(finite | st.just(math.nan), min_size=len(steps), max_size=len(steps)))
    return [float(step) for step in steps], values


@given(curves(), st.floats(-1e3, 1e3), st.booleans())
def test_a_passage_lies_between_the_evaluation_at_the_level_and_the_finite_one_before(
    curve: tuple[list[float], list[float]], level: float, rising: bool
) -> None:
    steps, values = curve
    known = [(s, v) for s, v in zip(steps, values, strict=True) if math.isfinite(v)]
    there = [i for i, (_, v) in enumerate(known) if (v >= level if rising else v <= level)]
    found = first_passage(steps, values, level, rising=rising)
    if not there:
        assert found is None
        return
    assert found is not None
    assert known[max(0, there[0] - 1)][0] <= found <= known[there[0]][0]


@given(curves(), st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.booleans())
def test_a_harder_level_is_never_passed_sooner(
    curve: tuple[list[float], list[float]], one: float, other: float, rising: bool
) -> None:
    easy, hard = sorted((one, other), reverse=not rising)
    first, second = (first_passage(*curve, level, rising=rising) for level in (easy, hard))
    assert second is None or (first is not None and first <= second * (1 + 1e-12))


@given(curves(), st.floats(-1e3, 1e3), st.floats(1e-6, 1e6), st.booleans())
def test_a_passage_in_another_unit_is_the_same_moment(
    curve: tuple[list[float], list[float]], level: float, unit: float, rising: bool
) -> None:
    """Epochs, examples, and seconds of a constant step time, given as the axis or as a clock beside the steps."""
    steps, values = curve
    scaled = [unit * step for step in steps]
    found = first_passage(steps, values, level, rising=rising)
    expected = None if found is None else pytest.approx(unit * found)
    assert first_passage(scaled, values, level, rising=rising) == expected
    assert first_passage(steps, values, level, rising=rising, clock=scaled) == expected


@given(curves(), st.floats(-1e3, 1e3))
def test_a_mirrored_curve_passes_at_the_same_moment(curve: tuple[list[float], list[float]], level: float) -> None:
    steps, values = curve
    mirrored = [-value for value in values]
    assert first_passage(steps, values, level, rising=False) == first_passage(steps, mirrored, -level, rising=True)


@given(curves(), st.floats(0.0, 1.0))
def test_the_value_at_a_passage_is_the_level(curve: tuple[list[float], list[float]], share: float) -> None:
    steps, values = curve
    known = [value for value in values if math.isfinite(value)]
    assume(len(known) > 1)
    level = known[0] + share * (min(known) - known[0])
    moment = first_passage(steps, values, level, rising=False)
    assert moment is not None
    gaps = [abs(b - a) for a, b in pairwise(known)]
    assert value_at(steps, values, moment) == pytest.approx(level, abs=1e-9 + 1e-6 * max(gaps))


def test_on_a_curve_that_is_straight_in_log_steps_the_passage_is_exact() -> None:
    steps = [1.0, 5.0, 7.0, 90.0, 1000.0]
    values = [3.0 - 0.2 * math.log(step) for step in steps]
    for level in (3.0, 2.9, 2.5, 2.2):
        expected = pytest.approx(math.exp((3.0 - level) / 0.2))
        assert first_passage(steps, values, level, rising=False) == expected
    assert value_at(steps, values, 40.0) == pytest.approx(3.0 - 0.2 * math.log(40.0))


def test_from_step_0_the_curve_is_straight_in_steps() -> None:
    assert first_passage([0, 4, 8], [3.0, 1.0, 0.0], 2.0, rising=False) == 2.0
    assert value_at([0, 4, 8], [3.0, 1.0, 0.0], 2.0) == 2.0
    assert between(0.0, 4.0, 0.25) == 1.0


def test_a_curve_that_begins_at_the_level_passes_it_there() -> None:
    assert first_passage([2, 3], [1.0, 9.0], 4.0, rising=False) == 2.0
    assert first_passage([0, 3], [1.0, 9.0], 1.0, rising=False, clock=[5.0, 6.0]) == 5.0
    assert first_passage([0, 1], [1.0, 1.0], 1.5, rising=True) is None
    assert first_passage([], [], 1.5, rising=True) is None


def test_the_first_of_several_passages_counts() -> None:
    assert first_passage([1, 4, 5, 6], [5.0, 3.0, 6.0, 1.0], 4.0, rising=False) == pytest.approx(2.0)


@pytest.mark.parametrize("gap", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_gaps(gap: float) -> None:
    assert first_passage([1, 10, 100], [4.0, gap, 2.0], 3.0, rising=False) == pytest.approx(10.0)
    assert first_passage([1, 10, 100], [gap, gap, 2.0], 3.0, rising=False) == 100.0
    assert first_passage([1, 10], [4.0, gap], 3.0, rising=False) is None
    assert value_at([1, 10, 100], [4.0, gap, 2.0], 10.0) == pytest.approx(3.0)
    assert value_at([1, 10], [4.0, gap], 10.0) is None


def test_a_clock_that_is_not_in_proportion_is_read_at_the_step_found() -> None:
    """Ten seconds passed before the first evaluation, then each step took 0.1 s."""
    clock = [10.0, 11.0, 110.0]
    assert first_passage([0, 10, 1000], [9.0, 3.0, 1.0], 2.0, rising=False, clock=clock) == pytest.approx(20.0)


def test_no_value_outside_a_curve() -> None:
    assert value_at([1, 2], [1.0, 2.0], 0.5) is None
    assert value_at([1, 2], [1.0, 2.0], 2.5) is None
    assert value_at([], [], 0) is None


def test_shares_may_be_an_array() -> None:
    np.testing.assert_allclose(between(10.0, 1000.0, np.array([0.0, 0.5, 1.0])), [10.0, 100.0, 1000.0])
    np.testing.assert_allclose(between(0.0, 8.0, np.array([0.25, 0.5])), [2.0, 4.0])


def test_the_curve_of_rows_passes_over_what_is_no_evaluation_of_the_metric() -> None:
    found = [*rows({0: 9.0, 1: None}), {"kind": "noise", "step": 3}, *rows({4: 0.7}, "val_accuracy"), *rows({8: 0.2})]
    assert curve_of(found, LOSS) == [(0, 9.0), (8, 0.2)]


@pytest.mark.parametrize(
    ("points", "steps"),
    [
        ({0: 9.0, 10: 0.7, 1000: 0.3}, 100.0),
        ({0: 9.0, 1: 0.3}, 1.0),
        ({0: 0.4, 1: 0.3}, 1.0),
        ({0: 9.0, 10: 0.7, 20: None, 1000: 0.3}, 100.0),
        ({0: 9.0, 10: 0.7}, None),
        ({0: 0.3}, None),
        ({}, None),
    ],
)
def test_steps_to_target_on_disk_and_in_training_are_the_same(
    points: dict[int, float | None], steps: float | None
) -> None:
    """The evaluation before the first step does not count, so that no run takes less than one."""
    expected = None if steps is None else pytest.approx(steps)
    assert steps_to_target(rows(points), LOSS) == expected
    history = History(target=LOSS)
    for step, value in points.items():
        history.add(step, None, {} if value is None else {"val_loss": value})
    assert (history.steps_to_target if points else None) == expected


def test_a_score_has_to_rise() -> None:
    assert steps_to_target(rows({0: 0.1, 10: 0.8, 1000: 1.0}, "val_accuracy"), SCORE) == pytest.approx(100.0)


def test_the_clock_at_the_first_passage_is_that_of_the_passage() -> None:
    target = Target.parse("val_loss<=0.9")
    readings = ((0, 3.0, 0.0), (4, 2.0, 1.0), (16, 1.0, 2.0), (64, 0.5, 20.0))
    run = [{"kind": "evaluation", "step": s, "metrics": {"val_loss": v}, "device_seconds": t} for s, v, t in readings]
    steps, values, clock = ([float(reading[i]) for reading in readings[1:]] for i in range(3))
    passed = steps_to_target(run, target)
    assert passed is not None
    expected = first_passage(steps, values, 0.9, rising=False, clock=clock)
    assert seconds_at(run, passed) == pytest.approx(expected)
    assert seconds_at(run, 65) is None


def test_a_run_whose_pace_varies_has_a_wider_clock() -> None:
    def spread(seconds: tuple[float, ...]) -> float:
        ends = range(len(seconds) + 1)
        run = [{"kind": "evaluation", "step": 10 * i, "device_seconds": sum(seconds[:i])} for i in ends]
        return spread_of_clock(run, 10.0 * len(seconds))

    assert spread((1.0, 1.0, 1.0, 1.0)) == 0.02
    assert spread((1.0, 2.0, 1.0, 2.0)) == pytest.approx(math.log(2) / 2 / math.sqrt(3))
    assert spread((1.0,)) > 0.02


def test_the_first_of_several_in_a_row_counts_and_gaps_do_not() -> None:
    steps, values = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0], [3.0, 1.0, 2.5, math.nan, 1.5, 1.0]
    assert first_passage(steps, values, 2.0, rising=False) == pytest.approx(2**0.5)
    assert first_passage(steps, values, 2.0, rising=False, confirm=2) == pytest.approx(8.0)  # half-way from 4 to 16
    assert first_passage(steps, values, 2.0, rising=False, confirm=3) is None
    assert first_passage(steps[1:], [1.0, 1.0, 3.0, 1.0, 1.0], 2.0, rising=False, confirm=2) == 2.0


def test_a_run_that_held_a_value_less_long_than_it_takes_did_not_come_as_far() -> None:
    values = {0: 0.1, 4: 0.6, 8: 0.9, 16: 0.7, 32: 0.8}
    rows = [{"kind": "evaluation", "step": step, "metrics": {"acc": value}} for step, value in values.items()]
    once, twice = (Target(metric="acc", value=0.95, mode="max", confirm=k) for k in (1, 2))
    assert best_held(rows, once) == (0.9, 8)
    assert best_held(rows, twice) == (0.7, 8)
    assert best_held(rows[:1], twice) is None
    reached = Target(metric="acc", value=0.7, mode="max", confirm=2)
    assert up_to_target(curve_of(rows, reached), reached) == [(0, 0.1), (4, 0.6), (8, 0.9)]
    assert steps_to_target(rows, reached) == pytest.approx(4 * 2 ** (1 / 3))
