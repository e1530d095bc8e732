"""What ends a run of a study by the clock: its own length in seconds, or the budget of the whole study."""

from __future__ import annotations

import time

from torch import nn
from torch.optim import Optimizer

from ..store.records import Row, RunConfig, RunStatus
from .stopping import History

__all__ = ["CutOff", "Deadline", "SecondsRule"]


class CutOff(Exception):
    """The budget is used up in the middle of a run, which is to be made again when there is more."""


class SecondsRule:
    """Ends a run at the first evaluation after so many seconds of training steps.

    Args:
        limit: seconds, evaluation excluded.
    """

    def __init__(self, *, limit: float) -> None:
        self.limit, self._spent = limit, 0.0

    def see(self, row: Row) -> None:
        """Read the clock of an evaluation."""
        if row["kind"] == "evaluation":
            self._spent = row["device_seconds"]

    def __call__(self, history: History) -> RunStatus | None:
        """`OUT_OF_TIME`, once it is late."""
        return RunStatus.OUT_OF_TIME if self._spent >= self.limit else None


class Deadline:
    """An observer that ends a run between two steps once the budget is used up.

    Raises:
        CutOff: after an update that is not the run's last.
    """

    def __init__(self, deadline: float, config: RunConfig) -> None:
        self._deadline, self._last = deadline, config.max_steps

    def begin(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Nothing."""

    def after_update(self, step: int) -> Row | None:
        """Look at the clock."""
        if time.monotonic() >= self._deadline and step < self._last:
            raise CutOff

    def at_evaluation(self, step: int) -> Row | None:
        """Nothing."""
