"""The memory of a training step at given batch sizes, on a device that follows a script."""

from __future__ import annotations

import pytest

from batchscope.errors import UsageError
from batchscope.hardware.step_memory import measure_step_memory
from batchscope.testing.fake_device import FakeDevice


def test_the_memory_of_a_step_is_foreseen_before_it_is_tried() -> None:
    device = FakeDevice(peak_bytes=lambda size: 1000.0 + 10 * size, capacity=2**40)
    assert measure_step_memory(device.workload(examples=1000), [8, 64]) == ((8, 1080.0), (64, 1640.0))
    device = FakeDevice(peak_bytes=lambda size: 1000.0 + 10 * size, capacity=2**40)
    with pytest.raises(UsageError, match=r"batch size 512 needs about .* of at most 64"):
        measure_step_memory(device.workload(examples=1000), [8, 64, 512], 2000)
    assert 512 not in device.sizes
