"""Courses of one's own in a figure, and estimates against batch size: traces, axes, switches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from batchscope.laboratory.courses import Course
from batchscope.laboratory.page.figures.against_size import Series, against_size
from batchscope.laboratory.page.figures.branch_curves import Branch, Up, branch_curves, outcome_axis
from batchscope.store.records import Estimate


def course(values: Sequence[float], **more: Sequence[float]) -> Course:
    n = len(values)
    return Course(
        runs=3,
        steps=tuple(range(0, 10 * n, 10)),
        epochs=tuple(float(i) for i in range(n)),
        seconds=tuple(0.5 * i for i in range(n)),
        mean={"val_loss": tuple(values), **{name: tuple(v) for name, v in more.items()}},
        low={},
        high={},
        standard_error={},
    )


FIRST = Branch(label="first", course=course([2.0, 1.0, 0.5], test_accuracy=[0.1, 0.8, 0.9]), colour="var(--line)")
LATER = Branch(label="later", course=course([1.0, 0.4]), colour="var(--band)", dash="dash", begins=2.0)
UP = (Up(label="loss", metric="val_loss", level=0.6), Up(label="accuracy", metric="test_accuracy", rising=True))


def test_a_branch_begins_after_the_epochs_before_it() -> None:
    figure = branch_curves("f", [FIRST, LATER], across=("epoch", "example"), up=UP, examples=100, caption="")
    assert [list(trace["x"]) for trace in figure.data] == [[0.0, 1.0, 2.0], [2.0, 3.0]]
    assert [list(trace["y"]) for trace in figure.data] == [[2.0, 1.0, 0.5], [1.0, 0.4]]
    across, up = figure.switches
    assert [option.label for option in across.options] == ["epoch", "example"]
    assert [list(x) for x in across.options[1].data] == [[0.0, 100.0, 200.0], [200.0, 300.0]]
    assert [list(y) for y in up.options[1].data] == [[0.1, 0.8, 0.9], []]
    assert [(key.mark, key.label) for key in figure.keys] == [("line", "first"), ("dash", "later")]


def test_a_level_is_drawn_with_its_metric_alone() -> None:
    figure = branch_curves("f", [FIRST], across=("step",), up=UP, examples=100, caption="")
    (up,) = figure.switches
    assert [len(option.layout["shapes"]) for option in up.options] == [1, 0]
    assert figure.layout["shapes"][0]["y0"] == 0.6


def test_a_logarithmic_axis_leaves_out_the_start() -> None:
    figure = branch_curves("f", [FIRST], across=("second",), up=UP[:1], examples=100, caption="", logarithmic=True)
    assert figure.layout["xaxis"]["type"] == "log"
    assert list(figure.data[0]["x"]) == [0.5, 1.0]
    assert not figure.switches


def test_what_rises_is_seen_whole() -> None:
    low, high = outcome_axis([[0.1, 0.9], [0.2, 0.5]], rising=True)["range"]
    assert low < 0.1
    assert high > 0.9
    assert outcome_axis([[2.0, 0.1]], rising=False)["type"] == "log"


def estimate(value: float | None, low: float | None = None, high: float | None = None) -> Estimate:
    return Estimate(value=value, low=low, high=high, n=3, unit="", method="")


VALUES = {8: estimate(2.0, 1.5, 3.0), 64: estimate(4.0), 16: estimate(None)}


def test_estimates_are_drawn_in_the_order_of_their_sizes_with_their_intervals() -> None:
    series = Series(label="one", colour="var(--line)", values=VALUES)
    figure = against_size("f", "title", (series,), caption="said", scale="from zero")
    curve, marks = figure.data
    assert (curve["x"], curve["y"]) == ([8.0, 64.0], [2.0, 4.0])
    assert (marks["error_y"]["arrayminus"], marks["error_y"]["array"]) == ([0.5, 0.0], [1.0, 0.0])
    assert figure.layout["yaxis"]["range"][0] == 0
    assert not figure.keys
    two = against_size("f", "title", (series, replace(series, label="two")), caption="", scale="log")
    assert [key.label for key in two.keys] == ["one", "two"]


@pytest.mark.parametrize(
    ("values", "kind"), [([estimate(1.0, -5.0, 7.0), estimate(10.0)], "log"), ([estimate(-1.0)], "linear")]
)
def test_a_log_scale_needs_positive_values_and_cuts_intervals(values: list[Estimate], kind: str) -> None:
    series = Series(label="one", colour="var(--line)", values=dict(enumerate(values, start=1)))
    axis = against_size("f", "title", (series,), caption="", scale="log").layout["yaxis"]
    assert axis["type"] == kind
    if kind == "log":
        assert -1 < axis["range"][0] < 0
