"""The step-time fit against simulated truth, with and without noise."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscope.fits.step_time import accumulation, draw_log_seconds, fit_step_time, step_time_of
from batchscope.store.records import Bench, HardwareProfile, Reading

SIZES = (1, 4, 16, 64, 256, 1024)


def simulated(knee: float, noise: float, seed: int, sizes: tuple[int, ...] = SIZES) -> list[tuple[int, float]]:
    draw = np.random.default_rng(seed)
    return [(m, 1e-3 * (1 + m / knee) * math.exp(noise * draw.standard_normal())) for m in sizes]


@pytest.mark.parametrize("knee", [4.0, 64.0, 512.0, 4096.0])
def test_without_noise_the_knee_and_the_costs_are_exact(knee: float) -> None:
    fitted = fit_step_time(simulated(knee, 0.0, 0))
    assert fitted.hardware_knee.value == pytest.approx(knee, rel=0.01)
    assert fitted.fixed_s == pytest.approx(1e-3, rel=0.01)
    assert fitted.per_example_s == pytest.approx(1e-3 / knee, rel=0.01)
    for m in (1, 2, 10, 100, 700, 1024, 5000):
        assert fitted.seconds(m) == pytest.approx(1e-3 * (1 + m / knee), rel=0.02)


@pytest.mark.parametrize("knee", [16.0, 64.0, 512.0])
@pytest.mark.parametrize("noise", [0.03, 0.15])
def test_the_interval_of_the_knee_holds_the_truth_nine_times_in_ten(knee: float, noise: float) -> None:
    estimates = [fit_step_time(simulated(knee, noise, seed)).hardware_knee for seed in range(100)]
    held = sum((e.low or 0.0) <= knee <= (e.high or math.inf) for e in estimates)
    assert held >= 85
    errors = [abs(math.log(e.value / knee)) for e in estimates if e.value]
    assert np.median(errors) <= 3 * noise


def test_one_disturbed_reading_has_little_pull() -> None:
    points = simulated(64.0, 0.01, 1)
    points[2] = (points[2][0], points[2][1] * 5)
    assert fit_step_time(points).hardware_knee.value == pytest.approx(64.0, rel=0.05)


def test_a_constant_time_leaves_the_knee_open_above() -> None:
    knee = fit_step_time([(m, 1e-3) for m in (1, 4, 16, 64)]).hardware_knee
    assert knee.high is None
    assert knee.low is not None
    assert knee.low > 64


def test_a_time_in_proportion_leaves_the_knee_open_below() -> None:
    knee = fit_step_time([(m, 1e-3 * m) for m in (1, 4, 16, 64)]).hardware_knee
    assert knee.low is None
    assert knee.high is not None
    assert knee.high < 1


def test_one_reading_gives_a_time_and_no_knee() -> None:
    fitted = fit_step_time([(32, 0.01)])
    assert fitted.hardware_knee.value is None
    assert fitted.seconds(32) == pytest.approx(0.01)
    assert fitted.seconds(64) >= 0.01


def test_two_readings_give_a_wide_interval() -> None:
    knee = fit_step_time([(1, 1e-3), (1024, 17e-3)]).hardware_knee
    assert knee.value == pytest.approx(64, rel=0.02)
    assert (knee.low or 0) < 40
    assert (knee.high or math.inf) > 100


def test_accumulation_pays_the_optimizer_once() -> None:
    fitted = fit_step_time([(m, 3e-3 + 1e-5 * m) for m in SIZES], update_s=1e-3)
    assert fitted.of_batch(1024, 1024) == pytest.approx(3e-3 + 1e-5 * 1024, rel=1e-3)
    assert fitted.of_batch(1024, 256) == pytest.approx(4 * (2e-3 + 1e-5 * 256) + 1e-3, rel=1e-3)
    assert fitted.of_batch(4096, 256) > fitted.of_batch(4096, 512)


def bench_of(largest: int, update_s: float = 1e-3) -> Bench:
    """A card whose step takes 1 ms, 20 µs for each example, and `update_s` for the optimizer."""
    sizes = tuple(size for size in (1, 4, 16, 50, 128, 512) if size <= largest)
    times = tuple((size, 1e-3 + 2e-5 * size + update_s) for size in sizes)
    return Bench(
        profile=HardwareProfile(name="a card", step_time_s=times),
        readings=tuple(
            Reading(micro_batch_size=size, step_time_s=seconds, gradient_time_s=seconds - update_s)
            for size, seconds in times
        ),
        split=None,
        largest_micro_batch_size=largest,
        largest_verified=True,
    )


@pytest.mark.parametrize("batch_size", [1, 16, 50, 64, 100, 128, 512])
def test_a_step_of_a_bench_is_accumulated_from_equal_micro_batches(batch_size: int) -> None:
    """128 in parts of at most 50 are 4 of 32, as a recipe has them: not 3 of 42.7."""
    micro, parts = accumulation(batch_size, 50)
    expected = parts * (1e-3 + 2e-5 * micro) + 1e-3
    assert step_time_of(bench_of(50)).of_batch(batch_size) == pytest.approx(expected, rel=1e-3)


def test_the_optimizer_s_part_is_the_median_over_the_readings_that_have_it() -> None:
    bench = bench_of(50)
    assert step_time_of(bench).update_s == pytest.approx(1e-3)
    disturbed = (replace(bench.readings[0], gradient_time_s=1.0), *bench.readings[1:])
    assert step_time_of(replace(bench, readings=disturbed)).update_s == pytest.approx(1e-3)
    assert step_time_of(replace(bench, readings=())).update_s == 0.0
    assert step_time_of(replace(bench, readings=())).of_batch(128) == pytest.approx(4 * (2e-3 + 2e-5 * 32), rel=1e-3)


def test_without_a_largest_size_any_batch_fits_at_once() -> None:
    fitted = fit_step_time(bench_of(512).profile.step_time_s)
    assert fitted.of_batch(4096) == fitted.seconds(4096)
    assert fitted.of_batch(4096, 512) == pytest.approx(8 * fitted.seconds(512))


@given(st.integers(1, 10**5), st.integers(1, 10**5))
def test_accumulation_makes_equal_micro_batches_that_fit(batch_size: int, largest: int) -> None:
    micro, parts = accumulation(batch_size, largest)
    assert micro * parts == batch_size
    assert micro <= largest
    assert not any(batch_size % p == 0 and batch_size // p <= largest for p in range(1, min(parts, 500)))


readings = st.lists(
    st.tuples(st.integers(1, 10**6), st.floats(1e-5, 1e2)), min_size=1, max_size=8, unique_by=lambda point: point[0]
)


@given(readings, st.lists(st.floats(1, 1e7), min_size=2, max_size=20))
def test_the_time_never_falls_with_the_size_and_is_positive(
    points: list[tuple[int, float]], sizes: list[float]
) -> None:
    fitted = fit_step_time(points)
    times = [fitted.seconds(size) for size in sorted(sizes)]
    assert all(t > 0 and math.isfinite(t) for t in times)
    assert all(b >= a * (1 - 1e-9) for a, b in pairwise(times))


@given(readings)
def test_the_curve_runs_through_readings_that_rise(points: list[tuple[int, float]]) -> None:
    rising = list(zip(sorted(m for m, _ in points), sorted(t for _, t in points), strict=True))
    fitted = fit_step_time(rising)
    for size, seconds in rising:
        assert fitted.seconds(size) == pytest.approx(seconds, rel=1e-6)


@given(readings)
def test_the_knee_lies_in_its_interval(points: list[tuple[int, float]]) -> None:
    knee = fit_step_time(points).hardware_knee
    if knee.value is not None:
        assert (knee.low or 0.0) <= knee.value <= (knee.high or math.inf)


@pytest.mark.parametrize(
    "points", [[], [(1, 0.0)], [(1, math.nan)], [(0, 1.0)], [(1, 1.0), (1, 2.0)], [(1, math.inf)], [(1, -1.0)]]
)
def test_impossible_readings_are_refused(points: list[tuple[int, float]]) -> None:
    with pytest.raises(ValueError, match="step time"):
        fit_step_time(points)


def test_drawn_times_run_through_the_points_and_doubt_what_lies_beyond() -> None:
    points = simulated(knee=100, noise=0.0, seed=0, sizes=(16, 64, 256))
    drawn = draw_log_seconds(points, (16, 32, 64, 256, 1024, 8192), draws=400)
    spread, middle = drawn.std(axis=0), np.median(drawn, axis=0)
    np.testing.assert_allclose(drawn[:, [0, 2, 3]], np.log([t for _, t in points])[None, :].repeat(400, 0), atol=1e-9)
    assert 0 < spread[1] < 0.1 < spread[4] < spread[5]
    for at, size in ((1, 32), (4, 1024)):
        assert math.exp(middle[at]) == pytest.approx(1e-3 * (1 + size / 100), rel=0.15)


def test_a_draw_is_one_curve_whatever_it_is_asked() -> None:
    points = simulated(knee=100, noise=0.0, seed=0, sizes=(16, 64, 256))
    together = draw_log_seconds(points, (8, 100, 5000), draws=50, seed=3)
    for i, size in enumerate((8, 100, 5000)):
        np.testing.assert_allclose(draw_log_seconds(points, (size,), draws=50, seed=3)[:, 0], together[:, i])


def test_one_point_says_nothing_of_the_knee() -> None:
    drawn = draw_log_seconds([(64, 0.01)], (64, 64 * 16), draws=400)
    low, high = np.quantile(drawn[:, 1] - math.log(0.01), (0.05, 0.95))
    assert drawn[:, 0] == pytest.approx(math.log(0.01))
    assert low < 0.5
    assert high > math.log(8)


@pytest.mark.parametrize("loading_is", ["overlapped", "added", "included"])
def test_the_parts_of_a_step_in_training_are_those_of_its_time(loading_is: str) -> None:
    loading = fit_step_time([(1, 2e-3), (100, 0.2)])
    timed = replace(fit_step_time([(1, 0.01), (100, 0.02)]), loading=loading, loading_is=loading_is)
    trained = replace(timed, in_training=((1, 0.5), (100, 2.0)))
    for size in (1, 30, 100, 300):
        factor = trained.factor_in_training(size)
        assert trained.of_batch(size) == pytest.approx(factor * timed.of_batch(size))
        assert trained.parts_of_batch(size) == pytest.approx([factor * part for part in timed.parts_of_batch(size)])
        assert trained.binds(size) == timed.binds(size)
