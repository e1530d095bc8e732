"""What trainers of both libraries have in common, which needs neither."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from torch.utils.data import IterableDataset

from batchscope.integrations.tensorboard import TensorBoard
from batchscope.integrations.trainers import Repeated, logged, own_steps, say_why_none, with_effect
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
    why, tried = "one backward pass in the step", {"ranks": "there is one process"}
    for each in (None, reading(2), reading(0, reason=why, passed_over=tried)):
        say_why_none(each)
    (said,) = [record.message for record in caplog.records]
    assert why in said
    assert "ranks: there is one process" in said
    assert "loss=(model, batch)" in said


def test_callbacks_with_an_effect_are_neither_harmless_nor_of_batchscope() -> None:
    class Stops:
        pass

    class Draws:
        pass

    callbacks = [Stops(), Draws(), TensorBoard(object())]
    assert with_effect(callbacks, lambda kind: kind is Draws) == ["Stops"]


def test_a_stream_that_ends_with_its_epoch_begins_again() -> None:
    class Stream(IterableDataset[int]):
        epoch = 0

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

        def __iter__(self) -> Iterator[int]:
            return iter(range(10 * self.epoch, 10 * self.epoch + 3))

    assert list(itertools.islice(Repeated(Stream()), 7)) == [0, 1, 2, 10, 11, 12, 20]

    class Empty(IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            return iter(())

    assert list(Repeated(Empty())) == []
