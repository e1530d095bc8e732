"""Which version of the package this is, and on which platform it runs."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from .records import Environment

__all__ = ["environment_without_device", "own_version"]


def own_version() -> str:
    """The installed version; "source" where the package runs from its sources."""
    try:
        return version("batchscope")
    except PackageNotFoundError:
        return "source"


def environment_without_device() -> Environment:
    """Versions and platform of a process that only computes with numbers, without torch or a device."""
    return Environment(
        batchscope=own_version(),
        python=platform.python_version(),
        torch=None,
        numpy=version("numpy"),
        platform=platform.platform(),
        device="none",
        device_name="",
        cpu_count=os.cpu_count() or 1,
        threads=1,
    )
