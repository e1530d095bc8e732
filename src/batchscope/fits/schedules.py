"""Schedules of the learning rate: the factor on it in each step of a run. Numbers only, no torch.

A run of `total` steps warms up for `warmup` of them, `(step + 1) / warmup`; then, with the progress `p` through the
rest in [0, 1] and the share `f` of the learning rate to end at:

```
constant   1
linear     1 - (1 - f) p
cosine     f + (1 - f) (1 + cos(pi p)) / 2                      (Loshchilov & Hutter 2017, eq. 5)
wsd        1 for p <= 0.8, then 1 - (1 - f) (p - 0.8) / 0.2     (warm-up, stable, decay: Hu et al. 2024)
```
"""

from __future__ import annotations

import math

__all__ = ["STABLE_SHARE", "lr_factor"]

STABLE_SHARE = 0.8
"""Share of a run, warm-up apart, that `wsd` keeps the learning rate constant."""


def lr_factor(schedule: str, step: int, total: int, *, warmup: int = 0, final_lr: float = 0.0) -> float:
    """Factor on the learning rate in a step of a run.

    Args:
        schedule: `constant`, `linear`, `cosine` or `wsd`.
        step: 0-based.
        total: steps of the run, warm-up included.
        warmup: of these, in which it rises linearly to the learning rate.
        final_lr: share of the learning rate at which a decay ends; `constant` has none.

    Example:
        >>> [round(lr_factor("linear", s, 4), 2) for s in range(4)]
        [1.0, 0.75, 0.5, 0.25]
        >>> [round(lr_factor("wsd", s, 10, final_lr=0.1), 2) for s in (0, 8, 9, 10)]
        [1.0, 1.0, 0.55, 0.1]
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return final_lr + (1.0 - final_lr) * _decay(schedule, progress)


def _decay(schedule: str, progress: float) -> float:
    """What is left of a decay to zero at a share of the way."""
    if schedule == "linear":
        return 1.0 - progress
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    if schedule == "wsd":
        return min(1.0, (1.0 - progress) / (1.0 - STABLE_SHARE))
    return 1.0
