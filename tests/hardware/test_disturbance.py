"""A busy machine is recognised from step times, said, and got round; on a device whose clock follows a script."""

from __future__ import annotations

import random
from collections.abc import Callable
from statistics import median

import pytest

from batchscope.fits.step_time import fit_step_time
from batchscope.hardware.bench import measure
from batchscope.hardware.disturbance import TimedSize, find_busy_machine
from batchscope.hardware.step import TimedStep
from batchscope.hardware.step_times import Throughput, measure_step_times
from batchscope.testing.fake_device import FakeDevice

SIZES = [1, 4, 16, 64, 256, 1000]


def truth(size: int) -> float:
    return 1e-4 * (1 + size / 100)


def measured(device: FakeDevice, sizes: list[int] = SIZES, budget_s: float = 8.0) -> Throughput:
    return measure_step_times(device.workload(examples=1000), sizes, budget_s=budget_s)


class Interrupted:
    """Steps that are interrupted for tens of milliseconds: most of the first ones, and a third of all later ones."""

    def __init__(self, seed: int, first: int = 60) -> None:
        self.noise, self.first, self.made = random.Random(seed), first, 0

    def __call__(self, size: int) -> float:
        self.made += 1
        often = 0.7 if self.made <= self.first else 0.33
        return truth(size) + (0.02 * self.noise.paretovariate(2.5) if self.noise.random() < often else 0.0)


def few_steps(step_time_s: Callable[[int], float]) -> list[float]:
    return [median([step_time_s(size) for _ in range(8)]) for size in SIZES]


@pytest.mark.parametrize("seed", range(8))
def test_the_time_without_interruptions_is_found_where_the_median_of_few_steps_is_ten_times_off(seed: int) -> None:
    off = [seconds / truth(size) for size, seconds in zip(SIZES, few_steps(Interrupted(seed)), strict=True)]
    assert max(off) > 10
    found = measured(FakeDevice(step_time_s=Interrupted(seed)))
    assert found.disturbance
    assert [r.micro_batch_size for r in found.readings] == SIZES
    for reading in found.readings:
        assert reading.step_time_s == pytest.approx(truth(reading.micro_batch_size), rel=0.25)
        assert reading.gradient_time_s is not None
        assert reading.gradient_time_s <= reading.step_time_s
        assert reading.step_time_method == "20th percentile"
        assert reading.step_time_median_s is not None
        assert reading.step_time_low_s is not None
        assert reading.step_time_s <= reading.step_time_low_s <= reading.step_time_median_s


def test_a_quiet_machine_has_the_median_and_nothing_to_say() -> None:
    found = measured(FakeDevice(step_time_s=truth, processor_s=lambda m: 1.7 * truth(m), one_thread_s=truth))
    assert found.disturbance == ""
    assert found.notes == ()
    for reading in found.readings:
        assert reading.step_time_s == pytest.approx(truth(reading.micro_batch_size))
        assert reading.step_time_method == "median"


@pytest.mark.parametrize("seed", range(5))
def test_common_noise_and_a_rare_interruption_are_not_a_busy_machine(seed: int) -> None:
    noise = random.Random(seed)

    def step_time_s(size: int) -> float:
        return truth(size) * noise.lognormvariate(0, 0.15) + (2e-3 if noise.random() < 0.003 else 0.0)

    found = measured(FakeDevice(step_time_s=step_time_s, processor_s=lambda m: truth(m)))
    assert found.disturbance == ""
    for reading in found.readings:
        assert reading.step_time_s == pytest.approx(truth(reading.micro_batch_size), rel=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_threads_that_wait_for_one_another_in_every_step_are_recognised_by_one_thread(seed: int) -> None:
    """No step of two threads is undisturbed: each takes from 20 ms to half a second instead of 0.1 ms."""
    noise = random.Random(seed)
    device = FakeDevice(step_time_s=lambda m: noise.uniform(0.02, 0.5), one_thread_s=truth)
    found = measured(device)
    assert [r.micro_batch_size for r in found.readings] == SIZES
    for reading in found.readings:
        assert reading.step_time_s == pytest.approx(truth(reading.micro_batch_size))
        assert reading.step_time_method == "20th percentile, one thread"
    assert "OMP_NUM_THREADS=1 avoids the waiting" in found.disturbance
    assert found.device_seconds <= 8.0 + 2.0


def test_threads_that_cost_some_time_to_start_do_not_wait_for_one_another() -> None:
    found = measured(FakeDevice(step_time_s=lambda m: 2.5 * truth(m), one_thread_s=truth))
    assert found.disturbance == ""
    assert found.readings[0].step_time_s == pytest.approx(truth(1))
    assert found.readings[0].step_time_method == "median, one thread"
    assert found.readings[0].step_time_median_s == pytest.approx(2.5 * truth(1))


def test_on_a_busy_machine_a_size_takes_no_longer_than_a_larger_one() -> None:
    """All steps of one size are interrupted, of the others half."""
    noise = random.Random(0)

    def step_time_s(size: int) -> float:
        return truth(size) + (0.02 if size == 4 or noise.random() < 0.5 else 0.0)

    found = measured(FakeDevice(step_time_s=step_time_s, update_share=0.25))
    at_4 = found.readings[1]
    assert at_4.step_time_s == pytest.approx(truth(16))
    assert at_4.gradient_time_s == pytest.approx(0.75 * truth(16))
    assert at_4.step_time_low_s == pytest.approx(0.02 + truth(4))


def test_the_sentence_has_the_numbers_that_were_seen() -> None:
    found = measured(FakeDevice(step_time_s=Interrupted(3), processor_s=lambda m: truth(m)))
    assert found.notes[0] == found.disturbance
    assert found.disturbance.startswith("the machine was busy while steps were timed: at batch size ")
    for part in (
        " the median step took ",
        " ms, the mean step ",
        " of a processor. Step times are now 20th percentiles of ",
    ):
        assert part in found.disturbance


def sizes_of(*seconds: list[float], processor_share: float | None = None) -> list[TimedSize]:
    return [
        TimedSize(
            size=2**i,
            steps=[
                TimedStep(seconds=s, processor_s=None if processor_share is None else processor_share * s) for s in each
            ],
        )
        for i, each in enumerate(seconds)
    ]


QUIET, DELAYED, UNEVEN = [1.0] * 10, [1.0] * 5 + [10.0] * 5, [1.0] * 8 + [3.0] * 2


@pytest.mark.parametrize(
    ("sizes", "busy"),
    [
        (sizes_of(QUIET, QUIET, QUIET), False),
        (sizes_of(QUIET, QUIET, DELAYED), False),
        (sizes_of(QUIET, DELAYED, DELAYED), True),
        (sizes_of(QUIET, DELAYED), False),
        (sizes_of(DELAYED), True),
        (sizes_of(UNEVEN, UNEVEN, processor_share=0.9), False),
        (sizes_of(UNEVEN, UNEVEN, processor_share=0.6), True),
        (sizes_of(QUIET, QUIET, processor_share=0.2), False),
    ],
)
def test_the_rule(sizes: list[TimedSize], busy: bool) -> None:
    assert (find_busy_machine(sizes) is not None) == busy


def test_sizes_take_turns_after_the_first_steps_of_each() -> None:
    device = FakeDevice(step_time_s=truth)
    measured(device, [1, 4, 16])
    runs = [size for i, size in enumerate(device.sizes) if i == 0 or device.sizes[i - 1] != size]
    assert runs == [1, 4, 16] * 4


def test_large_steps_end_early_and_get_no_rounds_on_a_quiet_machine() -> None:
    device = FakeDevice(step_time_s=lambda m: 0.3 + m / 1000)
    found = measured(device, [1, 2])
    assert [r.steps_timed for r in found.readings] == [3, 3]
    assert device.sizes == [1, *[1] * 4, *[2] * 4]


class Accelerator(FakeDevice):
    """A device that is handed its work ahead."""

    @property
    def works_ahead(self) -> bool:
        return True


def test_on_an_accelerator_the_largest_size_has_no_rounds_and_the_gradient_part_a_pass_of_its_own() -> None:
    device = Accelerator(step_time_s=truth, update_share=0.25)
    found = measured(device, [1, 4, 16])
    assert found.disturbance == ""
    assert found.readings[0].steps_timed == found.readings[1].steps_timed == 5 + 3 * 10
    assert found.readings[2].steps_timed == 5
    assert device.sizes[-20:] == [4] * 20
    for reading in found.readings:
        assert reading.step_time_s == pytest.approx(truth(reading.micro_batch_size))
        assert reading.gradient_time_s == pytest.approx(0.75 * truth(reading.micro_batch_size))


@pytest.mark.parametrize("budget_s", [1.0, 3.0, 8.0])
def test_rounds_on_a_busy_machine_keep_to_the_budget(budget_s: float) -> None:
    noise = random.Random(0)
    device = FakeDevice(step_time_s=lambda m: 1e-3 + (0.1 if noise.random() < 0.5 else 0.0))
    found = measured(device, [1, 4, 16], budget_s=budget_s)
    assert found.disturbance
    assert found.device_seconds <= 1.5 * budget_s + 0.4


def test_the_bench_keeps_the_sentence_and_its_step_times_bend_where_they_should() -> None:
    bench = measure(FakeDevice(step_time_s=Interrupted(1)).workload(examples=1000))
    assert bench.disturbance
    assert bench.disturbance in bench.notes
    knee = fit_step_time(bench.profile.step_time_s).hardware_knee
    assert knee.value == pytest.approx(100, rel=0.25)
