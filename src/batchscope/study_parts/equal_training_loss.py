"""Runs compared where they fit their training data equally well, so that more or fewer updates are no explanation.

A run's *passage* of a level is the first moment at which its training loss, in evaluation mode, is at the level or
below. It lies between two evaluations, and everything there is interpolated on a line in the logarithm of the training
loss, or in the loss itself where it is not above 0. The level to compare at is one that all runs reach. Numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..study_rows import Evaluation

__all__ = ["TRAINING_LOSS", "common_level", "levels_down_to", "passage"]

TRAINING_LOSS = "train_loss_eval"


def passage(course: Sequence[Evaluation], level: float) -> Evaluation | None:
    """The run as it is when its training loss first is at a level; `None`: it never is.

    Between evaluations all numbers are interpolated, steps are rounded. Metrics that only one of them has are left out.

    Example:
        From a training loss of 0.4 to 0.1, 0.2 is halfway in logarithms.

        >>> def at(epoch, train, val):
        ...     return Evaluation(int(10 * epoch), epoch, epoch, None, {"train_loss_eval": train, "val_loss": val})
        >>> there = passage([at(0.0, 0.8, 2.0), at(1.0, 0.4, 1.0), at(2.0, 0.1, 0.5)], 0.2)
        >>> round(there.epoch, 6), there.step, round(there.metrics["val_loss"], 6)
        (1.5, 15, 0.75)
        >>> passage([at(0.0, 0.8, 2.0)], 0.2) is None
        True
    """
    for i, now in enumerate(course):
        if not now.metrics.get(TRAINING_LOSS, math.inf) <= level:
            continue
        return now if i == 0 else _between(course[i - 1], now, level)
    return None


def _between(before: Evaluation, after: Evaluation, level: float) -> Evaluation:
    share = _share(before.metrics.get(TRAINING_LOSS, math.inf), after.metrics[TRAINING_LOSS], level)

    def mean(a: float, b: float) -> float:
        return b if share == 1.0 else a + share * (b - a)

    shared = [name for name in after.metrics if name in before.metrics]
    return Evaluation(
        step=round(mean(before.step, after.step)),
        epoch=mean(before.epoch, after.epoch),
        seconds=mean(before.seconds, after.seconds),
        train_loss=after.train_loss,
        metrics={name: mean(before.metrics[name], after.metrics[name]) for name in shared},
    )


def _share(before: float, after: float, level: float) -> float:
    """How far a level lies on the way from one training loss to a lower one."""
    if not math.isfinite(before):
        return 1.0
    if after > 0:
        return math.log(before / level) / math.log(before / after)
    return (before - level) / (before - after)


def common_level(courses: Sequence[Sequence[Evaluation]]) -> float | None:
    """The lowest training loss that all runs reach, rounded up to two digits; `None` where there is none above 0.

    It is the highest of the runs' least training losses.
    """
    least = [min((e.metrics.get(TRAINING_LOSS, math.inf) for e in course), default=math.inf) for course in courses]
    if not least or not 0 < max(least) < math.inf:
        return None
    unit = 10.0 ** (math.floor(math.log10(max(least))) - 1)
    return float(f"{math.ceil(max(least) / unit - 1e-9) * unit:.12g}")


def levels_down_to(courses: Sequence[Sequence[Evaluation]], level: float, count: int = 24) -> list[float]:
    """Levels in equal ratios, from the least of the runs' first training losses down to a level."""
    first = min(course[0].metrics.get(TRAINING_LOSS, level) for course in courses)
    if first <= level:
        return [level]
    return [first * (level / first) ** (i / (count - 1)) for i in range(count - 1)] + [level]
