"""A bench before a search: it takes no step that is long beside the training that it serves."""

from __future__ import annotations

import pytest

from batchscope.fits.step_time import step_time_of
from batchscope.hardware.bench import measure
from batchscope.hardware.training_guess import TrainingGuess
from batchscope.testing.fake_device import FakeDevice

GUESS = TrainingGuess(batch_size=128, steps=100.0)


@pytest.mark.parametrize(("fixed_s", "each_s", "largest"), [(1e-3, 1e-4, 2000), (0.01, 1e-3, 600), (0.0, 0.01, 600)])
def test_no_step_is_long_and_larger_ones_follow_from_the_line(fixed_s: float, each_s: float, largest: int) -> None:
    """About 0.125 s, or two steps of 128 examples where these take longer."""
    device = FakeDevice(step_time_s=lambda m: fixed_s + each_s * m, capacity=10**9)
    bench = measure(device.workload(examples=25_000), training=GUESS)
    assert max(device.sizes) <= largest
    assert bench.largest_micro_batch_size == 25_000
    assert not bench.largest_verified
    assert step_time_of(bench).seconds(4096) == pytest.approx(fixed_s + each_s * 4096, rel=0.05)


def test_where_larger_steps_take_no_longer_they_are_run() -> None:
    device = FakeDevice(step_time_s=lambda m: 0.2 + 1e-6 * m, capacity=10**9)
    bench = measure(device.workload(examples=25_000), training=GUESS)
    assert max(device.sizes) == 25_000
    assert bench.largest_verified


def test_a_bench_for_itself_runs_what_its_budget_allows() -> None:
    device = FakeDevice(step_time_s=lambda m: 1e-3 + 1e-4 * m, capacity=10**9)
    assert measure(device.workload(examples=15_000)).largest_verified


def test_a_second_step_that_does_not_fit_ends_it_all_the_same() -> None:
    device = FakeDevice(peak_bytes=lambda m: 10.0 * m + (900 if m > 1 else 0), capacity=500)
    bench = measure(device.workload(examples=1000), training=GUESS)
    assert bench.largest_micro_batch_size == 1
