"""Version of the package."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["own_version"]


def own_version() -> str:
    """Installed version of the package; "source" where the package runs from its sources."""
    try:
        return version("batchscope")
    except PackageNotFoundError:
        return "source"
