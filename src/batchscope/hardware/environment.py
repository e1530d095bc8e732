"""Environment in which a measurement was made."""

from __future__ import annotations

import os
import platform

import numpy as np
import torch

from ..store.records import Environment
from ..store.versions import own_version
from .device import Device

__all__ = ["environment_of"]


def environment_of(device: Device) -> Environment:
    """Versions, platform and device of this process."""
    return Environment(
        batchscope=own_version(),
        python=platform.python_version(),
        torch=torch.__version__,
        numpy=np.__version__,
        platform=platform.platform(),
        device=str(device.torch_device),
        device_name=device.name,
        cpu_count=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
    )
