"""How fast a task goes here: seconds of a step and of an evaluation. Numbers only."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Pace"]


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds of a training step by batch size, and of an evaluation; measured before the first run, and kept."""

    step_s: tuple[tuple[int, float], ...]
    evaluation_s: float

    def step_time_s(self, batch_size: int) -> float:
        """Of the nearest size that was measured."""
        return min(self.step_s, key=lambda pair: abs(math.log(pair[0] / batch_size)))[1]
