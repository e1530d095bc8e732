"""Passages of a training loss against closed forms."""

from __future__ import annotations

import itertools
import math

import pytest

from batchscope.study_parts.equal_training_loss import common_level, levels_down_to, passage
from batchscope.study_rows import Evaluation


def course(rate: float, epochs: int = 10) -> list[Evaluation]:
    """A training loss exp(-rate t), and a validation loss that is a line in t."""
    return [
        Evaluation(4 * t, float(t), 0.1 * t, None, {"train_loss_eval": math.exp(-rate * t), "val_loss": 2.0 - 0.1 * t})
        for t in range(epochs + 1)
    ]


@pytest.mark.parametrize("level", [0.9, 0.5, 0.11, math.exp(-2.0)])
def test_on_an_exponential_the_passage_is_exact(level: float) -> None:
    there = passage(course(0.5), level)
    assert there is not None
    t = -math.log(level) / 0.5
    assert there.epoch == pytest.approx(t)
    assert there.step == round(4 * t)
    assert there.seconds == pytest.approx(0.1 * t)
    assert there.metrics["val_loss"] == pytest.approx(2.0 - 0.1 * t)
    assert there.metrics["train_loss_eval"] > 0


def test_the_first_passage_counts_and_the_start_may_be_one() -> None:
    back = [*course(0.5, 4), *course(0.5)]
    assert passage(back, 0.5) == passage(course(0.5), 0.5)
    assert passage(course(0.5), 3.0) == course(0.5)[0]
    assert passage(course(0.5), 1e-9) is None
    assert passage([], 1.0) is None


def test_losses_that_are_not_above_0_are_interpolated_as_they_are() -> None:
    line = [Evaluation(t, float(t), 0.0, None, {"train_loss_eval": 1.0 - t}) for t in range(3)]
    there = passage(line, 0.0)
    assert there is not None
    assert there.epoch == 1.0
    below = passage(line, -0.25)
    assert below is not None
    assert below.epoch == pytest.approx(1.25)


def test_the_common_level_is_the_lowest_that_all_reach() -> None:
    slow, fast = course(0.1), course(1.0)
    level = common_level([slow, fast])
    assert level == pytest.approx(0.37)
    assert level is not None
    assert level >= math.exp(-1.0)
    assert passage(slow, level) is not None
    assert common_level([]) is None
    assert common_level([[Evaluation(0, 0.0, 0.0, None, {"val_loss": 1.0})]]) is None
    levels = levels_down_to([slow, fast], level, 5)
    assert (levels[0], levels[-1]) == (1.0, level)
    ratios = {round(b / a, 9) for a, b in itertools.pairwise(levels)}
    assert len(ratios) == 1
