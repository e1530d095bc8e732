from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscope.report.charts import batch_axis, finite, log_axis, memory_axis, safe, value_axis, vertical
from batchscope.wording import duration

positive = st.floats(min_value=1e-9, max_value=1e12)


def test_a_batch_axis_has_a_tick_at_every_power_of_two_and_few_labels() -> None:
    axis = batch_axis([1, 65536])
    assert axis["tickvals"] == [2.0**p for p in range(17)]
    labels = [text for text in axis["ticktext"] if text]
    assert len(labels) <= 8
    assert labels[:2] == ["1", "8"]


def test_a_batch_axis_of_one_size_is_still_an_axis() -> None:
    axis = batch_axis([96])
    assert axis["tickvals"] == [64.0, 128.0]
    assert axis["range"][0] < math.log10(96) < axis["range"][1]


@given(st.lists(positive, min_size=1))
def test_a_log_axis_has_room_and_a_few_ticks(values: list[float]) -> None:
    axis = log_axis(values)
    low, high = axis["range"]
    assert low < math.log10(min(values)) <= math.log10(max(values)) < high
    assert 2 <= len(axis["tickvals"]) <= 8
    assert all(low - 1e-9 <= math.log10(v) <= high + 1e-9 for v in axis["tickvals"])
    assert axis["tickvals"] == sorted(set(axis["tickvals"]))


def test_a_narrow_log_axis_has_round_ticks() -> None:
    assert all(v % 50 == 0 for v in log_axis([130, 420])["tickvals"])


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ((3, 1200), ["5 s", "10 s", "30 s", "1 min", "5 min", "10 min"]),
        ((5, 50_000), ["10 s", "1 min", "10 min", "1 h"]),
        ((3600, 9000), ["1 h", "1.5 h", "2 h", "2.5 h", "3 h"]),
        ((400, 2e6), ["10 min", "1 h", "1 day", "10 days"]),
        ((0.0001, 0.01), ["100 µs", "200 µs", "500 µs", "1 ms", "2 ms", "5 ms", "10 ms"]),
    ],
)
def test_ticks_of_a_time_are_round_in_the_unit_in_which_they_are_written(
    values: tuple[float, float], labels: list[str]
) -> None:
    assert log_axis(values, duration)["ticktext"] == labels


@given(st.lists(positive, min_size=1))
def test_an_axis_of_times_has_few_ticks_in_order(values: list[float]) -> None:
    axis = log_axis(values, duration)
    assert 2 <= len(axis["tickvals"]) <= 8
    assert axis["tickvals"] == sorted(set(axis["tickvals"]))
    assert value_axis([*values, 9000.0], duration)["tickvals"][0] == 0


def test_a_linear_axis_of_times_counts_in_its_unit() -> None:
    assert value_axis([9000.0], duration)["ticktext"] == ["0 s", "1 h", "2 h"]


@given(positive)
def test_a_value_axis_starts_at_zero(top: float) -> None:
    axis = value_axis([top, None, math.nan])
    assert axis["tickvals"][0] == 0
    assert 3 <= len(axis["tickvals"]) <= 6
    assert axis["range"][1] > top


def test_axes_without_numbers_do_not_fail() -> None:
    for axis in (batch_axis([]), log_axis([]), log_axis([None, math.nan, -1.0]), value_axis([]), value_axis([0.0])):
        assert axis["tickvals"]


def test_memory_ticks_are_powers_of_two() -> None:
    assert "4 MiB" in memory_axis([3 * 1024**2, 9 * 1024**2])["ticktext"]


def test_plotly_sees_no_markup_and_no_template_in_a_user_s_text() -> None:
    assert safe("<b>&%{x}") == "&lt;b&gt;&amp;% {x}"


def test_json_has_no_nan() -> None:
    assert finite([1.23456789, math.nan, math.inf, None]) == [1.2346, None, None, None]


@pytest.mark.parametrize(("low", "high"), [(None, 2.0), (2.0, None), (2.0, math.inf), (3.0, 3.0)])
def test_an_open_interval_has_no_strip(low: float | None, high: float | None) -> None:
    assert [shape["type"] for shape in vertical(2.5, "red", low=low, high=high)] == ["line"]
    assert [shape["type"] for shape in vertical(2.5, "red", low=2.0, high=3.0)] == ["rect", "line"]
