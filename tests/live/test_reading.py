"""What a reading says about other batch sizes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from batchscope.fits.step_time import fit_step_time
from batchscope.live.reading import Reading
from batchscope.store.records import Estimate


def make_reading(
    value: float | None, low: float | None, high: float | None, batch_size: int = 64, n: int = 20
) -> Reading:
    scale = Estimate(value=value, low=low, high=high, n=n, unit="examples", method="")
    none = Estimate.missing()
    facts: dict[str, Any] = {"source": "", "overhead": 0.0, "step": 1, "examples": 64, "batch_size": 64}
    return Reading(gradient_noise_scale=scale, signal=none, noise=none, **facts)


@pytest.mark.parametrize("batch_size", [1, 16, 64, 65, 1024])
def test_steps_follow_the_law(batch_size: int) -> None:
    def steps(noise: float, size: int) -> float:
        return 1 + noise / size

    found = make_reading(200.0, 100.0, 900.0).max_speedup(batch_size)
    expected = [steps(noise, 64) / steps(noise, batch_size) for noise in (200.0, 100.0, 900.0)]
    assert found.value == pytest.approx(expected[0])
    assert (found.low, found.high) == pytest.approx((min(expected[1:]), max(expected[1:])))
    assert found.low is not None
    assert found.high is not None
    assert found.low <= (found.value or 0) <= found.high
    assert "literature" in found.method
    assert found.n == 20


def test_the_present_batch_size_gains_nothing() -> None:
    found = make_reading(200.0, 100.0, None).max_speedup(64)
    assert (found.value, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0))


def test_open_ends_are_those_of_endless_and_of_no_noise() -> None:
    found = make_reading(None, 100.0, None).max_speedup(256)
    assert found.value is None
    assert found.high == pytest.approx(4.0)
    assert found.low == pytest.approx((1 + 100 / 64) / (1 + 100 / 256))
    smaller = make_reading(None, None, None).max_speedup(16)
    assert (smaller.low, smaller.high) == pytest.approx((0.25, 1.0))
    assert make_reading(None, None, None, n=0).max_speedup(16).low is None


def test_in_time_by_a_function_and_by_a_fitted_model() -> None:
    reading = make_reading(200.0, 100.0, 900.0)
    model = fit_step_time([(m, 1e-3 * (1 + m / 64)) for m in (1, 4, 16, 64, 256, 1024)])
    steps = reading.max_speedup(256)
    for step_time in (model, lambda size: 1e-3 * (1 + size / 64)):
        found = reading.max_speedup(256, step_time)
        assert found.value == pytest.approx((steps.value or 0) * 2 / 5, rel=1e-3)
        assert (found.low, found.high) == pytest.approx([(e or 0) * 0.4 for e in (steps.low, steps.high)], rel=1e-3)
        assert "time" in found.unit


def test_a_batch_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        make_reading(200.0, 100.0, None).max_speedup(0)


def test_a_reading_needs_no_torch() -> None:
    code = "import sys, batchscope.live.reading; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_reading_is_told_in_three_lines_and_its_lack_in_one() -> None:
    lines = str(make_reading(200.0, 100.0, 900.0)).splitlines()
    assert lines[0].startswith("gradient noise scale 200 (100–900) examples")
    assert lines[1].startswith("batch size 128 instead of 64: at most 1.61 (1.44–1.88) times fewer steps")
    assert len(lines) == 3
    assert str(make_reading(None, None, None, n=0)) == "no gradient noise scale after 1 steps: "
