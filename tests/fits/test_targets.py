"""Targets that follow from a run: counted from the best constant prediction, and with digits enough."""

from __future__ import annotations

import pytest

from batchscope.fits.targets import choose_target, milestone_of
from batchscope.store.records import Metric, Row, Target
from batchscope.testing import evaluation

LOSS, SCORE = Metric.parse("val_loss"), Metric.parse("val_accuracy")


def course(*values: float, metric: str = "val_loss") -> list[Row]:
    return [evaluation(10 * i, {metric: value}) for i, value in enumerate(values)]


def test_the_gain_counts_from_the_constant_prediction() -> None:
    rows = course(90_000.0, 120.0, 40.0, 10.0, 10.0, 10.0)
    assert choose_target(rows, LOSS).value == pytest.approx(4510, rel=0.01)
    assert choose_target(rows, LOSS, 50.0).value == pytest.approx(12.0)
    assert choose_target(rows, LOSS, 1e6).value == pytest.approx(4510, rel=0.01), "fresh weights are better"


def test_the_gain_of_a_score_counts_from_the_largest_class() -> None:
    rows = course(0.5, 0.92, 0.97, 0.97, 0.97, metric="val_accuracy")
    assert choose_target(rows, SCORE, 0.92).value == pytest.approx(0.968, abs=1e-3)


@pytest.mark.parametrize("best", [0.7, 0.69])
def test_no_target_at_or_before_the_constant_prediction(best: float) -> None:
    with pytest.raises(ValueError, match=r"did not improve on the best constant prediction's 0\.69 in 20 steps"):
        choose_target(course(0.9, 0.75, best), LOSS, 0.69)


@pytest.mark.parametrize("offset", [0.0, 1e3, -1e3, 1e6])
@pytest.mark.parametrize("scale", [1.0, 1e6, 1e-6])
def test_a_chosen_target_lies_within_the_gain_whatever_is_added_to_the_loss(offset: float, scale: float) -> None:
    target = choose_target(course(*(scale * (offset + left) for left in (0.7, 0.3, 0.2, 0.2, 0.2))), LOSS)
    assert scale * (offset + 0.2) < target.value < scale * (offset + 0.26)


def test_a_milestone_lies_between_the_constant_prediction_and_the_target() -> None:
    rows, target = course(90_000.0, 120.0), Target(metric="val_loss", value=12.0, mode="min")
    plain, beyond = milestone_of(rows, target), milestone_of(rows, target, 50.0)
    assert plain is not None
    assert plain.value > 50.0
    assert beyond is not None
    assert 12.0 < beyond.value < 50.0
    assert milestone_of(rows, target, 11.0) is None
