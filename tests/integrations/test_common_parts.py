"""What trainers of both libraries have in common, which needs neither."""

from __future__ import annotations

from typing import Any

import pytest

from batchscope.integrations.tensorboard import TensorBoard
from batchscope.integrations.trainers import logged, own_steps, say_why_none, with_effect
from batchscope.live.reading import Reading
from batchscope.store.records import Estimate


def reading(n: int, **more: Any) -> Reading:
    scale = Estimate(value=40.0, low=20.0, high=None, n=n, unit="examples", method="")
    parts: dict[str, Any] = {"signal": Estimate.missing(), "noise": scale, "source": "", "overhead": 0.5}
    return Reading(gradient_noise_scale=scale, step=3, examples=96, batch_size=32, **parts, **more)


@pytest.mark.parametrize(
    ("max_steps", "epochs", "batches", "accumulate", "steps"),
    [
        (70, 3, 10, 4, 70),
        (-1, 3, 10, 4, 9),  # three steps an epoch, the last of two micro-batches
        (0, 2.5, 10, 4, 8),  # 7.5: a step that is begun is made
        (-1, 3, None, 4, None),
        (-1, -1, 10, 4, None),
    ],
)
def test_the_length_of_a_training(
    max_steps: int, epochs: float, batches: int | None, accumulate: int, steps: int | None
) -> None:
    assert own_steps(max_steps, epochs, batches, accumulate) == steps


def test_numbers_that_a_reading_has_are_logged_and_no_others() -> None:
    assert logged(reading(0)) == {}
    assert logged(reading(2, layers={"head": Estimate.missing()})) == {
        "gradient_noise_scale": 40.0,
        "gradient_noise_scale_low": 20.0,
        "gradient_noise": 40.0,
        "noise_monitor_overhead": 0.5,
    }


def test_a_training_without_a_reading_says_why(caplog: pytest.LogCaptureFixture) -> None:
    for each in (None, reading(2), reading(0, reason="one backward pass in the step")):
        say_why_none(each)
    assert [record.message for record in caplog.records] == [
        "no gradient noise scale was read: one backward pass in the step"
    ]


def test_callbacks_with_an_effect_are_neither_harmless_nor_of_batchscope() -> None:
    class Stops:
        pass

    class Draws:
        pass

    callbacks = [Stops(), Draws(), TensorBoard(object())]
    assert with_effect(callbacks, lambda kind: kind is Draws) == ["Stops"]
