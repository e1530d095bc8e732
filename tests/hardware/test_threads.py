"""Number of threads: one where that is clearly faster, by what was timed; kept in the bench, and in a profile."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from batchscope.errors import ProfileError
from batchscope.fits.threads import num_threads_at
from batchscope.hardware.bench import measure
from batchscope.hardware.profile import bench_from_profile, load_profile, save_profile
from batchscope.hardware.threads import one_thread_is_faster
from batchscope.store.codec import decode, encode
from batchscope.store.records import Bench, HardwareProfile
from batchscope.testing.fake_device import FakeDevice


def one_s(size: int) -> float:
    return 1e-4 * (1 + size / 100)


def two_s(size: int) -> float:
    """Half the work a thread, and a fixed time to wake them: faster from 100 examples on."""
    return 1e-4 * (1.5 + size / 200)


def bench(two: Callable[[int], float] = two_s, one: Callable[[int], float] | None = one_s) -> Bench:
    return measure(FakeDevice(step_time_s=two, one_thread_s=one, processor_s=lambda m: 1e-4).workload(examples=1000))


def test_each_size_is_told_with_the_faster_number_of_threads() -> None:
    found = bench()
    timed = [r for r in found.readings if r.step_time_s is not None]
    assert {r.num_threads for r in timed} == {1, 2}
    for reading in timed:
        size = reading.micro_batch_size
        assert reading.num_threads == (1 if 1.05 * one_s(size) < two_s(size) else 2)
        assert reading.step_time_s == pytest.approx(min(one_s(size), two_s(size)), rel=0.05)
    largest_of_one = max(r.micro_batch_size for r in timed if r.num_threads == 1)
    assert num_threads_at(found, largest_of_one) == 1
    assert num_threads_at(found, largest_of_one + 1) == 2
    assert any("torch.set_num_threads(1)" in note for note in found.notes)
    assert decode(Bench, encode(found)) == found


def test_with_one_thread_there_is_nothing_to_choose() -> None:
    found = bench(one=None)
    assert {r.num_threads for r in found.readings if r.step_time_s is not None} == {1}
    assert not any("thread" in note for note in found.notes)


@pytest.mark.parametrize("seed", range(5))
def test_where_both_are_as_fast_the_number_of_threads_stays(seed: int) -> None:
    noise = random.Random(seed)

    def noisy(size: int) -> float:
        return one_s(size) * noise.lognormvariate(0.0, 0.2)

    found = bench(two=noisy, one=noisy)
    assert {r.num_threads for r in found.readings if r.step_time_s is not None} == {2}


@pytest.mark.parametrize("gain", [0.9, 1.0, 1.03, 1.5])
def test_the_rule_by_gains(gain: float) -> None:
    noise = random.Random(1)
    one = [noise.lognormvariate(0.0, 0.05) for _ in range(30)]
    every = [gain * noise.lognormvariate(0.0, 0.05) for _ in range(30)]
    assert one_thread_is_faster(every, one) == (gain > 1.2)


def test_a_profile_says_the_number_of_threads_where_its_machine_had_a_choice(tmp_path: Path) -> None:
    found = bench()
    save_profile(found.profile, tmp_path / "p.json")
    profile = load_profile(tmp_path / "p.json")
    there = bench_from_profile(profile, examples=1000)
    assert profile.num_threads
    assert [num_threads_at(there, size) for size in (1, 1000)] == [1, 2]
    without = bench_from_profile(HardwareProfile(name="A", step_time_s=((1, 1.0),)), examples=1000)
    assert num_threads_at(without, 1) is None
    (tmp_path / "p.json").write_text('{"name": "A", "step_time_s": [[1, 1.0]], "num_threads": [[1, 0]]}')
    with pytest.raises(ProfileError, match="num_threads"):
        load_profile(tmp_path / "p.json")


def test_threads_that_wait_for_one_another_from_the_first_step_on_are_got_round() -> None:
    found = bench(two=lambda size: 0.28)
    assert {r.num_threads for r in found.readings if r.step_time_s is not None} == {1}
    for reading in found.readings:
        if reading.step_time_s is not None:
            assert reading.step_time_s == pytest.approx(one_s(reading.micro_batch_size), rel=0.05)
