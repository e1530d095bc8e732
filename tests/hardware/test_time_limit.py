"""The time limit, and measurements of the hardware that it shortens, by the clock of a fake device."""

from __future__ import annotations

import math

import pytest

from batchscope.errors import OutOfTime
from batchscope.hardware.bench import measure
from batchscope.hardware.loading_times import measure_loading_times
from batchscope.hardware.step_memory import measure_step_memory
from batchscope.hardware.time_limit import NO_LIMIT, TimeLimit
from batchscope.testing import FakeDevice

EXAMPLES = 4096


def slow_device() -> FakeDevice:
    return FakeDevice(step_time_s=lambda size: 0.02 * (1.0 + size / 64))


def limit_of(device: FakeDevice, seconds: float) -> TimeLimit:
    return TimeLimit.after(seconds, clock=device.wall_clock)


def test_parts_of_a_limit_share_its_clock_and_its_account() -> None:
    device = FakeDevice()
    whole = limit_of(device, 10.0)
    part = whole.share(0.5, most_s=3.0)
    assert (part.left_s, whole.before(4.0).left_s) == (3.0, 6.0)
    with part.spending("waiting"):
        device.now = 8.0
    assert whole.spent == {"waiting": 8.0}
    assert part.passed
    assert not whole.passed
    whole.require(2.0)
    with pytest.raises(OutOfTime) as refused:
        whole.require(2.5)
    assert refused.value.needs_s == 2.5


def test_without_an_end_nothing_is_late_or_counted() -> None:
    with NO_LIMIT.spending("anything"):
        assert NO_LIMIT.share(0.1).left_s == math.inf
    assert NO_LIMIT.spent == {}


@pytest.mark.parametrize("seconds", [0.1, 0.5, 2.0])
def test_a_bench_ends_in_time_with_fewer_sizes_and_says_so(seconds: float) -> None:
    device = slow_device()
    bench = measure(device.workload(examples=EXAMPLES), budget_s=16.0, until=limit_of(device, seconds))
    whole_device = slow_device()
    whole = measure(whole_device.workload(examples=EXAMPLES), budget_s=16.0)
    assert bench.cut_short
    assert not whole.cut_short
    assert 1 <= len(bench.profile.step_time_s) < len(whole.profile.step_time_s)
    assert device.now <= max(1.1 * seconds, 5 * 0.021) < whole_device.now
    assert bench.largest_micro_batch_size == EXAMPLES
    assert not bench.largest_verified


def test_memory_of_sizes_that_do_not_fit_into_the_time_is_left_out() -> None:
    device = slow_device()
    found = measure_step_memory(device.workload(examples=EXAMPLES), [8, 64, 4096], until=limit_of(device, 1.0))
    assert [size for size, _ in found] == [8, 64]
    assert device.now <= 1.0


def test_loading_is_taken_from_one_example_where_no_loader_can_be_opened() -> None:
    device = FakeDevice()
    workload = device.workload(examples=EXAMPLES, example_time_s=0.01, workers=2)
    found = measure_loading_times(workload, [4, 16], [0.1, 0.1], example_s=0.01, until=limit_of(device, 0.1))
    assert found.seconds == pytest.approx((0.02, 0.08))
    assert found.notes
