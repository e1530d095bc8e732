"""Every benchmark's raw numbers with the environment that they were measured in."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import torch

import batchscope
from batchscope.device import pick
from batchscope.files import write_json
from batchscope.records import Environment

RESULTS = Path(__file__).parent / "results"


def environment(device: str = "cpu") -> Environment:
    """The versions and the machine."""
    return Environment(
        batchscope=batchscope.__version__,
        python=platform.python_version(),
        torch=torch.__version__,
        numpy=numpy.__version__,
        platform=platform.platform(),
        device=device,
        device_name=pick(device).name,
        cpu_count=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
    )


def write(name: str, data: Mapping[str, Any], *, device: str = "cpu") -> Path:
    """Write `results/<name>.json`: the environment, then the numbers."""
    path = RESULTS / f"{name}.json"
    write_json(path, {"environment": environment(device), **data})
    return path
