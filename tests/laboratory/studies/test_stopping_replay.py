"""What rules do with curves that are written down here, and what is told of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from batchscope.fits.early_stopping import Rule
from batchscope.laboratory.records import Length, Study, StudyQuestion
from batchscope.laboratory.studies.early_stopping.replay import (
    Curve,
    by_rule,
    last,
    minimum_training_loss,
    on_test_part,
    oracle,
    replayed,
    worse_by,
)
from batchscope.store.records import Environment

HERE = Environment(
    batchscope="0",
    python="3.11",
    torch=None,
    numpy="2",
    platform="linux",
    device="cpu",
    device_name="",
    cpu_count=1,
    threads=1,
)


def curve(
    values: Sequence[float], tests: Sequence[float], *, batch_size: int = 8, seed: int = 0, **more: Sequence[float]
) -> Curve:
    metrics = {"val_loss": tuple(values), "test_loss": tuple(tests), **{n: tuple(v) for n, v in more.items()}}
    return Curve(
        run=f"{batch_size}-{seed}",
        batch_size=batch_size,
        seed=seed,
        epochs=tuple(map(float, range(len(values)))),
        watched=tuple(values),
        metrics=metrics,
        training=(None, *values[1:]),
    )


def study(**changes: Any) -> Study:
    members: dict[str, Any] = {
        "study": "early_stopping",
        "task": "t",
        "rows": (),
        "summary": (),
        "findings": (),
        "question": StudyQuestion(batch_sizes=(8, 16), lrs=(0.1,), length=Length(unit="epochs", amount=5)),
        "metric": "val_loss",
        "larger_is_better": False,
        "examples": 40,
        "planned": 4,
        "complete": True,
        "environment": HERE,
    }
    return Study(**{**members, **changes})


RISING = curve([5, 2, 3, 1, 4, 6], [5, 2.5, 3, 2, 4, 6], train_loss_eval=[5, 4, 3, 2, 1, 1.5])


def test_a_rule_hands_over_the_best_weights_up_to_its_stop() -> None:
    pick = by_rule(Rule(kind="patience", amount=1))(RISING)
    assert pick is not None
    assert (pick.stop, pick.chosen, pick.by_itself) == (2, 1, True)
    never = by_rule(Rule(kind="patience", amount=3))(RISING)
    assert never is not None
    assert (never.stop, never.chosen, never.by_itself) == (5, 3, False)
    assert (oracle(RISING).chosen, last(RISING).chosen) == (3, 5)
    trained = minimum_training_loss(RISING)
    assert trained is not None
    assert trained.chosen == 4


def test_what_is_told_is_the_mean_over_sizes_then_over_seeds() -> None:
    curves = [
        curve([5, 2, 3, 1, 4], [5, 2, 3, 1, 4], batch_size=8, seed=0),
        curve([5, 3, 2, 1, 4], [5, 3, 2, 1, 4], batch_size=16, seed=0),
        curve([5, 4, 6, 2, 4], [5, 4, 6, 2, 4], batch_size=8, seed=1),
        curve([5, 4, 3, 2, 4], [5, 4, 3, 2, 4], batch_size=16, seed=1),
        curve([5, 1, 1, 1, 1], [9, 9, 9, 9, 9], batch_size=8, seed=2),
    ]
    found = replayed(study(), curves, by_rule(Rule(kind="patience", amount=1)))
    assert found is not None
    assert (found.runs, found.never) == (4, 0)
    assert found.stop_epoch.value == pytest.approx((2 + 4 + 2 + 4) / 4)
    assert found.spent.value == pytest.approx(0.75)
    assert found.tests["test_loss"].value == pytest.approx((2 + 1 + 4 + 2) / 4)
    assert found.excess is not None
    assert found.excess.value == pytest.approx((0.5 / 1 + 1 / 2) / 2)
    assert found.excess.n == 2


def test_one_rule_against_another() -> None:
    by_last = worse_by(study(), [RISING], last, oracle)
    assert by_last.value == pytest.approx((6 - 2) / 2)
    assert worse_by(study(), [RISING], oracle, last).value == pytest.approx((2 - 6) / 6)


def test_a_score_is_worse_when_smaller() -> None:
    score = Curve(
        run="r",
        batch_size=8,
        seed=0,
        epochs=(0.0, 1.0, 2.0),
        watched=(-0.1, -0.9, -0.8),
        metrics={"val_accuracy": (0.1, 0.9, 0.8), "test_accuracy": (0.1, 0.8, 0.6)},
        training=(None, 1.0, 1.0),
    )
    asked = study(metric="val_accuracy", larger_is_better=True)
    assert worse_by(asked, [score], last, oracle).value == pytest.approx(0.25)
    found = replayed(asked, [score], oracle)
    assert found is not None
    assert found.watched.value == pytest.approx(0.9)
    assert by_rule(Rule(kind="GL", amount=1))(score) is None
    assert by_rule(Rule(kind="patience", amount=1))(score) is not None


def test_rules_that_do_not_apply_are_left_out() -> None:
    negative = curve([1.0, -1.0, -2.0], [1.0, -1.0, -2.0])
    assert replayed(study(), [negative], by_rule(Rule(kind="GL", amount=1))) is None
    assert replayed(study(), [negative], oracle) is not None
    assert replayed(study(), [], oracle) is None


def test_without_a_test_part_nothing_is_said_of_it() -> None:
    bare = Curve(
        run="r",
        batch_size=8,
        seed=0,
        epochs=(0.0, 1.0),
        watched=(1.0, 2.0),
        metrics={"val_loss": (1.0, 2.0)},
        training=(None, 1.0),
    )
    assert on_test_part(study(), [bare]) is None
    found = replayed(study(), [bare], last)
    assert found is not None
    assert (found.excess, found.tests) == (None, {})
    assert worse_by(study(), [bare], last, oracle).value is None
    assert not math.isnan(found.watched.value or math.nan)
