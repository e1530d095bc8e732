"""The memory model against simulated truth: a floor, then a straight line."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from batchscope.fits.memory import fit_memory


@given(base=st.floats(1, 1e9), extra=st.floats(0, 1e9), each=st.floats(1, 1e7), at=st.integers(1, 1000))
def test_two_readings_off_the_floor_predict_the_truth_far_out(base: float, extra: float, each: float, at: int) -> None:
    assume(each * at > extra)
    points = [(m, base + max(extra, each * m)) for m in (at, 4 * at)]
    model = fit_memory(points, base_bytes=base, floor_bytes=base + extra)
    for m in (1, 2 * at, 16 * at, 1000 * at):
        assert model.peak_bytes(m) == pytest.approx(base + max(extra, each * m), rel=1e-6)
    assert model.peak_bytes(1) >= base + extra


@given(base=st.floats(1, 1e9), extra=st.floats(0, 1e9), each=st.floats(1, 1e7), at=st.integers(1, 1000))
def test_the_cautious_bound_holds_from_readings_on_the_floor(base: float, extra: float, each: float, at: int) -> None:
    def truth(m: int) -> float:
        return base + max(extra, each * m)

    for sizes in ((at,), (at, 4 * at), (at, 2 * at, 4 * at), (at, 3 * at, 5 * at, 6 * at)):
        model = fit_memory([(m, truth(m)) for m in sizes], base_bytes=base)
        for m in (sizes[-1] + 1, 4 * sizes[-1], 100 * sizes[-1]):
            assert model.cautious_bytes(m) >= truth(m) * (1 - 1e-9) or model.per_example_bytes >= 0.8 * each


@given(base=st.floats(1, 1e6), bend=st.floats(0.01, 100), at=st.integers(1, 100))
def test_the_cautious_bound_is_exact_for_a_parabola(base: float, bend: float, at: int) -> None:
    points = [(m, base + bend * m * m) for m in (at, 4 * at, 16 * at)]
    model = fit_memory(points, base_bytes=base)
    assert model.cautious_bytes(64 * at) == pytest.approx(base + bend * (64 * at) ** 2, rel=1e-6)
    assert model.peak_bytes(64 * at) < model.cautious_bytes(64 * at)


points_of_any_kind = st.lists(
    st.tuples(st.integers(1, 10**5), st.floats(1, 1e12)), min_size=1, max_size=6, unique_by=lambda point: point[0]
)


@given(points_of_any_kind, st.integers(1, 10**6), st.integers(1, 10**6), st.booleans())
def test_memory_never_falls_with_the_size(
    points: list[tuple[int, float]], one: int, other: int, cautious: bool
) -> None:
    model = fit_memory(points)
    peak = model.cautious_bytes if cautious else model.peak_bytes
    small, large = sorted((one, other))
    assert peak(small) <= peak(large) * (1 + 1e-9)
    assert model.cautious_bytes(large) >= model.peak_bytes(large) * (1 - 1e-9)


@given(points_of_any_kind, st.floats(1, 1e13), st.integers(1, 10**6), st.booleans())
def test_the_largest_size_for_a_limit_is_the_largest(
    points: list[tuple[int, float]], limit: float, most: int, cautious: bool
) -> None:
    model = fit_memory(points)
    peak = model.cautious_bytes if cautious else model.peak_bytes
    largest = model.largest_for(limit, most=most, cautious=cautious)
    assert 0 <= largest <= most
    if largest:
        assert peak(largest) <= limit
    if largest < most:
        assert peak(largest + 1) > limit


def test_a_noisy_reading_that_falls_gives_no_negative_slope() -> None:
    model = fit_memory([(8, 1000.0), (16, 990.0)])
    assert model.per_example_bytes == 0
    assert model.peak_bytes(10**6) == 990


@pytest.mark.parametrize("points", [[], [(0, 1.0)], [(1, 0.0)], [(1, math.nan)], [(1, math.inf)]])
def test_impossible_readings_are_refused(points: list[tuple[int, float]]) -> None:
    with pytest.raises(ValueError, match="memory reading"):
        fit_memory(points)
