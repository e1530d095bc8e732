"""Clock of a run: seconds of its steps, and whether other work on the machine delayed them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from statistics import fmean
from typing import Any

from ..fits.delays import low_quantile
from ..hardware.device import Device
from ..store.records import Row

__all__ = ["StepClock"]


class StepClock:
    """Clock of the steps of one run, evaluations apart.

    On a CPU single steps are timed as well; elsewhere that would make the device wait. The first after an evaluation is
    left out where there are more, for its caches are cold, and its batches may have been loaded during the evaluation.

    Attributes:
        seconds: of all steps so far.
        processor_seconds: processor time of the process in them; `None` where steps run elsewhere.

    Example:
        >>> from batchscope.testing.fake_device import FakeDevice
        >>> device = FakeDevice(processor_s=lambda size: 0.0)
        >>> clock = StepClock(device)
        >>> clock.begin()
        >>> for seconds in (1.0, 2.0, 9.0, 1.0):
        ...     device.now += seconds
        ...     clock.step(plain=seconds < 9.0)
        >>> with clock.apart():
        ...     device.now += 60.0
        >>> clock.end()
        >>> clock.members()
        {'device_seconds': 13.0, 'processor_seconds': 0.0, 'step_s': 1.5, 'low_step_s': 1.0}
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self.seconds = 0.0
        self.processor_seconds = None if device.processor_seconds() is None else 0.0
        self._began, self._last, self._runs = 0.0, 0.0, False
        self._processor_began: float | None = None
        self._steps: list[float] = []

    def go_on(self, row: Row) -> None:
        """Go on from an evaluation of the run that another process made."""
        self.seconds = float(row["device_seconds"])
        if self.processor_seconds is not None:
            self.processor_seconds = row.get("processor_seconds")

    def begin(self) -> None:
        """A stretch of steps begins, after an evaluation."""
        self._steps = []
        self._processor_began = self._device.processor_seconds()
        self._began = self._last = self._device.clock()
        self._runs = True

    def step(self, *, plain: bool) -> None:
        """A step is over; `plain`: nothing was measured in it."""
        if self._device.works_ahead:
            return
        now = self._device.clock()
        if plain:
            self._steps.append(now - self._last)
        self._last = now

    @contextmanager
    def apart(self) -> Generator[None]:
        """Context of work that is no part of any step, though it comes between two."""
        began, processor = self._device.clock(), self._device.processor_seconds()
        try:
            yield
        finally:
            took = self._device.clock() - began
            self._began, self._last = self._began + took, self._last + took
            now = self._device.processor_seconds()
            if now is not None and processor is not None and self._processor_began is not None:
                self._processor_began += now - processor

    def so_far(self) -> float:
        """Seconds of all steps so far, those of a stretch that is not over as well."""
        return self.seconds + (self._device.clock() - self._began if self._runs else 0.0)

    def end(self) -> None:
        """The stretch is over."""
        self.seconds, self._runs = self.so_far(), False
        ended = self._device.processor_seconds()
        if self.processor_seconds is not None and ended is not None and self._processor_began is not None:
            self.processor_seconds += ended - self._processor_began

    def members(self) -> dict[str, Any]:
        """Members of an evaluation's row: see `store.records.Row`."""
        steps = self._steps[1:] or self._steps
        return {
            "device_seconds": self.seconds,
            "processor_seconds": self.processor_seconds,
            "step_s": fmean(steps) if steps else None,
            "low_step_s": low_quantile(steps) if steps else None,
        }
