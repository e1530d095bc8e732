"""Readings in TensorBoard's files, read back by TensorBoard itself; without it, one message says what to install."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from batchscope.errors import UsageError
from batchscope.integrations.tensorboard import TensorBoard
from batchscope.live.reading import Reading
from batchscope.store.records import Estimate


def estimate(value: float | None, low: float | None = None, high: float | None = None) -> Estimate:
    return Estimate(value=value, low=low, high=high, n=3, unit="examples", method="")


def reading(step: int, scale: float | None) -> Reading:
    return Reading(
        gradient_noise_scale=estimate(scale, 80.0),
        signal=estimate(0.1, 0.05, 0.2),
        noise=estimate(12.0),
        source="accumulated micro-batches",
        overhead=0.004,
        step=step,
        examples=32 * step,
        batch_size=32,
        layers={"head": estimate(7.5)},
    )


def test_scalars_are_those_of_the_readings(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    accumulator = importlib.import_module("tensorboard.backend.event_processing.event_accumulator").EventAccumulator
    write = TensorBoard(tmp_path)
    for step, scale in ((10, 120.5), (20, None), (30, 60.0)):
        write(reading(step, scale))
    read = accumulator(str(tmp_path))
    read.Reload()

    def scalars(name: str) -> list[tuple[int, float]]:
        return [(event.step, event.value) for event in read.Scalars(name)]

    assert scalars("noise/gradient_noise_scale") == [(10, 120.5), (30, 60.0)], "no number, no scalar"
    assert scalars("noise/gradient_noise_scale_low") == [(10, 80.0), (20, 80.0), (30, 80.0)]
    assert "noise/gradient_noise_scale_high" not in read.Tags()["scalars"]
    assert scalars("noise_scale_of_layers/head") == [(10, 7.5), (20, 7.5), (30, 7.5)]
    assert scalars("noise/overhead")[0] == (10, pytest.approx(0.004))
    write.writer.close()


class Kept:
    """A writer of the user's own."""

    def __init__(self) -> None:
        self.scalars: list[tuple[str, float, int]] = []
        self.flushed = 0

    def add_scalar(self, *given: Any) -> None:
        self.scalars.append(given)

    def flush(self) -> None:
        self.flushed += 1


def test_a_writer_that_is_there_already_is_used() -> None:
    kept = Kept()
    TensorBoard(kept)(reading(10, 120.5))
    assert ("noise/signal_low", 0.05, 10) in kept.scalars
    assert kept.flushed == 1


def test_without_tensorboard_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [each for each in sys.modules if each.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UsageError, match=r"batchscope\[tensorboard\].*CsvFile"):
        TensorBoard(tmp_path)
