"""Passages of a training loss against closed forms."""

from __future__ import annotations

import itertools
import math

import pytest

from batchscope.laboratory.studies.regularising_noise.equal_training_loss import (
    TRAINING_LOSS,
    common_level,
    levels_down_to,
)
from batchscope.laboratory.summary import Evaluation, evaluation_at


def course(rate: float, epochs: int = 10) -> list[Evaluation]:
    """A training loss exp(-rate t), and a validation loss that is a line in t."""
    return [
        Evaluation(4 * t, float(t), 0.1 * t, None, {"train_loss_eval": math.exp(-rate * t), "val_loss": 2.0 - 0.1 * t})
        for t in range(epochs + 1)
    ]


@pytest.mark.parametrize("level", [2.9, 1.7, 0.45])
def test_on_a_loss_that_falls_with_the_logarithm_of_the_step_the_passage_is_exact(level: float) -> None:
    """The loss is 3 - log(step) after step 1, and the validation loss half of it."""
    steps = (1, 2, 5, 10, 30)
    falling = [
        Evaluation(s, s / 4, 0.1 * s, None, {TRAINING_LOSS: 3.0 - math.log(s), "val_loss": 1.5 - math.log(s) / 2})
        for s in steps
    ]
    there = evaluation_at(falling, TRAINING_LOSS, level)
    assert there is not None
    step = math.exp(3.0 - level)
    assert there.step == round(step)
    assert there.epoch == pytest.approx(step / 4)
    assert there.seconds == pytest.approx(0.1 * step)
    assert there.metrics == {TRAINING_LOSS: pytest.approx(level), "val_loss": pytest.approx(level / 2)}


def test_the_first_passage_counts_and_the_start_may_be_one() -> None:
    def passage(course: list[Evaluation], level: float) -> Evaluation | None:
        return evaluation_at(course, TRAINING_LOSS, level)

    late = [e._replace(step=e.step + 100) for e in course(0.5)]
    assert passage([*course(0.5, 4), *late], 0.5) == passage(course(0.5), 0.5)
    assert passage(course(0.5), 3.0) == course(0.5)[0]
    assert passage(course(0.5), 1e-9) is None
    assert passage([], 1.0) is None


def test_metrics_of_one_evaluation_only_are_left_out_and_what_is_no_number_stays_none() -> None:
    points = [(1, {"a": 3.0, "b": 1.0, "c": math.nan}), (4, {"a": 1.0, "c": 2.0, "d": 5.0})]
    there = evaluation_at([Evaluation(s, s, s, None, metrics) for s, metrics in points], "a", 2.0)
    assert there is not None
    assert there.step == 2
    assert there.metrics.keys() == {"a", "c"}
    assert there.metrics["a"] == pytest.approx(2.0)
    assert math.isnan(there.metrics["c"])


def test_the_common_level_is_the_lowest_that_all_reach() -> None:
    slow, fast = course(0.1), course(1.0)
    level = common_level([slow, fast])
    assert level == pytest.approx(0.37)
    assert level is not None
    assert level >= math.exp(-1.0)
    assert evaluation_at(slow, TRAINING_LOSS, level) is not None
    assert common_level([]) is None
    assert common_level([[Evaluation(0, 0.0, 0.0, None, {"val_loss": 1.0})]]) is None
    levels = levels_down_to([slow, fast], level, 5)
    assert (levels[0], levels[-1]) == (1.0, level)
    ratios = {round(b / a, 9) for a, b in itertools.pairwise(levels)}
    assert len(ratios) == 1
