"""Test kit, for our tests and an implementor's: made-up runs, a device by a script, problems with known answers.

From here: `stored_run` and `evaluation`, which need no torch, `FakeDevice`; the noisy quadratic from
`testing.simulation`. Nothing in the package imports this room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .runs import evaluation, stored_run, without_clock

if TYPE_CHECKING:
    from .fake_device import FakeDevice

__all__ = ["FakeDevice", "evaluation", "stored_run", "without_clock"]


def __getattr__(name: str) -> Any:
    if name != "FakeDevice":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .fake_device import FakeDevice

    return FakeDevice
