"""The noise scale in a dual norm: against simulated gradients whose mean and covariance are known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from batchscope.fits import intervals
from batchscope.fits.dual_noise import DualNoise, estimate_dual

SIZE = 400


def make_rows(
    generator: np.random.Generator,
    gradient: np.ndarray,
    deviation: np.ndarray,
    *,
    batch_size: int,
    groups: int = 2,
    readings: int = 30,
    tails: float | None = None,
) -> list[dict[str, Any]]:
    """Rows of the sign geometry, computed here by their definition."""
    size = batch_size // groups
    rows = list[dict[str, Any]]()
    for _ in range(readings):
        draws = generator.standard_normal((groups, gradient.size))
        if tails is not None:
            draws = generator.standard_t(tails, draws.shape) / math.sqrt(tails / (tails - 2))
        found = gradient + deviation * draws / math.sqrt(size)
        others = (found.sum(axis=0) - found) / (groups - 1)
        apart = np.abs(found - others).sum(axis=1).mean() / math.sqrt(1 / size + 1 / (batch_size - size))
        rows.append(
            {
                "kind": "noise",
                "geometry": "sign",
                "noise_norm": apart,
                "norm_of_mean": np.abs(found.mean(axis=0)).sum(),
                "aligned": (found * np.sign(others)).sum(axis=1).mean(),
            }
        )
    return rows


def exact(gradient: np.ndarray, deviation: np.ndarray) -> float:
    return 2 / math.pi * float(deviation.sum() / np.abs(gradient).sum()) ** 2


KINDS = ("normal", "laplace", "equal", "heavy tails")


def make_gradient(generator: np.random.Generator, kind: str) -> np.ndarray:
    if kind == "equal":
        return np.ones(SIZE)
    if kind == "heavy tails":
        return generator.standard_t(1.5, SIZE)
    return generator.standard_normal(SIZE) if kind == "normal" else generator.laplace(size=SIZE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("groups", [2, 4])
@pytest.mark.parametrize("times", [3, 10, 100])
def test_the_true_value_lies_between_the_bounds_and_the_value_within_their_ratio(
    kind: str, groups: int, times: int
) -> None:
    generator = np.random.default_rng(3)
    inside, ratios = 0, list[float]()
    for _ in range(100):
        gradient = make_gradient(generator, kind)
        deviation = 8 * np.exp(0.5 * generator.standard_normal(SIZE))
        truth = exact(gradient, deviation)
        batch_size = groups * max(1, round(times * truth / groups))
        rows = make_rows(generator, gradient, deviation, batch_size=batch_size, groups=groups, readings=12)
        found = estimate_dual(rows, geometry="sign")
        scale = found.gradient_noise_scale
        assert found.reason == ""
        assert scale.value is not None
        assert scale.low is not None
        assert scale.high is not None
        inside += scale.low <= truth <= scale.high
        wide = np.mean([row["norm_of_mean"] for row in rows]) / np.mean([row["aligned"] for row in rows])
        assert 1 / (1.1 * wide) < scale.value / truth < 1.1 * wide
        ratios.append(scale.value / truth)
    assert np.mean(ratios) == pytest.approx(1.0, abs={100: 0.02, 10: 0.1, 3: 0.35}[times])
    assert inside >= 85


def test_below_the_noise_scale_there_are_bounds_and_a_reason_but_no_value() -> None:
    generator = np.random.default_rng(5)
    gradient, deviation = np.ones(SIZE), np.full(SIZE, 20.0)
    truth = exact(gradient, deviation)
    few = estimate_dual(make_rows(generator, gradient, deviation, batch_size=64), geometry="sign")
    many = estimate_dual(make_rows(generator, gradient, deviation, batch_size=64, readings=2000), geometry="sign")
    for found in (few, many):
        scale = found.gradient_noise_scale
        assert scale.value is None
        assert found.signal.value is None
        assert "noise hides the gradient" in found.reason
        assert scale.low is not None
        assert scale.high is not None
        assert scale.low < truth < scale.high
    assert many.gradient_noise_scale.low is not None
    assert many.gradient_noise_scale.low < 0.5 * truth  # more readings do not narrow it, as the reason says

    wider = make_rows(generator, gradient, deviation, batch_size=2048)  # its advice
    assert estimate_dual(wider, geometry="sign").gradient_noise_scale.value == pytest.approx(truth, rel=0.15)


def test_noise_is_unbiased_for_normal_and_two_groups_of_symmetric_noise() -> None:
    generator = np.random.default_rng(8)
    gradient, deviation = generator.standard_normal(SIZE), np.exp(generator.standard_normal(SIZE))
    for groups in (2, 3, 8):
        rows = make_rows(generator, gradient, deviation, batch_size=24, groups=groups, readings=2000)
        found = estimate_dual(rows, geometry="sign").noise
        assert found.value == pytest.approx(2 / math.pi * deviation.sum() ** 2, rel=0.015)
    rows = make_rows(generator, gradient, deviation, batch_size=2, tails=3.0, readings=4000)
    draws = generator.standard_t(3.0, (4000, 2, SIZE)) / math.sqrt(3.0)
    truth = (np.abs(deviation * draws.mean(axis=1)).sum(axis=1).mean() * math.sqrt(2)) ** 2
    assert estimate_dual(rows, geometry="sign").noise.value == pytest.approx(truth, rel=0.01)


def test_interval_covers_where_the_bounds_meet() -> None:
    """Without coordinates near zero both bounds are exact: what is left is sampling error, at 90 %."""
    generator = np.random.default_rng(6)
    gradient = np.linspace(1.0, 2.0, 20)
    deviation = np.linspace(1.0, 4.0, 20)
    truth, hits = exact(gradient, deviation), 0
    for _ in range(400):
        scale = estimate_dual(
            make_rows(generator, gradient, deviation, batch_size=200, readings=20), geometry="sign"
        ).gradient_noise_scale
        hits += (scale.low or 0.0) <= truth <= (scale.high or math.inf)
    assert 0.86 <= hits / 400 <= 0.96


def test_few_other_or_empty_rows() -> None:
    rows = make_rows(np.random.default_rng(0), np.ones(5), np.ones(5), batch_size=100, readings=4)
    found = estimate_dual(rows, geometry="sign")
    assert found.gradient_noise_scale.value is not None
    assert (found.gradient_noise_scale.low, found.gradient_noise_scale.high) == (None, None)
    nothing = estimate_dual([{"kind": "noise", "groups": 2}, *rows], geometry="spectral")
    assert nothing == DualNoise(
        gradient_noise_scale=nothing.gradient_noise_scale,
        signal=nothing.signal,
        noise=nothing.noise,
        reason="no reading has the norms of the spectral geometry",
    )
    assert (nothing.gradient_noise_scale.value, nothing.gradient_noise_scale.n) == (None, 0)
    zero = [dict.fromkeys(("noise_norm", "norm_of_mean", "aligned"), 0.0) | {"kind": "noise", "geometry": "sign"}] * 6
    assert estimate_dual(zero, geometry="sign").reason == "all gradients are zero"


def test_ratio_of_sums_of_a_constant() -> None:
    assert intervals.ratio_of_sums(np.array([[6.0] * 6, [2.0] * 6]), np.ones(6)) == (3.0, 3.0, 3.0)
