"""Step times: what is timed, how often, and when the bench stops; on a device whose clock follows a script."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from batchscope.fits.step_time import fit_step_time
from batchscope.hardware.step_times import grid, measure_step_times
from batchscope.store.records import Reading
from batchscope.tasks.workload import Workload
from batchscope.testing.fake_device import FakeDevice


def seconds(reading: Reading) -> float:
    assert reading.step_time_s is not None
    return reading.step_time_s


def test_the_gradient_part_and_the_whole_step_are_read() -> None:
    device = FakeDevice(step_time_s=lambda m: 1e-3 + 1e-5 * m, update_share=0.25)
    found = measure_step_times(device.workload(examples=500), [1, 8, 64, 500])
    assert [r.micro_batch_size for r in found.readings] == [1, 8, 64, 500]
    for reading in found.readings:
        truth = 1e-3 + 1e-5 * reading.micro_batch_size
        assert seconds(reading) == pytest.approx(truth)
        assert reading.gradient_time_s == pytest.approx(0.75 * truth)
        assert reading.step_time_mad_s == pytest.approx(0, abs=1e-12)


def test_warm_up_is_not_in_the_reading_but_in_the_price() -> None:
    calls: dict[int, int] = {}

    def slow_at_first(m: int) -> float:
        calls[m] = calls.get(m, 0) + 1
        return 5.0 if calls[m] <= (2 if m == 1 else 1) else 0.01

    device = FakeDevice(step_time_s=slow_at_first)
    found = measure_step_times(device.workload(examples=100), [1, 10, 100], budget_s=1e4)
    assert [seconds(r) for r in found.readings] == pytest.approx([0.01] * 3)
    everything_but_the_first_step = device.clock() - 5.0
    assert found.device_seconds == pytest.approx(everything_but_the_first_step)


def test_the_median_withstands_a_disturbed_step() -> None:
    calls = 0

    def disturbed(m: int) -> float:
        nonlocal calls
        calls += 1
        return 1.0 if calls % 4 == 0 else 0.001

    found = measure_step_times(FakeDevice(step_time_s=disturbed).workload(examples=100), [1, 10, 100])
    assert [seconds(r) for r in found.readings] == pytest.approx([0.001] * 3)


def test_f12_noise_and_dips_do_not_end_the_bench() -> None:
    noise = random.Random(1)
    device = FakeDevice(
        step_time_s=lambda m: (0.8 if m == 16 else 1.0) * (1e-3 + 1e-5 * m) * noise.lognormvariate(0, 0.2)
    )
    sizes = [1, 4, 16, 64, 256, 1000]
    found = measure_step_times(device.workload(examples=1000), sizes)
    assert [r.micro_batch_size for r in found.readings] == sizes
    assert found.notes == ()


def test_few_steps_are_timed_and_fewer_of_the_dear_ones() -> None:
    device = FakeDevice(step_time_s=lambda m: 1e-3 * (1 + m))
    found = measure_step_times(device.workload(examples=1000), [1, 8, 64, 512])
    assert all(3 <= r.steps_timed <= 8 for r in found.readings)
    assert found.readings[-1].steps_timed == 3
    assert len(device.sizes) <= 40


def test_sizes_far_beyond_the_knee_are_not_timed() -> None:
    device = FakeDevice(step_time_s=lambda m: 1e-3 * (1 + m / 10))
    found = measure_step_times(device.workload(examples=60_000), grid(1, 60_000), budget_s=1e4)
    assert max(device.sizes) < 60_000
    assert any("grows in proportion" in note for note in found.notes)
    fitted = fit_step_time([(r.micro_batch_size, seconds(r)) for r in found.readings])
    assert fitted.seconds(60_000) == pytest.approx(1e-3 * (1 + 6_000), rel=0.01)


def test_the_budget_ends_the_bench_with_a_note() -> None:
    device = FakeDevice(step_time_s=lambda m: 0.1 * m)
    found = measure_step_times(device.workload(examples=1000), [1, 10, 100, 1000], budget_s=20)
    assert max(device.sizes) == 10
    assert any("from 100 on were not timed" in note for note in found.notes)


@pytest.mark.parametrize(("smallest", "largest"), [(1, 1), (1, 2), (2, 50), (1, 1347), (4, 10**6)])
def test_sizes_are_geometric_and_hold_both_ends(smallest: int, largest: int) -> None:
    sizes = grid(smallest, largest)
    assert sizes[0] == smallest
    assert sizes[-1] == largest
    assert all(a < b for a, b in pairwise(sizes))
    assert len(sizes) <= 6
    ratio = (largest / smallest) ** (1 / 5)
    assert all(b / a <= 2.1 * max(2.0, ratio) for a, b in pairwise(sizes))


class SlowToLoad(Dataset[torch.Tensor]):
    """Each example takes longer to load than a training step."""

    def __init__(self) -> None:
        self.loaded = 0

    def __len__(self) -> int:
        return 5000

    def __getitem__(self, index: int) -> torch.Tensor:
        self.loaded += 1
        busy = torch.zeros(20_000)
        for _ in range(300):
            busy.add_(1.0)
        return busy[:4].clone()


class SlowTask:
    def __init__(self) -> None:
        self.data = SlowToLoad()

    def model(self) -> nn.Module:
        return nn.Linear(4, 1)

    def train_data(self) -> SlowToLoad:
        return self.data

    def loss(self, model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return model(batch).square().mean()

    def optimizer(self, params, lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=lr)


def test_examples_that_are_slow_to_load_are_repeated_in_the_batches_that_are_timed() -> None:
    task = SlowTask()
    workload = Workload(task)
    before = task.data.loaded
    assert len(workload.disposable(0).draw(4096)) == 4096
    assert task.data.loaded - before < 4000
