"""Which version of the package this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["own_version"]


def own_version() -> str:
    """The installed version; "source" where the package runs from its sources."""
    try:
        return version("batchscope")
    except PackageNotFoundError:
        return "source"
