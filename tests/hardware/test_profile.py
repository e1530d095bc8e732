"""Hardware profiles: written, read back, refused with a reason, and answered from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batchscope.errors import ProfileError, StoreError, UsageError
from batchscope.fits.memory import HEADROOM
from batchscope.fits.step_time import step_time_of
from batchscope.hardware.bench import measure
from batchscope.hardware.profile import bench_from_profile, load_profile, save_profile
from batchscope.store.records import HardwareProfile
from batchscope.testing.fake_device import FakeDevice

GOOD: dict[str, Any] = {
    "name": "card",
    "step_time_s": [[1, 0.001], [64, 0.002], [1024, 0.017]],
    "peak_memory_bytes": [[1, 1010.0], [64, 1640.0], [1024, 11240.0]],
    "capacity_bytes": 50_000,
}


def written(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps({**GOOD, **changes}))
    return path


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    device = FakeDevice(peak_bytes=lambda m: 1000.0 + 10 * m, capacity=10**6)
    profile = measure(device.workload(examples=5000)).profile
    save_profile(profile, tmp_path / "card.json")
    assert load_profile(tmp_path / "card.json") == profile
    assert [p.name for p in tmp_path.iterdir()] == ["card.json"]


def test_the_contracts_schema_is_read_with_or_without_its_optional_members(tmp_path: Path) -> None:
    assert load_profile(written(tmp_path / "a.json")).step_time_s[1] == (64, 0.002)
    assert load_profile(written(tmp_path / "b.json", schema=1)).capacity_bytes == 50_000
    (tmp_path / "c.json").write_text(json.dumps({"name": "n", "step_time_s": [[1, 1]]}))
    assert load_profile(tmp_path / "c.json") == HardwareProfile(name="n", step_time_s=((1, 1.0),))


def test_loading_is_read_back_and_not_added_to_the_step_times_of_a_profile(tmp_path: Path) -> None:
    device = FakeDevice(step_time_s=lambda m: 5e-3 + 1e-5 * m)
    profile = measure(device.workload(examples=100, example_time_s=2e-3, workers=2), budget_s=1e4).profile
    assert profile.loading_time_s[-1] == (100, pytest.approx(0.1))
    save_profile(profile, tmp_path / "card.json")
    assert load_profile(tmp_path / "card.json") == profile
    step_time = step_time_of(bench_from_profile(profile, examples=100))
    for size, seconds in profile.step_time_s:
        assert step_time.of_batch(size) == pytest.approx(seconds)
    assert step_time.binds(1) == "compute"
    assert step_time.binds(100) == "loading"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "has schema 2, and this version reads 1"),
        ({"name": 3}, "profile.name is 3, not str"),
        ({"step_time": []}, "unknown member 'step_time'"),
        ({"step_time_s": []}, "step_time_s is empty"),
        ({"step_time_s": [[1, 0.1, 2]]}, r"step_time_s\[0\] has 3 members, not 2"),
        ({"step_time_s": [[64, 0.1], [8, 0.2]]}, r"step_time_s\[1\] has micro-batch size 8 after 64"),
        ({"step_time_s": [[8, 0.1], [8, 0.2]]}, r"step_time_s\[1\] has micro-batch size 8 after 8"),
        ({"step_time_s": [[0, 0.1]]}, r"step_time_s\[0\] has micro-batch size 0"),
        ({"loading_time_s": [[1, 0.0]]}, r"loading_time_s\[0\] has 0.0 seconds"),
        ({"step_time_s": [[1, 0.0]]}, r"step_time_s\[0\] has 0.0 seconds"),
        ({"step_time_s": [[1, float("nan")]]}, "the number NaN is not finite"),
        ({"peak_memory_bytes": [[1, -5]]}, r"peak_memory_bytes\[0\] has -5.0 bytes"),
        ({"peak_memory_bytes": [[1, float("inf")]]}, "the number Infinity is not finite"),
        ({"capacity_bytes": 0}, "capacity_bytes is 0"),
    ],
)
def test_an_impossible_profile_is_refused_by_its_path_and_fault(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "card.json", **changes)
    with pytest.raises(ProfileError, match=message) as raised:
        load_profile(path)
    assert "card.json" in str(raised.value)


@pytest.mark.parametrize("content", [b"", b'{"name": "card", "step_ti', b"\xff\xfe\x00", b"[1, 2]", b"null"])
def test_a_truncated_or_foreign_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    path.write_bytes(content)
    with pytest.raises(ProfileError, match="profile"):
        load_profile(path)


def test_a_missing_file_and_a_folder_that_is_missing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"none\.json"):
        load_profile(tmp_path / "none.json")
    with pytest.raises(StoreError, match="No such file"):
        save_profile(HardwareProfile(name="n", step_time_s=((1, 1.0),)), tmp_path / "none" / "card.json")


def test_the_bench_of_a_profile_answers_for_its_machine(tmp_path: Path) -> None:
    profile = load_profile(written(tmp_path / "card.json"))
    bench = bench_from_profile(profile, examples=60_000)
    assert bench.largest_micro_batch_size == (50_000 * (1 - HEADROOM) - 1000) // 10
    assert bench.memory_bound
    assert not bench.largest_verified
    assert any("predicted from steps of up to 1024" in note for note in bench.notes)
    assert bench.device_seconds == 0
    assert [r.micro_batch_size for r in bench.readings] == [1, 64, 1024]
    capped = bench_from_profile(profile, examples=60_000, max_batch_size=1024)
    assert (capped.largest_micro_batch_size, capped.largest_verified, capped.memory_bound) == (1024, True, False)
    limited = bench_from_profile(profile, examples=60_000, memory_limit=10_000)
    assert limited.largest_micro_batch_size == 820


def test_without_a_memory_table_the_data_set_is_the_limit_and_a_note_says_so() -> None:
    profile = HardwareProfile(name="n", step_time_s=((16, 1.0),))
    bench = bench_from_profile(profile, examples=500)
    assert (bench.largest_micro_batch_size, bench.memory_bound, bench.largest_verified) == (500, False, False)
    assert bench.smallest_micro_batch_size == 1
    assert any("not known" in note for note in bench.notes)


def test_a_profile_on_which_nothing_fits_is_refused(tmp_path: Path) -> None:
    profile = load_profile(written(tmp_path / "card.json"))
    with pytest.raises(
        UsageError,
        match=r"not even one example fits on card: a step of 1 needs 0.986 KiB, and of the limit of 500 B 8% stay free",
    ):
        bench_from_profile(profile, examples=100, memory_limit=500)
    with pytest.raises(UsageError, match="--memory-limit is -1"):
        bench_from_profile(profile, examples=100, memory_limit=-1)


def test_profiles_and_hardware_fits_need_no_torch() -> None:
    code = (
        "import sys; import batchscope.hardware.profile, batchscope.fits.step_time, batchscope.fits.memory; "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
