"""Peak memory of a training step against micro-batch size: a floor, then a straight line.

```
peak(m) = base + max(optimizer_step_extra, per_example · m)
```

`base` is what stays: weights, gradients, optimizer state. The activations' peak comes when the forward pass ends, the
optimizer's temporaries come later, so the larger of the two counts. Below the crossing the readings do not depend on
`m` at all: extrapolated from there, a tenth of the truth was predicted. `cautious_bytes` is the guard against that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["HEADROOM", "MemoryModel", "fit_memory"]

HEADROOM = 0.08
"""Share of a memory limit kept free, for fragmentation and for what no counter sees (an assumption)."""

_READINGS_FOR_BEND = 3
_ON_THE_SLOPE = 0.8
"""The last secant's share of the steepest slope that the model allows, from which readings count as off the floor."""


@dataclass(frozen=True, kw_only=True)
class MemoryModel:
    """Peak memory: the fitted line and its floor, in bytes; sizes are micro-batch sizes in examples.

    Example:
        >>> model = fit_memory([(1, 300.0), (16, 460.0), (64, 940.0)], base_bytes=100.0)
        >>> model.peak_bytes(256), model.largest_for(2000.0)
        (2860.0, 170)
    """

    base_bytes: float
    per_example_bytes: float
    line_at_zero_bytes: float
    """Where the line of the activations meets size zero: `base` and the workspace that every step needs."""
    floor_bytes: float
    """Smallest peak of any step."""
    bend_bytes: float
    """Second divided difference of the last three readings, at least 0: memory that grows faster than the batch, or a
    floor that has just been left."""
    points: tuple[tuple[int, float], ...]

    def peak_bytes(self, micro_batch_size: int) -> float:
        """Expected peak of one training step, bytes."""
        return max(self.floor_bytes, self.line_at_zero_bytes + self.per_example_bytes * micro_batch_size)

    def bent_bytes(self, micro_batch_size: int) -> float:
        """Expected peak, bending upward beyond the last reading as the last three do."""
        size, peak = self.points[-1]
        if micro_batch_size <= size or not self.bend_bytes:
            return self.peak_bytes(micro_batch_size)
        beyond = micro_batch_size - size
        bend = self.bend_bytes * (micro_batch_size - self.points[-2][0])
        return max(self.floor_bytes, peak + (self.per_example_bytes + bend) * beyond)

    def cautious_bytes(self, micro_batch_size: int) -> float:
        """Peak that is not exceeded where memory grows in proportion, or bends upward as three readings show.

        From fewer than three readings it grows with the square of the size. Used for the next size to run, so that no
        step is tried that could fail. Equal to `peak_bytes` where the readings lie on one line off the floor.
        """
        size, peak = self.points[-1]
        bound = self.bent_bytes(micro_batch_size)
        if micro_batch_size <= size:
            return bound
        proportional = (peak - self.base_bytes) / size
        if len(self.points) < _READINGS_FOR_BEND:
            return max(bound, self.base_bytes + proportional * micro_batch_size**2 / size)
        if self.per_example_bytes < _ON_THE_SLOPE * proportional:
            return max(bound, self.base_bytes + proportional * micro_batch_size)
        return bound

    def largest_for(self, limit_bytes: float, *, most: int = 2**40, cautious: bool = False) -> int:
        """Largest size whose expected (or cautious) peak stays within a limit; 0: not even one example.

        Cost: about forty evaluations. Valid for a peak that does not fall as the size grows, which every fit ensures.
        """
        peak = self.cautious_bytes if cautious else self.peak_bytes
        if peak(most) <= limit_bytes:
            return most
        fits, fails = 0, most
        while fails - fits > 1:
            middle = (fits + fails) // 2
            fits, fails = (middle, fails) if peak(middle) <= limit_bytes else (fits, middle)
        return fits


def fit_memory(
    points: Sequence[tuple[int, float]], *, base_bytes: float | None = None, floor_bytes: float | None = None
) -> MemoryModel:
    """Fit the memory model through the largest readings, which are the ones that decide what fits.

    The line is the secant of the two largest sizes, because counted peaks carry no noise and a median of older slopes
    would drag the floor in. One reading alone is taken as proportional above `base_bytes`.

    Args:
        points: `(micro_batch_size, peak bytes)`, in any order, at least one.
        base_bytes: weights, gradients and optimizer state, where they are known; else the line's value at zero.
        floor_bytes: peak of the optimizer's part, where it was read apart and `points` are those of the passes before
            it; else the smallest reading.

    Returns:
        The model; its slope is never negative.

    Raises:
        ValueError: there is no reading, or one is not positive and finite.
    """
    if not points:
        raise ValueError("no memory reading to fit")
    if bad := [p for p in points if p[0] < 1 or not math.isfinite(p[1]) or p[1] <= 0]:
        raise ValueError(f"memory reading {bad[0]} is not a positive size with positive finite bytes")
    ordered = sorted((int(size), float(peak)) for size, peak in points)
    known = base_bytes if base_bytes is not None else 0.0
    before, last = ((0, known), ordered[0]) if len(ordered) == 1 else ordered[-2:]
    slope = max(0.0, (last[1] - before[1]) / (last[0] - before[0]))
    at_zero = last[1] - slope * last[0]
    base = base_bytes if base_bytes is not None else at_zero
    bend = 0.0
    if len(ordered) >= _READINGS_FOR_BEND:
        third = ordered[-3]
        earlier = (before[1] - third[1]) / (before[0] - third[0])
        bend = max(0.0, (slope - earlier) / (last[0] - third[0]))
    return MemoryModel(
        base_bytes=base,
        per_example_bytes=slope,
        line_at_zero_bytes=at_zero,
        floor_bytes=min(peak for _, peak in ordered) if floor_bytes is None else floor_bytes,
        bend_bytes=bend,
        points=tuple(ordered),
    )
