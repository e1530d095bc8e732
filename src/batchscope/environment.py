"""Where a measurement was made."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch

from .device import Device
from .records import Environment

__all__ = ["environment_of"]


def environment_of(device: Device) -> Environment:
    """Versions, platform and device of this process."""
    try:
        own = version("batchscope")
    except PackageNotFoundError:
        own = "source"
    return Environment(
        batchscope=own,
        python=platform.python_version(),
        torch=torch.__version__,
        numpy=np.__version__,
        platform=platform.platform(),
        device=str(device.torch_device),
        device_name=device.name,
        cpu_count=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
    )
