"""The distribution of a layer's gradient values against batch size: its peak, its width and its tails."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import UsageError
from ..hardware.random_state import preserved_random_state
from ..store.not_applicable import NotApplicable
from ..tasks.workload import Workload
from .base import chosen_weight, gradients, twin

__all__ = ["GradientHistogram", "Histogram", "Shape", "Tail", "measure_histograms", "symmetric_limit"]

_PEAK_VALUES = 2500


@dataclass(frozen=True, kw_only=True)
class Tail:
    """Tail of a histogram: values at a marked one or beyond it, seen from zero."""

    mark: float
    count: int
    """Values `≥ mark` for a positive mark, `≤ mark` for a negative one."""
    count_of_both_signs: int
    """Values with `|v| ≥ |mark|`."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Shape of a distribution: where it has its peak, and how wide it is there."""

    mode: float
    """The centre of the fullest stretch; of equals, the one nearest to zero."""
    full_width_at_half_maximum: float | None
    """Between the nearest points on both sides of the mode at which counts, interpolated between bin centres, have
    fallen to half of the peak; `None` where they have not at a limit."""
    resolution: float
    """The stretch over which counts were averaged. A width below three of it is the stretch's more than the values'."""


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Histogram: counts of values in equal bins over `[−limit, limit]`; those with equal bins and marks can be added.

    The number of bins is odd, so that zero is the centre of one. Values of exactly zero are counted apart: those of
    weights that no example reached (a unit that is off, an input that is zero) are no part of the distribution's shape.
    """

    limit: float
    counts: tuple[int, ...]
    below: int
    """Values under `−limit`."""
    above: int
    """Values over `limit`."""
    zeros: int
    tails: tuple[Tail, ...]
    """Exact, whatever the bins."""

    @classmethod
    def empty(cls, *, limit: float, bins: int = 501, marks: Sequence[float] = ()) -> Histogram:
        """Histogram without values.

        Raises:
            ValueError: `bins` is even or below 3, or `limit` is not a positive number.
        """
        if bins < 3 or bins % 2 == 0 or not (0 < limit < math.inf):
            raise ValueError(f"{bins} bins up to {limit}: an odd number of bins, 3 or more, and a positive limit")
        tails = tuple(Tail(mark=mark, count=0, count_of_both_signs=0) for mark in marks)
        return cls(limit=limit, counts=(0,) * bins, below=0, above=0, zeros=0, tails=tails)

    @torch.no_grad()
    def with_values(self, values: Tensor) -> Histogram:
        """This histogram and the elements of a tensor; such as are not numbers are left out.

        Cost: a few sweeps over the values.
        """
        flat = values.detach().reshape(-1)
        flat = flat[~flat.isnan()].to("cpu", torch.float64)
        shaped = flat[flat != 0]
        inside = shaped[shaped.abs() <= self.limit]
        bins = len(self.counts)
        index = ((inside + self.limit) * (bins / (2 * self.limit))).long().clamp_(max=bins - 1)
        added = torch.bincount(index, minlength=bins).tolist()
        return replace(
            self,
            counts=tuple(a + b for a, b in zip(self.counts, added, strict=True)),
            below=self.below + int((shaped < -self.limit).sum()),
            above=self.above + int((shaped > self.limit).sum()),
            zeros=self.zeros + len(flat) - len(shaped),
            tails=tuple(_lengthened(tail, flat) for tail in self.tails),
        )

    def __add__(self, other: Histogram) -> Histogram:
        """Sum of two histograms: all values of both.

        Raises:
            ValueError: their bins or marks differ.
        """
        mine, theirs = (_frame(h) for h in (self, other))
        if mine != theirs:
            raise ValueError(f"histograms of limit, bins and marks {mine} and {theirs} cannot be added")
        return Histogram(
            limit=self.limit,
            counts=tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)),
            below=self.below + other.below,
            above=self.above + other.above,
            zeros=self.zeros + other.zeros,
            tails=tuple(
                replace(a, count=a.count + b.count, count_of_both_signs=a.count_of_both_signs + b.count_of_both_signs)
                for a, b in zip(self.tails, other.tails, strict=True)
            ),
        )

    @property
    def total(self) -> int:
        """Number of all values, zeros included."""
        return sum(self.counts) + self.below + self.above + self.zeros

    @property
    def bin_width(self) -> float:
        """The width of a bin, in the values' unit."""
        return 2 * self.limit / len(self.counts)

    def centre(self, index: int) -> float:
        """The middle of a bin."""
        return (index - len(self.counts) // 2) * self.bin_width

    def shape(self) -> Shape | None:
        """Peak and width; `None` without values inside the limits.

        Counts are averaged over a window of neighbouring bins, so that chance neither makes a peak nor a dip at half of
        it: the smallest (odd) window in which the peak holds 2,500 values, but less than a third of the width where 250
        values are left in it. On normal values the width is off by 4 % on average (9 % between draws) at 300 of them,
        by 1 to 2 % from 3,000.
        """
        counts = np.array(self.counts, dtype=np.float64)
        if not counts.any():
            return None
        window = 1
        while _smooth(counts, window).max() * window < _PEAK_VALUES and window < len(counts) // 8:
            window += 2
        peak, height, width = _peak(_smooth(counts, window))
        while width is not None and window > 1 and 3 * window > width and height * (window - 2) >= _PEAK_VALUES / 10:
            window -= 2
            peak, height, width = _peak(_smooth(counts, window))
        return Shape(
            mode=self.centre(peak),
            full_width_at_half_maximum=None if width is None else width * self.bin_width,
            resolution=window * self.bin_width,
        )


@dataclass(frozen=True, kw_only=True)
class GradientHistogram:
    """Histogram of the pooled gradient values of one layer at one batch size."""

    batch_size: int
    repeats: int
    layer: str
    histogram: Histogram
    shape: Shape | None


def measure_histograms(
    workload: Workload,
    model: nn.Module,
    *,
    batch_sizes: Sequence[int],
    repeats: int = 30,
    seed: int = 0,
    layer: str | None = None,
    bins: int = 501,
    marks: Sequence[float] = (),
    limit: float | None = None,
) -> tuple[GradientHistogram, ...] | NotApplicable:
    """Measure histograms of a layer's gradient values, pooled over `repeats` batches of each size, at fixed weights.

    All batch sizes share the bins. Without `limit` they reach to 1.25 times the largest magnitude in a first gradient
    of each size, so that the bins come from the data and are fixed before anything is counted; what lies beyond is
    counted as below or above. For the sums over steps that Shen shows, feed a `Histogram` from
    `measure_sequential_gradients(on_sum=...)` instead.

    Args:
        workload: the task on its device.
        model: the weights to measure at; left as it is.
        batch_sizes: in examples, drawn with replacement.
        repeats: batches of each size.
        seed: of the draws and of what is random in the loss.
        layer: a layer's or a parameter's name; default: the last weight matrix.
        bins: an odd number.
        marks: values from which tails are counted.
        limit: the largest magnitude inside the bins; give one to add histograms of several calls.

    Returns:
        One record a batch size, or why there is none.

    Raises:
        UsageError: a number makes no sense, or no layer has that name.
        TaskError: the task's loss failed.

    Units: loss per weight.

    Cost: `(repeats + 1) · Σ batch_sizes` examples forward and backward, one repeat fewer where `limit` is given.
    Measured (`benchmarks/probes.py`; 64-32-10, then 784-1024-1024-10): 3.9 and 0.6
    times as long as those passes alone, at batches of 64 (less than 1: only one layer's gradient is formed).

    Valid when: always; the entries of one gradient are not independent of one another, so counts have no Poisson error.
    Batches too small for batch normalisation have no gradient, and say so.

    Source: Shen 2018 (histograms of raw gradient values, with a marked value).
    """
    if not batch_sizes or min(*batch_sizes, repeats, 1) < 1 or bins < 3 or bins % 2 == 0:
        raise UsageError(
            f"batch sizes {list(batch_sizes)}, {repeats} repeats, {bins} bins: at least 1 batch size and repeat, and "
            "an odd number of bins"
        )
    copy = twin(workload, model)
    found = chosen_weight(copy, layer)
    if isinstance(found, NotApplicable):
        return found
    name, weight = found

    def draw(batch_size: int) -> Tensor:
        indices = torch.randint(workload.examples, (batch_size,))
        return gradients(workload, copy, workload.batch(indices), [weight])[0]

    with preserved_random_state(seed):
        reach = limit or symmetric_limit(draw(batch_size) for batch_size in batch_sizes)
        if reach is None:
            return NotApplicable(reason=f"the gradient of {name} is zero, or no number, at every batch size")
        records: list[GradientHistogram] = []
        for batch_size in batch_sizes:
            pooled = Histogram.empty(limit=reach, bins=bins, marks=marks)
            for _ in range(repeats):
                pooled = pooled.with_values(draw(batch_size))
            records.append(_record(pooled, batch_size, repeats, name))
    return tuple(records)


def symmetric_limit(samples: Iterable[Tensor], *, factor: float = 1.25) -> float | None:
    """Limit of a histogram: `factor` times the largest finite magnitude in some tensors; `None` where all are zero."""
    largest = 0.0
    for sample in samples:
        finite = sample[sample.isfinite()]
        largest = max(largest, float(finite.abs().max()) if finite.numel() else 0.0)
    return factor * largest or None


def _record(pooled: Histogram, batch_size: int, repeats: int, layer: str) -> GradientHistogram:
    return GradientHistogram(
        batch_size=batch_size,
        repeats=repeats,
        layer=layer,
        histogram=pooled,
        shape=pooled.shape(),
    )


def _smooth(counts: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    return counts if window == 1 else np.convolve(counts, np.full(window, 1.0 / window), mode="same")


def _peak(counts: NDArray[np.float64]) -> tuple[int, float, float | None]:
    """Peak of the counts: where it is, its height, and its full width at half of it, in bins."""
    middle = len(counts) // 2
    peak = max(range(len(counts)), key=lambda i: (counts[i], -abs(i - middle)))
    left, right = _half(counts, peak, -1), _half(counts, peak, 1)
    return peak, float(counts[peak]), None if left is None or right is None else right - left


def _half(counts: NDArray[np.float64], peak: int, direction: int) -> float | None:
    """Position, in bins, at which counts fall to half of the peak's."""
    half, i = counts[peak] / 2, peak
    while 0 <= i + direction < len(counts):
        here, there = counts[i], counts[i + direction]
        if there <= half:
            return float(i + direction * (here - half) / (here - there))
        i += direction
    return None


def _frame(histogram: Histogram) -> tuple[float, int, tuple[float, ...]]:
    return histogram.limit, len(histogram.counts), tuple(tail.mark for tail in histogram.tails)


def _lengthened(tail: Tail, values: Tensor) -> Tail:
    one_sided = values >= tail.mark if tail.mark >= 0 else values <= tail.mark
    return replace(
        tail,
        count=tail.count + int(one_sided.sum()),
        count_of_both_signs=tail.count_of_both_signs + int((values.abs() >= abs(tail.mark)).sum()),
    )
