"""Runs compared where they fit their training data equally well, so that more or fewer updates are no explanation.

Runs are compared at the first passage of a level by their training loss, in evaluation mode
(`summary.evaluation_at`). The level is one that all runs reach. Numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...summary import Evaluation

__all__ = ["TRAINING_LOSS", "common_level", "levels_down_to"]

TRAINING_LOSS = "train_loss_eval"


def common_level(courses: Sequence[Sequence[Evaluation]]) -> float | None:
    """The lowest training loss that all runs reach, rounded up to two digits; `None` where there is none above 0.

    It is the highest of the runs' minimum training losses.
    """
    minima = [min((e.metrics.get(TRAINING_LOSS, math.inf) for e in course), default=math.inf) for course in courses]
    if not minima or not 0 < max(minima) < math.inf:
        return None
    unit = 10.0 ** (math.floor(math.log10(max(minima))) - 1)
    return float(f"{math.ceil(max(minima) / unit - 1e-9) * unit:.12g}")


def levels_down_to(courses: Sequence[Sequence[Evaluation]], level: float, count: int = 24) -> list[float]:
    """Levels in equal ratios, from the smallest of the runs' first training losses down to a level."""
    first = min(course[0].metrics.get(TRAINING_LOSS, level) for course in courses)
    if first <= level:
        return [level]
    return [first * (level / first) ** (i / (count - 1)) for i in range(count - 1)] + [level]
