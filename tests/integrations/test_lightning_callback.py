"""The noise monitor in a Lightning training: it reads what a plain loop has, and the training stays the same."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning", reason="lightning is not installed: pip install -e '.[integrations]'")

import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from batchscope import NoiseMonitor
from batchscope.integrations.lightning import NoiseCallback, task

from .lightning_modules import QUIET, Data, Plain, make_trainer, table

pytestmark = QUIET
SIZE, PARTS = 8, 4


def still() -> float:
    """A clock by which nothing takes any time, so that each window is measured."""
    return 0.0


def batches(uneven: bool = False) -> Any:
    x, y = table(512)
    return DataLoader(TensorDataset(x[: 512 - 5 * uneven], y[: 512 - 5 * uneven]), batch_size=SIZE)


def fitted(callbacks: list[Any], *, loader: Any = None, **trainer: Any) -> tuple[Any, Any]:
    torch.manual_seed(0)
    module = Plain()
    made = make_trainer(callbacks=callbacks, accumulate_grad_batches=PARTS, **trainer)
    made.fit(module, train_dataloaders=loader or batches())
    return module, made


def by_hand(steps: int) -> Any:
    """The readings of a plain loop with the same micro-batches."""
    torch.manual_seed(0)
    module = Plain()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    with NoiseMonitor(module, optimizer, batch_size=SIZE * PARTS, clock=still) as monitor:
        parts = iter(batches())
        for _ in range(steps):
            for _ in range(PARTS):
                x, y = next(parts)
                (F.cross_entropy(module(x), y) / PARTS).backward()
            nn.utils.clip_grad_norm_(module.parameters(), 0.05)
            optimizer.step()
            optimizer.zero_grad()
        return monitor.read()


def test_readings_are_those_of_a_plain_loop_and_the_training_is_the_same() -> None:
    callback = NoiseCallback(clock=still)
    module, _ = fitted([callback], gradient_clip_val=0.05, max_steps=12)
    alone, _ = fitted([], gradient_clip_val=0.05, max_steps=12)
    for name, value in module.state_dict().items():
        assert torch.equal(value, alone.state_dict()[name]), name
    found, expected = callback.read(), by_hand(12)
    assert found is not None
    assert found.source == "accumulated micro-batches"
    assert (found.step, found.examples) == (12, 12 * SIZE * PARTS)
    for part in ("gradient_noise_scale", "signal", "noise"):
        assert getattr(found, part).value == pytest.approx(getattr(expected, part).value, rel=1e-4)
    assert not any(p._backward_hooks for p in module.parameters())


def test_readings_in_float16_are_unscaled() -> None:
    found = []
    for plugins in ([], [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))]):
        callback = NoiseCallback(clock=still)
        fitted([callback], plugins=plugins, gradient_clip_val=None, max_steps=12)
        reading = callback.read()
        assert reading is not None
        assert reading.gradient_noise_scale.n == 12
        found.append(reading)
    assert found[1].noise.value == pytest.approx(found[0].noise.value, rel=0.02)


def test_the_short_last_window_of_an_epoch_is_told_of() -> None:
    callback = NoiseCallback(clock=still)
    _, trainer = fitted([callback], loader=batches(uneven=True), max_epochs=2, max_steps=-1)
    reading = callback.read()
    assert reading is not None
    assert trainer.global_step == reading.step == 2 * 16
    assert reading.examples == 2 * 507
    assert reading.gradient_noise_scale.n == 2 * 16


def test_readings_go_to_the_loggers(tmp_path: Path) -> None:
    callback = NoiseCallback(clock=still, prefix="noise/", layers=True)
    logger = CSVLogger(tmp_path, name="run", version=0)
    fitted([callback], logger=logger, max_steps=6)
    with open(tmp_path / "run" / "version_0" / "metrics.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.get("noise/gradient_noise")]
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    reading = callback.read()
    assert reading is not None
    assert float(rows[-1]["noise/gradient_noise"]) == pytest.approx(reading.noise.value, rel=1e-6)
    assert "noise/gradient_noise_scale/head" in rows[-1]


def test_it_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    first = NoiseCallback(clock=still)
    _, trainer = fitted([first], max_steps=6)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    again = NoiseCallback(clock=still)
    module = Plain()
    resumed = make_trainer(callbacks=[again], accumulate_grad_batches=PARTS, max_steps=10)
    resumed.fit(module, train_dataloaders=batches(), ckpt_path=tmp_path / "half.ckpt")
    reading = again.read()
    assert reading is not None
    assert (reading.step, reading.gradient_noise_scale.n) == (10, 10)


class Manual(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(F.cross_entropy(self(batch[0]), batch[1]))
        optimizer.step()


def test_manual_optimization_is_left_alone_with_a_reason() -> None:
    callback = NoiseCallback()
    with pytest.warns(RuntimeWarning, match="automatic_optimization=False and makes its own backward passes"):
        make_trainer(callbacks=[callback], gradient_clip_val=None, max_steps=3).fit(
            Manual(), train_dataloaders=batches()
        )
    assert callback.read() is None
    assert "put a NoiseMonitor beside each optimizer" in callback.reason


class Advised(Manual):
    """Follows the advice for manual optimization."""

    def on_train_start(self) -> None:
        self.monitor = NoiseMonitor(self, self.trainer.optimizers[0], batch_size=SIZE, clock=still)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        for x, y in zip(batch[0].split(4), batch[1].split(4), strict=True):
            self.monitor.micro_batch(examples=len(y))
            self.manual_backward(F.cross_entropy(self(x), y) / 2)
        optimizer.step()


def test_a_monitor_of_ones_own_reads_a_manual_optimization() -> None:
    module = Advised()
    make_trainer(gradient_clip_val=None, max_steps=6).fit(module, train_dataloaders=batches())
    assert module.monitor.read().gradient_noise_scale.n == 6


def test_the_other_import_name_takes_the_callback() -> None:
    pl = pytest.importorskip("pytorch_lightning", reason="the other name of lightning is not installed")

    class Other(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(6, 2)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    callback = NoiseCallback(clock=still)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = pl.Trainer(**quiet, callbacks=[callback], max_steps=6, accumulate_grad_batches=2)
        made.fit(Other(), train_dataloaders=batches())
    reading = callback.read()
    assert reading is not None
    assert reading.gradient_noise_scale.n == 6


def test_the_runs_of_a_search_do_without_it_and_need_not_say_so() -> None:
    notes = " ".join(task(Plain, Data, make_trainer(callbacks=[NoiseCallback()])).data_notes)
    assert "callbacks are not called" not in notes


def test_a_step_of_one_batch_says_what_it_needs(caplog: pytest.LogCaptureFixture) -> None:
    callback = NoiseCallback(clock=still, source="micro-batches")
    torch.manual_seed(0)
    make_trainer(callbacks=[callback], gradient_clip_val=None, max_steps=5).fit(Plain(), train_dataloaders=batches())
    reading = callback.read()
    assert reading is not None
    assert "one backward pass in the step" in reading.reason
    assert "no gradient noise scale was read: one backward pass" in caplog.text
