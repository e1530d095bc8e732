"""What a process may take, by the machine, control groups and limits; a bound on it; a lack of it in words."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from batchscope.errors import OutOfMemory
from batchscope.hardware import device as device_module
from batchscope.hardware.device import (
    Device,
    is_out_of_memory,
    lack_of_memory_named,
    within_memory,
    within_memory_of,
)
from batchscope.hardware.host_memory import available_bytes, bounded, in_words, mark, total_bytes

GIB = 2**30
linux = pytest.mark.skipif(sys.platform != "linux", reason="the bound is that of Linux")


def machine(root: Path, groups: str, files: dict[str, str], *, available: int = 64 * GIB) -> Path:
    """A file system in which the kernel tells of its memory."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: {available // 512} kB\nMemAvailable: {available // 1024} kB\n")
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MIB = 2**20
MACHINES = {
    "none": ("0::/\n", {}, None),
    "version 2": (
        "0::/job\n",
        {
            "job/memory.max": f"{8 * MIB}",
            "job/memory.current": f"{3 * MIB}",
            "job/memory.stat": f"inactive_file {MIB}\n",
        },
        6 * MIB,
    ),
    "version 2, a group above": (
        "0::/user/job\n",
        {"user/job/memory.max": "max", "user/memory.max": f"{4 * MIB}", "user/memory.current": f"{MIB}"},
        3 * MIB,
    ),
    "version 2, in a container": (
        "0::/../outside\n",
        {"memory.max": f"{5 * MIB}", "memory.current": f"{MIB}"},
        4 * MIB,
    ),
    "version 1": (
        "4:cpu,cpuacct:/job\n3:memory:/job\n0::/\n",
        {"memory/job/memory.limit_in_bytes": f"{9 * MIB}", "memory/job/memory.usage_in_bytes": f"{2 * MIB}"},
        7 * MIB,
    ),
    "nothing is free": ("0::/\n", {"memory.max": f"{MIB}", "memory.current": f"{2 * MIB}"}, 0),
}


@pytest.mark.parametrize(("groups", "files", "free"), MACHINES.values(), ids=list(MACHINES))
def test_control_groups(tmp_path: Path, groups: str, files: dict[str, str], free: int | None) -> None:
    root = machine(tmp_path, groups, files)
    if free is None:
        assert 0 < available_bytes(root) <= 64 * GIB
        return
    assert available_bytes(root) == free
    assert total_bytes(root) in [
        int(text) for name, text in files.items() if name.endswith(("max", "limit_in_bytes")) and text != "max"
    ]


@linux
@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_a_limit_of_the_shell_counts(limit: str) -> None:
    import resource

    kind = getattr(resource, limit)
    before = resource.getrlimit(kind)
    lines = Path("/proc/self/status").read_text().splitlines()
    taken = next(int(line.split()[1]) for line in lines if line.startswith("VmSize"))
    resource.setrlimit(kind, (taken * 1024 + GIB, before[1]))
    try:
        assert available_bytes() <= taken * 1024 + GIB
    finally:
        resource.setrlimit(kind, before)
    assert resource.getrlimit(kind) == before


@linux
def test_the_bound_is_there_inside_and_gone_after_an_error() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    with bounded():
        assert 0 < resource.getrlimit(resource.RLIMIT_DATA)[0] < 2 * total_bytes()
    with pytest.raises(MemoryError), bounded():
        np.empty(4 * total_bytes(), dtype=np.uint8)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


@linux
def test_the_bound_is_gone_when_the_last_of_two_threads_has_left() -> None:
    """They come and go as they like, so that contexts need not be nested."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    first, second = bounded(), bounded()
    first.__enter__()
    bound = resource.getrlimit(resource.RLIMIT_DATA)
    second.__enter__()
    first.__exit__(None, None, None)
    assert resource.getrlimit(resource.RLIMIT_DATA) == bound != before
    second.__exit__(None, None, None)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


@linux
@pytest.mark.parametrize(
    ("name", "there", "is_bounded"), [("cpu", "cuda", True), (None, "cuda", False), (None, "cpu", True)]
)
def test_the_device_of_the_call_decides(
    monkeypatch: pytest.MonkeyPatch, name: str | None, there: str, is_bounded: bool
) -> None:
    import resource

    monkeypatch.setattr(device_module, "pick", lambda: Device(torch.device(there)))
    before = resource.getrlimit(resource.RLIMIT_DATA)[0]
    device = None if name is None else Device(torch.device(name))
    with within_memory_of(device):
        assert (resource.getrlimit(resource.RLIMIT_DATA)[0] != before) == is_bounded


@linux
@pytest.mark.parametrize("in_use", [True, False])
def test_without_a_device_an_accelerator_in_use_decides(monkeypatch: pytest.MonkeyPatch, in_use: bool) -> None:
    import resource

    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: in_use)
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with within_memory():
        assert (resource.getrlimit(resource.RLIMIT_DATA) == before) == in_use


ENDLESS: dict[str, Callable[[], object]] = {
    "torch": lambda: torch.empty(10**13, dtype=torch.uint8),
    "torch, beyond 64 bits": lambda: torch.empty(2**40, 2**40),
    "numpy": lambda: np.empty(10**13, dtype=np.uint8),
    "python": lambda: bytearray(10**14),
    "a model": lambda: torch.nn.Linear(10**9, 10**6),
}


@pytest.mark.parametrize("make", ENDLESS.values(), ids=list(ENDLESS))
def test_whoever_lacks_memory_it_is_one_error(make: Callable[[], object]) -> None:
    with pytest.raises(OutOfMemory, match="memory") as raised, within_memory():
        make()
    assert raised.value.micro_batch_size is None
    assert raised.value.exit_status == 2


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Caught MemoryError in DataLoader worker process 0.\nOriginal Traceback ..."),
        RuntimeError("Caught _ArrayMemoryError in DataLoader worker process 0."),
        OSError(12, "Cannot allocate memory"),
        ImportError("libx.so: failed to map segment from shared object: Cannot allocate memory"),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_other_ways_to_say_it(error: Exception) -> None:
    assert is_out_of_memory(error)


def test_another_error_passes_through() -> None:
    with pytest.raises(OSError, match="No such file"), within_memory():
        Path("nowhere").read_text()


def test_the_sentence_names_place_amounts_and_what_to_change() -> None:
    error = MemoryError("Unable to allocate 7.45 GiB for an array with shape (2000000000,) and data type float32")
    assert in_words(error).startswith("the memory of this machine is used up (7.45 GiB were asked for, ")
    mark(error, "loss(model, batch)")
    mark(error, "evaluating on the validation split")
    assert "evaluating on the validation split needs more memory than is free on this machine" in in_words(error)
    assert "evaluate in smaller parts" in in_words(error)
    for place, advice in {
        "model()": "a smaller model",
        "train_data()": "mmap_mode='r'",
        "task() in f.py": "mode='c', count in full",
    }.items():
        error = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 20000000000 bytes.")
        mark(error, place)
        assert advice in in_words(error)
        assert "(18.6 GiB were asked for, " in in_words(error)


def test_an_evaluation_is_no_step_of_so_many_examples() -> None:
    cpu = Device(torch.device("cpu"))
    for place, size in {"evaluate(model)": None, "loss(model, batch)": 8}.items():
        error = MemoryError()
        mark(error, place)
        with pytest.raises(OutOfMemory) as raised, lack_of_memory_named(cpu, 8):
            raise error
        assert raised.value.micro_batch_size == size


@linux
def test_the_advice_for_data_works(tmp_path: Path) -> None:
    """A file that is too large to be read can be mapped."""
    path = tmp_path / "large.npy"
    size = 4 * total_bytes()
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (size,)}
        np.lib.format.write_array_header_1_0(file, header)
        try:
            os.truncate(path, file.tell() + size)
        except OSError:
            pytest.skip("the file system has no file of this size")
    with pytest.raises(OutOfMemory, match="memory"), within_memory():
        np.load(path)
    with within_memory():
        assert np.load(path, mmap_mode="r")[size // 2] == 0
