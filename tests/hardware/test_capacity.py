"""The search for the largest micro-batch, on a device whose memory follows a script."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import Dataset

from batchscope.errors import TaskError, UsageError
from batchscope.fits.memory import HEADROOM
from batchscope.hardware.bench import measure
from batchscope.hardware.capacity import measure_capacity
from batchscope.tasks.protocol import task
from batchscope.tasks.workload import Workload
from batchscope.testing.fake_device import FakeDevice

Peak = Callable[[int], float]


def truth(peak: Peak, capacity: float, top: int) -> int:
    """The largest size that really fits, found by looking at the script itself."""
    return max((m for m in range(1, top + 1) if peak(m) <= capacity * (1 - HEADROOM)), default=0)


@pytest.mark.parametrize(
    ("peak", "capacity", "examples"),
    [
        pytest.param(lambda m: 20 + 10 * m, 3_000, 1000, id="straight line"),
        pytest.param(lambda m: 16 + max(5000, 10 * m), 20_000, 10_000, id="floor of the optimizer step"),
        pytest.param(lambda m: 16 + max(5000, 10 * m), 8_000, 10_000, id="floor close below the limit"),
        pytest.param(lambda m: 1000 + 10 * m, 2_000, 1000, id="constant workspace"),
        pytest.param(lambda m: 1e9 + 1e6 * m, 16 * 10**9, 60_000, id="far from powers of two"),
        pytest.param(lambda m: 100 + m * m, 50_000, 10_000, id="grows with the square"),
        pytest.param(lambda m: 1000 + 1000 * math.ceil(m / 100), 100_000, 20_000, id="in steps"),
    ],
)
def test_f1_the_size_returned_was_run_and_is_the_largest(peak: Peak, capacity: int, examples: int) -> None:
    device = FakeDevice(peak_bytes=peak, capacity=capacity)
    bench = measure(device.workload(examples=examples))
    assert bench.largest_verified
    assert device.sizes.count(bench.largest_micro_batch_size) >= 2
    best = truth(peak, capacity, examples)
    assert best / 1.011 <= bench.largest_micro_batch_size <= best
    assert bench.memory_bound
    assert device.failures == []


def test_f2_a_failure_at_all_examples_ends_the_search_below_it() -> None:
    device = FakeDevice(peak_bytes=lambda m: 10 * m if m < 128 else 1e9, capacity=10**6)
    bench = measure(device.workload(examples=128))
    assert device.failures == [128]
    assert 110 <= bench.largest_micro_batch_size < 128
    assert bench.largest_verified
    assert any("128 examples ran out of memory" in note for note in bench.notes)


def test_f3_f9_nothing_fits_is_an_error_with_the_numbers() -> None:
    device = FakeDevice(peak_bytes=lambda m: 4 * 2**20 * m, capacity=2**40)
    with pytest.raises(
        UsageError, match=r"step of 1 example fits: it needs 4 MiB, and of the limit of 3 MiB 8% stay free"
    ):
        measure(device.workload(examples=100), memory_limit=3 * 2**20)
    device = FakeDevice(peak_bytes=lambda m: 100.0 * m, capacity=50)
    with pytest.raises(UsageError, match="the device ran out of memory"):
        measure(device.workload(examples=100))
    assert set(device.sizes) == {1}


def test_f4_every_reading_is_of_a_whole_training_step() -> None:
    updates: list[int] = []
    device = FakeDevice()
    workload = device.workload(examples=200)
    make = workload.optimizer

    def counted(model: nn.Module, lr: float, changes: None = None) -> torch.optim.Optimizer:
        optimizer = make(model, lr, changes)
        optimizer.register_step_post_hook(lambda *_: updates.append(device.sizes[-1]))
        return optimizer

    workload.optimizer = counted  # type: ignore[method-assign]
    measure(workload)
    assert updates == device.sizes


@pytest.mark.parametrize(("cap", "expected"), [(63, 63), (64, 64), (10**9, 100)])
def test_f5_a_cap_above_the_limit_or_the_data_is_no_start(cap: int, expected: int) -> None:
    device = FakeDevice(peak_bytes=lambda m: 10.0 * m, capacity=10**9)
    bench = measure(device.workload(examples=100), max_batch_size=cap)
    assert bench.largest_micro_batch_size == expected
    assert not bench.memory_bound
    small = FakeDevice(peak_bytes=lambda m: 10.0 * m, capacity=1000)
    assert measure(small.workload(examples=10_000), max_batch_size=8192).largest_micro_batch_size == 92


def test_f6_the_number_of_steps_is_small_and_bounded() -> None:
    device = FakeDevice(peak_bytes=lambda m: 1e6 + 1e3 * m, capacity=10**9)
    measure_capacity(device.workload(examples=60_000), top=60_000, limit_bytes=10**9)
    assert len(device.sizes) <= 10


def test_f7_f8_all_memory_is_used_without_a_starting_guess() -> None:
    device = FakeDevice(peak_bytes=lambda m: 7.0 * m, capacity=70_000)
    bench = measure(device.workload(examples=100_000))
    assert bench.largest_micro_batch_size == 9200
    assert bench.limit_bytes == 70_000


@given(
    fixed=st.floats(1e3, 1e8),
    floor=st.floats(0, 1e9),
    each=st.floats(10, 1e6),
    limit=st.floats(4, 1e4),
    top=st.integers(2, 100_000),
)
def test_f13_no_step_of_an_affine_truth_exceeds_the_device(
    fixed: float, floor: float, each: float, limit: float, top: int
) -> None:
    def peak(m: int) -> float:
        return fixed + max(floor, each * m)

    capacity = int(peak(1) * limit)
    device = FakeDevice(peak_bytes=peak, capacity=capacity, step_time_s=lambda m: 1e-9 * m)
    found = measure_capacity(device.workload(examples=top), top=top, limit_bytes=capacity)
    assert device.failures == []
    assert found.largest == found.largest_run
    assert peak(found.largest) <= capacity
    assert found.largest >= truth(peak, capacity, min(top, 2000)) / 1.011 or found.largest > 2000


@given(power=st.floats(1.0, 2.0), limit=st.floats(4, 1e6))
def test_f13_memory_that_bends_upward_is_not_run_into(power: float, limit: float) -> None:
    def peak(m: int) -> float:
        return 1000 + 100 * m**power

    capacity = int(peak(1) * limit)
    device = FakeDevice(peak_bytes=peak, capacity=capacity, step_time_s=lambda m: 1e-9)
    found = measure_capacity(device.workload(examples=100_000), top=100_000, limit_bytes=capacity)
    assert device.failures == []
    assert found.largest >= truth(peak, capacity, 3000) / 1.02 or found.largest > 3000


def test_where_one_example_takes_most_of_the_memory_one_more_is_tried_once() -> None:
    device = FakeDevice(peak_bytes=lambda m: 650.0 * m, capacity=1000)
    bench = measure(device.workload(examples=100))
    assert device.failures == [2]
    assert (bench.largest_micro_batch_size, bench.largest_verified, bench.memory_bound) == (1, True, True)


def test_f15_a_data_set_that_fits_at_once_is_the_largest_batch() -> None:
    device = FakeDevice(peak_bytes=lambda m: 10.0 * m, capacity=2**40)
    bench = measure(device.workload(examples=1347))
    assert (bench.largest_micro_batch_size, bench.largest_verified, bench.memory_bound) == (1347, True, False)
    assert max(device.sizes) == 1347


def test_f18_a_failed_step_leaves_no_model_and_no_batch_behind() -> None:
    device = FakeDevice(peak_bytes=lambda m: 10.0 * m if m < 64 else 1e12, capacity=10**9)
    made: list[weakref.ref[nn.Module]] = []

    def model() -> nn.Module:
        fresh = nn.Linear(1, 1)
        made.append(weakref.ref(fresh))
        return fresh

    measure(device.workload(examples=64, model=model))
    gc.collect()
    assert device.failures
    assert len(made) > 2
    assert [ref for ref in made if ref() is not None] == []


class Sentences(Dataset[torch.Tensor]):
    """Examples of 10 codes; one in fifty has 1000."""

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.ones(1000 if index % 50 == 7 else 10)


class SentenceTask:
    def model(self) -> nn.Module:
        return nn.Linear(1, 4)

    def train_data(self) -> Sentences:
        return Sentences()

    def collate(self, items: list[torch.Tensor]) -> torch.Tensor:
        return nn.utils.rnn.pad_sequence(items, batch_first=True)

    def loss(self, model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return model(batch[..., None]).square().mean()

    def optimizer(self, params, lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=lr)


def test_f20_memory_is_measured_with_the_longest_examples() -> None:
    bench = measure(Workload(SentenceTask()))
    largest = max((r for r in bench.readings if r.peak_memory_bytes), key=lambda r: r.micro_batch_size)
    assert largest.peak_memory_bytes is not None
    assert largest.peak_memory_bytes >= largest.micro_batch_size * 1000 * (1 + 4) * 4
    assert any("examples differ in size" in note for note in bench.notes)


def test_f21_no_step_on_the_cpu_goes_beyond_the_limit() -> None:
    device = FakeDevice(peak_bytes=lambda m: 100 + 8.0 * m, capacity=2**50)
    bench = measure(device.workload(examples=10**5), memory_limit=10_000)
    assert max(100 + 8.0 * m for m in device.sizes) <= 10_000
    assert bench.largest_micro_batch_size == (9200 - 100) // 8


def test_f22_memory_that_others_hold_is_not_counted_on() -> None:
    device = FakeDevice(peak_bytes=lambda m: 10.0 * m, capacity=10**6, free=50_000)
    bench = measure(device.workload(examples=10**5), memory_limit=10**6)
    assert bench.limit_bytes == 50_000
    assert bench.largest_micro_batch_size == 4600
    assert bench.profile.capacity_bytes == 10**6


def test_f34_a_step_that_raises_ends_the_bench_with_the_cause() -> None:
    def broken(model: nn.Module, batch: object) -> torch.Tensor:
        raise KeyError("label")

    data = torch.utils.data.TensorDataset(torch.zeros(10, 1))
    workload = Workload(
        task(
            model=lambda: nn.Linear(1, 1),
            train=data,
            val=data,
            loss=broken,
            optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
        )
    )
    with pytest.raises(TaskError, match=r"fails at micro-batch size 1, 2, 4: .*KeyError: 'label'"):
        measure(workload)


def test_f35_batch_norm_sets_the_smallest_size_and_is_named() -> None:
    device = FakeDevice()
    bench = measure(device.workload(examples=50, model=lambda: nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))))
    assert bench.smallest_micro_batch_size == 2
    assert min(r.micro_batch_size for r in bench.readings) == 2
    assert any("Expected more than 1 value per channel" in note for note in bench.notes)
    assert any("an accumulated batch is not the same" in note for note in bench.notes)


def test_a_step_too_long_to_run_is_predicted_and_says_so() -> None:
    device = FakeDevice(peak_bytes=lambda m: 100 + 10.0 * m, capacity=10**6, step_time_s=lambda m: 0.01 * m)
    bench = measure(device.workload(examples=100_000))
    assert not bench.largest_verified
    assert bench.largest_micro_batch_size == (920_000 - 100) // 10
    assert max(device.sizes) <= 200
    assert any(f"a step of {bench.largest_micro_batch_size} examples was not run" in note for note in bench.notes)


def test_more_than_predicted_shrinks_the_answer() -> None:
    device = FakeDevice(peak_bytes=lambda m: 10.0 * m + (900 if m > 1050 else 0), capacity=12_000)
    bench = measure(device.workload(examples=10_000))
    assert device.failures == []
    assert 1104 in device.sizes
    assert bench.largest_verified
    assert 1040 <= bench.largest_micro_batch_size <= 1050


@pytest.mark.parametrize("option", ["max_batch_size", "memory_limit"])
def test_a_limit_below_one_is_refused(option: str) -> None:
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')} is 0; it must be at least 1"):
        measure(FakeDevice().workload(examples=10), **{option: 0})
