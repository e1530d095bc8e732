"""Test kit, for our tests and an implementor's: a device that follows a script, toy tasks, problems with known answers.

From here: `FakeDevice`. Nothing in the package imports this room.
"""

from .fake_device import FakeDevice

__all__ = ["FakeDevice"]
