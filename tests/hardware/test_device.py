"""The seam to the hardware: what counts as a lack of memory, and how memory is read."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from batchscope.errors import OutOfMemory, UsageError
from batchscope.hardware.device import is_out_of_memory, pick, within_memory
from batchscope.hardware.live_bytes import LiveBytes, unique_bytes

SPELLINGS = [
    "CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 15.78 GiB total capacity)",
    "CUDA error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "Unable to find a valid cuDNN algorithm to run convolution",
    "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
    "HIP out of memory. Tried to allocate 20.00 MiB",
    "HIP error: hipErrorOutOfMemory",
    "CUDA error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`",
    "MPS backend out of memory (MPS allocated: 17.99 GB, other allocations: 86 MB, max allowed: 18.13 GB)",
    "XPU out of memory. Tried to allocate 1.00 GiB",
    "level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)",
]
HOST_SPELLINGS = [
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory",
    "[enforce fail at alloc_cpu.cpp:116] data. DefaultCPUAllocator: not enough memory",
    "unable to mmap 128 bytes from file </torch_1>: Cannot allocate memory (12)",
]


@pytest.mark.parametrize("message", SPELLINGS + HOST_SPELLINGS)
def test_f17_every_spelling_of_a_lack_of_memory_is_known(message: str) -> None:
    assert is_out_of_memory(RuntimeError(message))


@pytest.mark.parametrize("message", SPELLINGS + HOST_SPELLINGS)
def test_whose_memory_it_is(message: str) -> None:
    with pytest.raises(OutOfMemory) as raised, within_memory():
        raise RuntimeError(message)
    assert ("of this machine" in str(raised.value)) == (message in HOST_SPELLINGS)
    assert ("of the device" in str(raised.value)) == (message in SPELLINGS)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("anything"), MemoryError()])
def test_f17_the_types_are_known(error: BaseException) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("out of memory"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x3 and 2x1)"),
        RuntimeError("CUDA error: device-side assert triggered"),
        KeyError("memory"),
    ],
)
def test_f17_other_errors_are_not_taken_for_a_lack_of_memory(error: BaseException) -> None:
    assert not is_out_of_memory(error)


def test_f17_the_cpus_own_failure_is_recognised() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**55)
    assert is_out_of_memory(raised.value)


def test_memory_figures_are_ordered() -> None:
    device = pick("cpu")
    assert 0 < device.free_bytes() <= device.capacity_bytes()


def test_an_unknown_device_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="device 'tpu9' cannot be used here"):
        pick("tpu9")


def test_living_bytes_follow_the_tensors() -> None:
    with LiveBytes() as counter:
        a = torch.zeros(1000)
        view = a[10:20].reshape(2, 5)
        assert counter.live == 4000
        b = a * 2
        assert (counter.live, counter.peak) == (8000, 8000)
        del a, b
        assert counter.live == 4000, "the view keeps its storage alive"
        counter.restart()
        assert counter.peak == 4000
        del view
    assert (counter.live, counter.peak) == (0, 4000)


def test_living_bytes_hold_what_is_saved_for_the_backward_pass() -> None:
    x = torch.ones(100, 10)
    layer = nn.Linear(10, 10, bias=False)
    with LiveBytes([x, *layer.parameters()]) as counter:
        hidden = layer(x).sigmoid().sigmoid()
        loss = hidden.sum()
        del hidden
        saved = 4000 * 2  # both sigmoids save their result
        assert counter.live == 4000 + 400 + saved + 4
        loss.backward()
        del loss
        assert counter.live == 4000 + 400 + 400  # input, weights, their gradient


def test_tensors_that_were_there_before_are_not_counted_by_their_views() -> None:
    data = torch.zeros(10_000)
    with LiveBytes() as counter:
        part = data[:10]
        assert counter.live == 0
        copy = part.clone()
        assert counter.live == 40
    del copy


def test_shared_storages_are_counted_once() -> None:
    layer = nn.Linear(10, 10, bias=False)
    assert unique_bytes([layer.weight, layer.weight.T, layer.weight[0]]) == 400


def test_sparse_gradients_are_counted() -> None:
    table = nn.Embedding(1000, 10, sparse=True)
    with LiveBytes(table.parameters()) as counter:
        table(torch.arange(5)).sum().backward()
    assert table.weight.grad is not None
    assert 40_000 + 5 * (8 + 40) <= counter.live <= 41_000
