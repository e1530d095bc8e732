"""Rounds of step times: what a ratio keeps out, what is counted, and when rounds end; on a scripted clock."""

from __future__ import annotations

import random

import pytest
import torch

from batchscope.errors import UsageError
from batchscope.hardware.step_rounds import StepRounds, measure_rounds
from batchscope.testing.fake_device import FakeDevice


def test_each_size_has_its_time_in_each_round() -> None:
    device = FakeDevice(step_time_s=lambda m: 1e-3 + 1e-5 * m)
    found = measure_rounds(device.workload(examples=500), [1, 64, 500], rounds=4)
    assert found.sizes == (1, 64, 500)
    assert len(found.seconds) == 4
    for row in found.seconds:
        assert row == pytest.approx([1e-3 + 1e-5 * m for m in found.sizes])
    assert found.notes == ()


def test_the_sizes_take_turns_after_a_round_that_is_not_counted() -> None:
    calls: dict[int, int] = {}

    def slow_at_first(m: int) -> float:
        calls[m] = calls.get(m, 0) + 1
        return 1.0 if calls[m] <= (2 if m == 4 else 1) else 0.01

    device = FakeDevice(step_time_s=slow_at_first)
    found = measure_rounds(device.workload(examples=10), [4, 2], rounds=2, budget_s=1e3)
    assert device.sizes == [4, *(4, 4, 2, 2), *[4] * 5, *[2] * 5, *[4] * 5, *[2] * 5]
    assert [x for row in found.seconds for x in row] == pytest.approx([0.01] * 4)
    assert found.device_seconds == pytest.approx(device.clock() - 1.0)


def test_a_disturbance_of_all_sizes_is_in_no_ratio() -> None:
    """The machine becomes slower and slower: times more than triple, and their ratio in a round hardly moves."""
    device = FakeDevice(step_time_s=lambda m: (1 + 0.5 * device.now) * 1e-4 * m)
    found = measure_rounds(device.workload(examples=1000), [50, 100], rounds=40, budget_s=1e3)
    assert found.seconds[-1][0] > 3 * found.seconds[0][0]
    for small, large in found.seconds:
        assert large / small == pytest.approx(2.0, rel=0.03)


def test_the_median_withstands_a_disturbed_step() -> None:
    noise = random.Random(0)
    device = FakeDevice(step_time_s=lambda m: 1e-3 * (50 if noise.random() < 0.1 else 1))
    found = measure_rounds(device.workload(examples=10), [1, 10], rounds=7)
    assert sum(x == pytest.approx(1e-3) for row in found.seconds for x in row) >= 13


def test_long_steps_are_timed_fewer_times() -> None:
    device = FakeDevice(step_time_s=lambda m: 1e-3 * m)
    found = measure_rounds(device.workload(examples=200), [1, 30, 50, 100, 200], rounds=3)
    assert found.steps == (5, 5, 3, 2, 1)
    assert len(found.seconds) == 3
    assert found.notes == ()


def test_fewer_steps_where_three_rounds_would_not_fit() -> None:
    device = FakeDevice(step_time_s=lambda m: 0.03)
    found = measure_rounds(device.workload(examples=4), [1, 2, 3, 4], budget_s=1.0)
    assert found.steps == (2, 2, 2, 2)
    assert len(found.seconds) == 3
    assert found.device_seconds <= 1.0
    assert found.notes[0] == "at most 2 steps of each size were timed in a round, to have more rounds"
    assert found.notes[1] == "3 of 7 rounds were made: they took 0.96 s, and the budget was 1 s"


@pytest.mark.parametrize(("budget_s", "rounds"), [(100.0, 7), (9.5, 7), (7.0, 5), (4.0, 3), (2.5, 3), (1.5, 1)])
def test_the_budget_ends_the_rounds_but_three_may_overdraw_it(budget_s: float, rounds: int) -> None:
    """A round of one step of each size is 1 s, and the one that is not counted 2 s."""
    device = FakeDevice(step_time_s=lambda m: 0.25 * m)
    found = measure_rounds(device.workload(examples=4), [1, 3], budget_s=budget_s)
    assert len(found.seconds) == rounds
    assert found.steps == (1, 1)
    assert found.device_seconds <= max(2 * budget_s, 3.0 + 1e-9)
    assert bool(found.notes) == (rounds < 7)


def test_the_callers_generator_is_left_alone_and_time_passes_on_a_real_clock() -> None:
    from batchscope.tasks.loading import load_task
    from batchscope.tasks.workload import Workload

    workload = Workload(load_task("digits").task)
    state = torch.get_rng_state()
    found = measure_rounds(workload, [1, 64], rounds=2, budget_s=1.0)
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(found, StepRounds)
    assert all(0 < x < 1 for row in found.seconds for x in row)


@pytest.mark.parametrize(("sizes", "rounds"), [([], 3), ([0], 3), ([1, 11], 3), ([1], 0)])
def test_impossible_requests(sizes: list[int], rounds: int) -> None:
    with pytest.raises(UsageError, match="out of 10 examples"):
        measure_rounds(FakeDevice().workload(examples=10), sizes, rounds=rounds)
