from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscope.store.records import Estimate
from batchscope.wording import bytes_, count, duration, number, percent, times, with_interval


def estimate(value: float | None, low: float | None, high: float | None) -> Estimate:
    return Estimate(value=value, low=low, high=high, n=1, unit="", method="")


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (0, "0"),
        (1, "1"),
        (999.6, "1,000"),
        (0.00012345, "0.000123"),
        (9.999e-5, "1e-4"),
        (99.96, "100"),
        (0.09996, "0.1"),
        (-3.14159, "−3.14"),
        (1.5e9, "1.5e9"),
        (100, "100"),
        (math.nan, "unknown"),
        (-math.inf, "unknown"),
        (None, "unknown"),
    ],
)
def test_number(x: float | None, text: str) -> None:
    assert number(x) == text


@given(st.floats(min_value=1e-12, max_value=1e12))
def test_a_number_reads_back_within_half_a_per_cent(x: float) -> None:
    assert float(number(x).replace(",", "")) == pytest.approx(x, rel=0.0051)


@given(st.floats(min_value=1e-6, max_value=1e7))
def test_a_duration_reads_back_and_has_at_most_four_digits(seconds: float) -> None:
    figure, unit = duration(seconds).split(" ")
    size = {"µs": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "days": 86400}[unit]
    assert float(figure.replace(",", "")) * size == pytest.approx(seconds, rel=0.0051)
    assert float(figure.replace(",", "")) <= 1000


@given(st.integers(min_value=0, max_value=2**60))
def test_bytes_read_back(n: int) -> None:
    figure, unit = bytes_(n).split(" ")
    power = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"].index(unit)
    assert float(figure.replace(",", "")) * 1024**power == pytest.approx(n, rel=0.0051)


@pytest.mark.parametrize(
    ("given_estimate", "text"),
    [
        (estimate(1.9, 1.7, 2.3), "1.9 s (1.7–2.3)"),
        (estimate(0.9, 0.8, 1.1), "900 ms (800 ms–1.1 s)"),
        (estimate(1.0, 0.8, 1.1), "1 s (800 ms–1.1 s)"),
        (estimate(2.0, None, 3.0), "2 s (at most 3 s)"),
        (estimate(2.0, 1.0, None), "2 s (at least 1 s)"),
        (estimate(None, 1.0, 2.0), "1–2 s"),
        (estimate(None, None, 2.0), "at most 2 s"),
        (estimate(2.0, None, None), "2 s"),
        (estimate(2.0, 2.0, 2.0), "2 s"),
        (estimate(math.nan, math.nan, math.inf), "not measured"),
        (None, "not measured"),
    ],
)
def test_with_interval(given_estimate: Estimate | None, text: str) -> None:
    assert with_interval(given_estimate, duration) == text


def test_an_interval_without_units_stands_alone() -> None:
    assert with_interval(estimate(1200, 1000.4, 1500.2), count) == "1,200 (1,000–1,500)"
    assert with_interval(estimate(0.1, 0.05, 0.2)) == "0.1 (0.05–0.2)"


def test_a_share_that_is_not_whole_is_not_written_as_whole() -> None:
    assert [percent(x) for x in (0.9999, 0.0001, 0.0, 1.0, None)] == [
        "over 99 %",
        "under 1 %",
        "0 %",
        "100 %",
        "unknown",
    ]
    assert times(2.0) == "2 times"
