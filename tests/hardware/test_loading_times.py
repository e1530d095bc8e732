"""Loading in the time of a step: what the loop waits for is timed, at the loader's pace; the clock follows a script."""

from __future__ import annotations

import multiprocessing
from collections.abc import Generator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from batchscope.fits.step_time import step_time_of
from batchscope.hardware.bench import measure
from batchscope.hardware.loading_times import measure_loading_times
from batchscope.hardware.step_times import measure_step_times
from batchscope.store.records import Bench, RunConfig
from batchscope.tasks.protocol import task
from batchscope.tasks.workload import Workload
from batchscope.testing.fake_device import FakeDevice
from batchscope.training.loop import train

EXAMPLE_S = 2e-3
SIZES = [1, 4, 16, 64]


def compute_s(size: int) -> float:
    return 5e-3 + 1e-5 * size


def device() -> FakeDevice:
    return FakeDevice(step_time_s=compute_s)


def bench(example_time_s: float | None = EXAMPLE_S, workers: int = 0) -> Bench:
    return measure(device().workload(examples=100, example_time_s=example_time_s, workers=workers), budget_s=1e4)


def test_without_workers_a_step_waits_for_its_batch_and_then_computes() -> None:
    workload = device().workload(examples=100, example_time_s=EXAMPLE_S)
    for reading in measure_step_times(workload, SIZES, budget_s=1e4).readings:
        size = reading.micro_batch_size
        assert reading.compute_time_s == pytest.approx(compute_s(size))
        assert reading.gradient_time_s == pytest.approx(0.9 * compute_s(size))
        assert reading.loading_time_s == pytest.approx(EXAMPLE_S * size)
        assert reading.step_time_s == pytest.approx(compute_s(size) + EXAMPLE_S * size)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_with_workers_a_step_takes_the_longer_of_the_two_and_not_their_sum(workers: int) -> None:
    workload = device().workload(examples=100, example_time_s=EXAMPLE_S, workers=workers)
    for reading in measure_step_times(workload, SIZES, budget_s=1e4).readings:
        size = reading.micro_batch_size
        assert reading.loading_time_s == pytest.approx(EXAMPLE_S * size / workers, rel=0.01)
        assert reading.step_time_s == pytest.approx(max(compute_s(size), EXAMPLE_S * size / workers), rel=0.01)


def test_tensors_in_memory_cost_nothing_to_load() -> None:
    found = bench(example_time_s=None)
    assert {r.loading_time_s for r in found.readings if r.step_time_s is not None} == {0.0}
    assert found.profile.loading_time_s == ()
    assert all(r.step_time_s == r.compute_time_s for r in found.readings)
    assert step_time_of(found).loading is None


class Indexed(Workload):
    """Tensors in memory whose batches take a scripted time to cut."""

    def __init__(self, made: Workload, seconds: float) -> None:
        self.__dict__.update(made.__dict__)
        self.seconds = seconds

    def micro_batches(self, batch_size: int, parts: Any, seed: int) -> Generator[list[Any]]:
        for batches in super().micro_batches(batch_size, parts, seed):
            assert isinstance(self.device, FakeDevice)
            self.device.now += self.seconds
            yield batches


@pytest.mark.parametrize(("share", "counts"), [(0.015, False), (0.3, True)])
def test_cutting_batches_in_memory_counts_from_two_per_cent_of_a_step_on(share: float, counts: bool) -> None:
    workload = Indexed(device().workload(examples=100), share * compute_s(1))
    found = measure_step_times(workload, [1, 8], budget_s=1e4).readings
    for reading in found:
        whole = compute_s(reading.micro_batch_size) + (share * compute_s(1) if counts else 0.0)
        assert reading.step_time_s == pytest.approx(whole)


def test_the_budget_bounds_the_timing_and_larger_batches_follow_in_proportion() -> None:
    fake = device()
    workload = fake.workload(examples=4096, example_time_s=EXAMPLE_S)
    sizes = [1, 16, 256, 4096]
    found = measure_loading_times(workload, sizes, [compute_s(s) for s in sizes], budget_s=4.0)
    assert found.spent_s <= 4.0
    assert found.seconds == pytest.approx([EXAMPLE_S * size for size in sizes], rel=0.01)
    assert any("up to batches of 256" in note for note in found.notes)


def test_the_bench_knows_which_of_the_two_sets_the_time_at_each_batch_size() -> None:
    found = bench(workers=2)
    step_time = step_time_of(found)
    assert found.loader_workers == 2
    assert dict(found.profile.step_time_s)[100] == pytest.approx(0.1)
    assert dict(found.profile.loading_time_s)[100] == pytest.approx(0.1)
    assert [step_time.binds(size) for size in (1, 4, 8, 100)] == ["compute", "compute", "loading", "loading"]
    assert step_time.of_batch(2) == pytest.approx(compute_s(2), rel=0.01)
    assert step_time.of_batch(50) == pytest.approx(0.05, rel=0.01)
    alone = step_time_of(bench(example_time_s=None))
    assert step_time.hardware_knee == alone.hardware_knee, "the knee is that of computing"
    added = step_time_of(bench())
    assert added.of_batch(50) == pytest.approx(compute_s(50) + 0.1, rel=0.01)
    assert added.of_batch(100, 50) == pytest.approx(2 * (0.9 * compute_s(50) + 0.1) + 0.1 * compute_s(50), rel=0.02)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_takes_as_long_as_the_bench_says(workers: int) -> None:
    workload = device().workload(examples=100, example_time_s=EXAMPLE_S, workers=workers)
    step_s = step_time_of(bench(workers=workers)).of_batch(50)
    steps = 200
    config = RunConfig(task="fake", batch_size=50, micro_batch_size=50, lr=1e-3, max_steps=steps)
    taken = train(workload, config).device_seconds
    assert taken == pytest.approx(steps * step_s, rel=0.05), "workers also load during evaluations"


class Numbers(Dataset[Tensor]):
    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Tensor:
        return torch.full((1,), float(index))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_are_gone_when_the_timing_is_over() -> None:
    made = task(
        model=lambda: torch.nn.Linear(1, 1),
        train=Numbers(),
        loss=lambda model, batch: model(batch).square().mean(),
        optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
        name="numbers",
    )
    workload = Workload(made)
    workload.loader_workers = 2
    before = set(multiprocessing.active_children())
    found = measure_loading_times(workload, [1, 8], [1e-3, 1e-3])
    assert all(seconds > 0 for seconds in found.seconds)
    assert set(multiprocessing.active_children()) == before


class Uneven(Workload):
    """Batches of which every sixth takes twenty times as long to load."""

    def __init__(self, made: Workload) -> None:
        self.__dict__.update(made.__dict__)
        self.made = 0

    def micro_batches(self, batch_size: int, parts: Any, seed: int) -> Generator[list[Any]]:
        for batches in super().micro_batches(batch_size, parts, seed):
            assert isinstance(self.device, FakeDevice)
            self.made += 1
            self.device.now += 0.1 if self.made % 6 == 0 else 0.005
            yield batches


def test_examples_that_take_very_different_times_count_with_their_mean_and_are_said() -> None:
    workload = Uneven(device().workload(examples=100, example_time_s=1e-4))
    found = measure_loading_times(workload, [4, 8, 16], [1e-3] * 3, budget_s=1e4)
    (note,) = found.notes
    assert note.startswith("examples take very different times to load: of 8 batches of 4 the slowest took 100 ms, ")
    assert found.seconds[0] == pytest.approx((0.1 + 7 * 0.005) / 8 + 4e-4, rel=0.5)
