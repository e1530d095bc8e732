"""Environment in which a measurement was made."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..store.records import Environment
from ..store.versions import environment_without_device
from .device import Device

__all__ = ["environment_of"]


def environment_of(device: Device) -> Environment:
    """Versions, platform and device of this process."""
    return replace(
        environment_without_device(),
        torch=torch.__version__,
        device=str(device.torch_device),
        device_name=device.name,
        threads=torch.get_num_threads(),
    )
