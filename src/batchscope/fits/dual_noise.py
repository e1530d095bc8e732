"""Gradient noise scale in the geometry of a sign or a spectral optimizer, from its noise rows.

An optimizer that makes the steepest step under a norm `‖·‖` gains in proportion to the dual norm `‖G‖_*` of the
gradient: the sum of absolute values (l1) for signSGD, Signum, Lion and, nearly, Adam; the sum of singular values (the
nuclear norm) for Muon. The noise scale of such an optimizer compares the two in that norm:

    B_* = lim  B (E ‖g_B - G‖_*)² ÷ ‖G‖_*²,     g_B: mean gradient of B examples drawn at random

It is the batch size at which noise and gradient have the same dual norm. For l1 and normal noise it is `2/π (Σ_i σ_i)²
÷ ‖G‖₁²`, with `σ_i` the standard deviation of one example's gradient in coordinate `i`: up to that factor the ratio in
Bernstein et al. 2018 ("signSGD", theorem 1). That noise scales belong into the dual norm of the optimizer is due to
Naganuma et al. 2026 ("Adaptive Batch Sizes Using Non-Euclidean Gradient Noise Scales for Stochastic Sign and Spectral
Descent", arXiv 2602.03001). The definition above and the estimator are ours; they are not taken from their text.

With groups of `b_k` examples of the batch `B = Σ b_k`, their mean gradients `g_k`, `g` the mean of all and `g_-k` that
of all but group k, a row holds

    noise_norm    mean_k ‖g_k - g_-k‖_* ÷ sqrt(1/b_k + 1/(B - b_k))
    norm_of_mean  ‖g‖_*
    aligned       Σ_k b_k/B <g_k, D(g_-k)>,     D(x) = argmax over ‖d‖ <= 1 of <x, d>: sign(x), or U Vᵀ of the SVD

`noise_norm` has the expectation `sqrt(B) E ‖g_B - G‖_*` exactly where the noise of a group is normal, and for two equal
groups where it is symmetric. No unbiased estimate of `‖G‖_*` exists, but two bounds hold whatever the noise:
`E <g_k, D(g_-k)> = <G, E D(g_-k)> <= ‖G‖_*` (the groups are independent) and `E ‖g‖_* >= ‖G‖_*` (Jensen). So

    aligned <= ‖G‖_* <= norm_of_mean  in expectation,  and  r = norm_of_mean ÷ aligned  says how much is not known.

The value takes their geometric mean for `‖G‖_*`; with `r <= 2` its systematic error is below a factor of r. By
simulation (`benchmarks/live/coverage.py`) it is within a few per cent at r = 1.2, and within 0.65 to 1.45 at r = 2 for
coordinates that are all equal, normal, Laplace or heavy tailed, but down to 0.5 where nine in ten have no gradient at
all. With r > 2, which is a batch below about 1.3 B_*, there is no value: more readings do not help, since the bias is
that of a batch; the two bounds are still said.

Valid when: as for `fits.noise_scale`, and examples are a small part of the data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..store.records import Estimate, Row
from . import intervals

__all__ = ["DualNoise", "estimate_dual"]

Array = NDArray[np.float64]

_METHOD = "dual norms of groups; interval over the bounds of the gradient's norm, each by Fieller"
_WIDEST = 2.0
"""Ratio of the two bounds of ‖G‖_* above which there is no value."""

_NORMS = {"sign": "absolute values", "spectral": "singular values"}


@dataclass(frozen=True, kw_only=True)
class DualNoise:
    """Noise scale in a dual norm."""

    gradient_noise_scale: Estimate
    """`B_*` in examples; the interval holds the sampling error and what is not known of `‖G‖_*`."""
    signal: Estimate
    """`‖G‖_*²`, with the square of the mean of the norms over the readings."""
    noise: Estimate
    """`B (E ‖g_B - G‖_*)²`: of one example. Noise ÷ signal is the noise scale."""
    reason: str
    """Why there is no value; empty where there is one."""


def estimate_dual(rows: Sequence[Row], *, geometry: str) -> DualNoise:
    """Gradient noise scale of one run in the dual norm of its optimizer.

    Args:
        rows: one run's rows in the order of its steps; those of another geometry are passed over.
        geometry: `"sign"` or `"spectral"`.

    Returns:
        The estimate. `low` takes the upper bound of `‖G‖_*` and `high` the lower one, each at the end of a 90 % Fieller
        interval: the true value lies between them in 95 of 100 runs where the bounds are close, in more where they are
        not. With fewer than 5 readings the interval is open.

    Example:
        >>> row = {"kind": "noise", "geometry": "sign", "norm_of_mean": 10.5, "aligned": 9.6}
        >>> rows = [row | {"noise_norm": 80.0 + x} for x in (-1.0, 2.0, 0.0, 1.0, -2.0)]
        >>> round(estimate_dual(rows, geometry="sign").gradient_noise_scale.value, 1)  # 80² / (10.5 * 9.6)
        63.5
    """
    keys = ("noise_norm", "norm_of_mean", "aligned")
    found = [row for row in rows if row["kind"] == "noise" and row.get("geometry") == geometry]
    noise, upper, lower = np.array([[float(row[key]) for key in keys] for row in found]).reshape(-1, 3).T
    ones = np.ones(len(found))
    reason = _reason(geometry, upper, lower)
    of_noise, most, least = (_ratio(series, ones, upper) for series in (noise, upper, lower))
    squared = None if reason else float(upper.mean() * lower.mean())
    own = float(noise.mean() ** 2) if found else None
    return DualNoise(
        gradient_noise_scale=_estimate(
            None if squared is None or own is None else own / squared,
            low=_ratio(noise, upper, upper)[0],
            high=_ratio(noise, lower, upper)[1],
            n=len(found),
            unit="examples",
        ),
        signal=_estimate(squared, low=least[0], high=most[1], n=len(found)),
        noise=_estimate(own, low=of_noise[0], high=of_noise[1], n=len(found)),
        reason=reason,
    )


def _ratio(numerator: Array, denominator: Array, size: Array) -> tuple[float | None, float | None]:
    """The two ends of the interval of a ratio of sums."""
    return intervals.ratio_of_sums(np.stack([numerator, denominator]), size)[1:]


def _estimate(value: float | None, *, low: float | None, high: float | None, n: int, unit: str = "") -> Estimate:
    """The estimate of a square, of the ends of what is squared."""
    low, high = (None if end is None else end**2 for end in (low, high))
    return Estimate(value=value, low=low, high=high, n=n, unit=unit, method=_METHOD)


def _reason(geometry: str, upper: Array, lower: Array) -> str:
    if not upper.size:
        return f"no reading has the norms of the {geometry} geometry"
    most, least = float(upper.mean()), float(lower.mean())
    if most == 0.0:
        return "all gradients are zero"
    if least * _WIDEST >= most:
        return ""
    return (
        f"noise hides the gradient: the sum of its {_NORMS[geometry]} is from {max(0.0, least):.3g} to {most:.3g}, "
        "which more readings do not narrow; measure over more examples a step (a larger batch, or more accumulated "
        'micro-batches), or take geometry="euclidean"'
    )
