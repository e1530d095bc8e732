"""Gradient noise scale of a run, from its noise rows.

A row holds, for `n` groups of `b` examples that make up a batch `B = n b`, `L = mean_j |g_j|²` and `T = |mean_j g_j|²`.
With `V = (L - T) / (1/b - 1/B)`, unbiased estimates at that step's parameters are

    independent draws:                         tr(Σ) = V,            |G|² = T - V / B
    without replacement from N examples:       tr(Σ) = V (N - 1)/N,  |G|² = T - V / B · (N - B)/N

where in the second line `G` and `Σ` are the mean and the covariance over those N examples. (Derived from
`E|g_B|² = |G|² + tr(Σ)/B · (N - B)/(N - 1)`; the correction of |G|² is tr(Σ)/(N - 1): it matters when the noise scale
is comparable with N, however small the batch.) A row's ratio is useless: numerator and denominator are summed over the
rows apart, nothing is clipped before, and the sums are divided.

The result is therefore the |G|²-weighted mean of the noise scale along the run. It depends on the learning rate of that
run and moves by a factor of ten or more while training goes on: read it beside the learning rate, and with its trace.
It is a prior for the critical batch size (McCandlish et al. 2018, section 2.2: right to an order of magnitude; Merrill
et al. 2025: too small by orders of magnitude under Adam), never a measurement of it.

Valid when: examples are independent of one another and drawn at random; the norms were read before any clipping.

*Unequal groups.* Let `s_j` be a group's share of the step's gradient `g = Σ s_j g_j` (`Σ s_j = 1`), `Q = Σ |s_j g_j|²`,
`T = |g|²` and `S = Σ s_j²`. Whatever the variances `v_j` of the groups, `E T = |G|² + Σ s_j² v_j` and `E Q = Σ s_j²
(|G|² + v_j)`, so that `(T - Q) ÷ (1 - S)` estimates |G|² without bias. A row then holds what `n` equal groups with the
same two estimates would have (`equal_groups`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..store.records import Estimate, Row
from . import intervals

__all__ = [
    "NoiseBlock",
    "Readings",
    "effective_batch_size",
    "equal_groups",
    "equal_groups_from_sums",
    "estimate",
    "estimate_layers",
    "estimate_parts",
    "recent",
    "trace",
]

_METHOD = "micro-batch groups, sums divided; Fieller interval from second differences"
_METHOD_OF_PARTS = "micro-batch groups, means over readings; t interval from second differences"
_FEWEST = 5
"""Readings below which there is no interval."""
_FEWEST_RECENT, _MOST_RECENT = 64, 2048
"""Readings that are looked back at, at least and at most."""

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class NoiseBlock:
    """Gradient noise scale in one stretch of a run, in examples; an open end of its 90 % interval is `None`."""

    step: float
    """Mean step of the stretch's readings."""
    examples: float
    """Mean number of examples seen before them."""
    value: float | None
    low: float | None
    high: float | None
    n: int
    """Readings in the stretch."""


@dataclass(frozen=True, kw_only=True)
class Readings:
    """Readings of the rows, each by itself, unbiased and unclipped; all arrays have shape (readings,)."""

    step: Array
    examples: Array
    """Examples seen before the step."""
    weight: Array
    """The batch size."""
    trace: Array
    """Estimates of tr(Σ)."""
    square: Array
    """Estimates of |G|²; many are negative where the noise scale exceeds the batch."""
    size: Array
    """Mean squared norm of a group times the batch size: the spread of a reading's terms goes with it."""

    @classmethod
    def of(cls, rows: Sequence[Row], *, examples: int | None = None) -> Readings:
        """Read the noise rows among `rows`, in their order; `examples` as for `estimate`."""
        keys = ("step", "examples", "groups", "group_size", "mean_square_norm", "square_norm_of_mean")
        table = np.array([[float(row[key]) for key in keys] for row in rows if row["kind"] == "noise"])
        step, seen, n, b, of_groups, of_mean = table.reshape(-1, len(keys)).T
        batch = n * b
        spread = (of_groups - of_mean) / (1 / b - 1 / batch)
        share = 1 / examples if examples else 0.0
        trace, square = spread * (1 - share), of_mean - spread / batch * (1 - batch * share)
        return cls(step=step, examples=seen, weight=batch, trace=trace, square=square, size=of_groups * batch)

    @property
    def n(self) -> int:
        """Number of readings."""
        return self.step.size

    def part(self, index: NDArray[np.intp]) -> Readings:
        """Readings at `index`."""
        return Readings(**{name: column[index] for name, column in vars(self).items()})

    @property
    def terms(self) -> Array:
        """Terms of the two sums, for tr(Σ) and for |G|², each reading by the size of its batch; (2, readings)."""
        return self.weight * np.stack([self.trace, self.square])


def equal_groups(square_norms: Sequence[float], shares: Sequence[float], square_norm_of_mean: float) -> float:
    """Mean squared norm that equal groups with the same estimates would have; see the module's *Unequal groups*.

    With `n` groups, `L = (Q (n - 1) + T (1 - n S)) ÷ (1 - S)`; for equal shares that is `mean_j |g_j|²` itself.

    Args:
        square_norms: `|s_j g_j|²` of each group: what it added to the step's gradient.
        shares: `s_j` of each group; they add up to 1.
        square_norm_of_mean: `T`, of the step's gradient.

    Raises:
        ValueError: there are fewer than two groups, or one group has the whole share.

    Example:
        >>> equal_groups([1.0, 2.0], [0.5, 0.5], 2.5)  # two times the sum: each came divided by 2, squared by 4
        6.0
    """
    n, total = len(shares), math.fsum(square_norms)
    together = 1 / n if len(set(shares)) == 1 else math.fsum(share**2 for share in shares)
    return equal_groups_from_sums(total, groups=n, together=together, square_norm_of_mean=square_norm_of_mean)


def equal_groups_from_sums(total: float, *, groups: int, together: float, square_norm_of_mean: float) -> float:
    """`equal_groups` where the groups are known by their sums only, as those of several ranks are.

    Args:
        total: `Σ |s_j g_j|²`.
        groups: n.
        together: `Σ s_j²`; `1 / n` where all shares are equal.
        square_norm_of_mean: `T`, of the step's gradient.

    Raises:
        ValueError: as for `equal_groups`.
    """
    if groups < 2 or not together < 1:
        raise ValueError("a single group says nothing about noise; there must be two, each with a share")
    if together == 1 / groups:
        return groups * total
    return (total * (groups - 1) + square_norm_of_mean * (1 - groups * together)) / (1 - together)


def effective_batch_size(shares: Sequence[float], examples: Sequence[float]) -> float:
    """Batch size with the noise of a step whose groups count by `shares` and have `examples` each: `1 ÷ Σ s_j² / b_j`.

    It is the number of examples where shares are proportional to the sizes, and less elsewhere.

    >>> effective_batch_size([0.25, 0.75], [10, 30]), effective_batch_size([0.5, 0.5], [10, 30])
    (40.0, 30.0)
    """
    return 1 / math.fsum(share**2 / size for share, size in zip(shares, examples, strict=True))


def estimate(rows: Sequence[Row], *, examples: int | None = None) -> Estimate:
    """Gradient noise scale `tr(Σ) / |G|²` of one run, with its 90 % Fieller interval.

    The readings of a run drift, so their scatter about a common mean says little: the sampling (co)variance of the two
    sums is taken from second differences of consecutive readings, which a steady drift leaves alone, and locally, since
    the spread of the readings falls with the gradient (`covariance_of_sums`). The interval is Fieller's (1954).

    Args:
        rows: one run's rows in the order of its steps; rows of other kinds are passed over. Readings count by the size
            of their batch.
        examples: N, the size of the training set that batches are drawn from without replacement; `None` for
            independent draws.

    Returns:
        The estimate, in examples. Where |G|² cannot be told from zero, `high` is `None` and `low` a one-sided 95 %
        bound ("noise scale at least `low`"); where its sum is negative `value` is `None` too. With fewer than 5
        readings both ends are open.

    Coverage at nominal 0.90, by simulation with Gaussian gradients whose norm falls up to tenfold, 8 to 150 readings:
    0.88 to 0.94; with those of linear regressions in training by SGD, whose readings are skewed and fall by up to 10^4:
    0.85 to 0.94 (`benchmarks/live/coverage.py`).

    Example:
        >>> row = {"kind": "noise", "step": 0, "examples": 0, "groups": 2, "group_size": 32}
        >>> wobble = (-0.01, 0.02, 0.0, 0.01, -0.02)
        >>> rows = [row | {"mean_square_norm": 5.0 + x, "square_norm_of_mean": 3.0} for x in wobble]
        >>> e = estimate(rows)
        >>> round(e.value)  # tr(Σ) = 2 / (1/32 - 1/64) = 128 and |G|² = 3 - 128/64 = 1
        128
        >>> e.low < 128 < e.high
        True
    """
    readings = Readings.of(rows, examples=examples)
    value, low, high = _interval(readings)
    return Estimate(value=value, low=low, high=high, n=readings.n, unit="examples", method=_METHOD)


def estimate_parts(rows: Sequence[Row], *, examples: int | None = None) -> tuple[Estimate, Estimate]:
    """Signal |G|² and noise tr(Σ) of one run apart, each with its 90 % interval.

    Both are means over the readings, which count by the size of their batch, so that their ratio is `estimate`. The
    intervals are Student's, from second differences as there. Nothing is clipped: where noise hides the gradient the
    estimate of |G|² is negative, and its interval says so.

    Args:
        rows: as for `estimate`.
        examples: as for `estimate`.

    Returns:
        Signal (unit: squared gradient) and noise (squared gradient × examples). With fewer than 5 readings both ends
        are open.

    Example:
        >>> row = {"kind": "noise", "step": 0, "examples": 0, "groups": 2, "group_size": 32}
        >>> rows = [row | {"mean_square_norm": 5.0, "square_norm_of_mean": 3.0}] * 5
        >>> [part.value for part in estimate_parts(rows)]  # as in the example of `estimate`
        [1.0, 128.0]
    """
    readings = Readings.of(rows, examples=examples)
    units, method = ("squared gradient", "squared gradient × examples"), _METHOD_OF_PARTS
    if not readings.n:
        signal, noise = (Estimate.missing("no readings", unit=unit) for unit in units)
        return signal, noise
    total = float(readings.weight.sum())
    noise, signal = readings.terms.sum(axis=1) / total
    half: Array | None = None
    if (found := intervals.covariance_of_sums(readings.terms, readings.size)) is not None:
        covariance, t = found
        half = t * np.sqrt(np.diag(covariance)) / total

    def part(value: float, row: int, unit: str) -> Estimate:
        low, high = (None, None) if half is None else (float(value - half[row]), float(value + half[row]))
        return Estimate(value=float(value), low=low, high=high, n=readings.n, unit=unit, method=method)

    return part(signal, 1, units[0]), part(noise, 0, units[1])


def estimate_layers(rows: Sequence[Row], *, examples: int | None = None) -> dict[str, Estimate]:
    """Gradient noise scale of each layer that all rows with layers have, as `estimate` has it of the whole model.

    Args:
        rows: noise rows with `layers`, which map a name to its `[mean_square_norm, square_norm_of_mean]`; rows without
            are passed over.
        examples: as for `estimate`.
    """
    with_layers = [row for row in rows if row["kind"] == "noise" and row.get("layers")]
    names = (
        [name for name in with_layers[0]["layers"] if all(name in row["layers"] for row in with_layers)]
        if (with_layers)
        else []
    )

    def of_layer(row: Row, name: str) -> Row:
        mean_square, square_of_mean = row["layers"][name]
        return {**row, "mean_square_norm": mean_square, "square_norm_of_mean": square_of_mean}

    return {name: estimate([of_layer(row, name) for row in with_layers], examples=examples) for name in names}


def recent(rows: Sequence[Row]) -> list[Row]:
    """Noise rows that count for the present: the later half of the run's, 64 at least and 2048 at most.

    The noise scale rises tenfold and more while a model trains, so that readings far back must not dominate. A window
    that grows with the run needs no constant of the task: it is as long as the past that it leaves out. It does not
    look at the values, and so does not bias them. Where it holds fewer than 5 noise scales of examples (the rule of
    thumb for |G|², whose relative standard deviation is about `sqrt(4 κ B_simple ÷ M)` over `M` examples) the interval
    is wide, and says so itself.

    >>> [len(recent([{"kind": "noise"}] * n)) for n in (10, 100, 1000, 100_000)]
    [10, 64, 500, 2048]
    """
    noise = [row for row in rows if row["kind"] == "noise"]
    return noise[-min(_MOST_RECENT, max(_FEWEST_RECENT, len(noise) // 2)) :]


def trace(rows: Sequence[Row], *, examples: int | None = None, blocks: int = 8) -> tuple[NoiseBlock, ...]:
    """Gradient noise scale along one run: consecutive stretches of equally many readings, estimated each by itself.

    Args:
        rows: as for `estimate`.
        examples: as for `estimate`.
        blocks: how many stretches at most; there are fewer where a stretch would have less than 5 readings.

    Returns:
        The stretches in the order of the run; empty where there are no noise rows.
    """
    readings = Readings.of(rows, examples=examples)
    count = max(1, min(blocks, readings.n // _FEWEST))
    parts = np.array_split(np.arange(readings.n), count)
    return tuple(_block(readings.part(index)) for index in parts if index.size)


def _block(readings: Readings) -> NoiseBlock:
    value, low, high = _interval(readings)
    step, examples = float(readings.step.mean()), float(readings.examples.mean())
    return NoiseBlock(step=step, examples=examples, value=value, low=low, high=high, n=readings.n)


def _interval(readings: Readings) -> tuple[float | None, float | None, float | None]:
    """Ratio of the weighted sums and the two ends of its interval; `None` for what is open."""
    return intervals.ratio_of_sums(readings.terms, readings.size)
