"""The noise monitor in a loop of Accelerate: accumulation, clipping, mixed precision; it needs nothing of its own."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

pytest.importorskip("accelerate", reason="the tests of Accelerate need accelerate; install the extra integrations")

from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState

from batchscope import NoiseMonitor
from batchscope.store.records import RunConfig, Target
from batchscope.tasks.loading import load_task
from batchscope.tasks.preflight.check import check
from batchscope.tasks.workload import Workload
from batchscope.training.loop import Training

FOLDER = Path(__file__).resolve().parents[2] / "examples"
PARTS, STEPS = 4, 6


def always() -> float:
    """A clock that stands still: every step is measured."""
    return 0.0


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of its own, scripts by their names, and no Accelerator of another test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in ("accelerate_loop", "accelerate_loop_task", "pretraining"):
        sys.modules.pop(name, None)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    draw = torch.Generator().manual_seed(0)
    return [
        (torch.randn(8, 6, generator=draw), torch.randint(0, 3, (8,), generator=draw)) for _ in range(PARTS * STEPS)
    ]


def made() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def accelerated(precision: str = "no", *, watch: bool = True) -> tuple[nn.Module, Any]:
    """The weights and the reading of a loop of Accelerate."""
    accelerator = Accelerator(gradient_accumulation_steps=PARTS, mixed_precision=precision, cpu=True)
    model, optimizer = accelerator.prepare(*made())
    how: dict[str, Any] = {"batch_size": 8 * PARTS, "scaler": accelerator.scaler, "clock": always}
    monitor = NoiseMonitor(model, optimizer, **how) if watch else None
    for x, y in batches():
        with accelerator.accumulate(model):
            accelerator.backward(F.cross_entropy(model(x), y))
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()
    reading = monitor.read() if monitor is not None else None
    return accelerator.unwrap_model(model), reading


def plain(precision: str = "no") -> tuple[nn.Module, Any]:
    """The same, written out."""
    model, optimizer = made()
    with NoiseMonitor(model, optimizer, batch_size=8 * PARTS, clock=always) as monitor:
        for number, (x, y) in enumerate(batches(), 1):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                scores = model(x)
            (F.cross_entropy(scores.float(), y) / PARTS).backward()
            if number % PARTS == 0:
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
                optimizer.step()
                optimizer.zero_grad()
        return model, monitor.read()


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_readings_are_those_of_the_plain_loop_and_the_training_is_left_alone(precision: str) -> None:
    model, reading = accelerated(precision)
    alone, _ = accelerated(precision, watch=False)
    own, expected = plain(precision)
    for parameter, without, written in zip(model.parameters(), alone.parameters(), own.parameters(), strict=True):
        assert torch.equal(parameter, without)
        torch.testing.assert_close(parameter, written)
    assert (reading.source, reading.step) == ("accumulated micro-batches", STEPS)
    assert reading.gradient_noise_scale.n == STEPS
    assert reading.signal.value == pytest.approx(expected.signal.value, rel=1e-4)
    assert reading.noise.value == pytest.approx(expected.noise.value, rel=1e-4)


def test_the_script_trains_and_reads(capsys: pytest.CaptureFixture[str]) -> None:
    reading = importlib.import_module("accelerate_loop").main(["--epochs", "2", "--cpu"])
    losses = [float(value) for value in re.findall(r"val_loss ([\d.]+)", capsys.readouterr().out)]
    assert losses[1] < losses[0]
    assert reading.source == "accumulated micro-batches"
    assert reading.gradient_noise_scale.n > 0


def test_the_task_of_the_script_makes_its_steps() -> None:
    loaded = load_task(str(FOLDER / "accelerate_loop_task.py"))
    assert check(Workload(loaded.task)).metrics.keys() == {"val_loss", "val_accuracy"}
    never = Target(metric="val_loss", value=-1.0, mode="min")
    how: dict[str, Any] = {"batch_size": 64, "micro_batch_size": 16, "grad_accum_steps": 4, "seed": 0, "max_steps": 4}
    workload = Workload(loaded.task)
    training = Training(workload, RunConfig(task="digits", lr=3e-3, target=never, **how))
    training.advance()

    script = importlib.import_module("accelerate_loop")
    accelerator = Accelerator(gradient_accumulation_steps=4, cpu=True)
    model = workload.model(0)
    model, optimizer = accelerator.prepare(model, script.make_optimizer(model.parameters(), 3e-3))
    stream = workload.micro_batches(64, 4, 1_000_003)
    for micro_batches in (next(stream) for _ in range(4)):
        for batch in micro_batches:
            with accelerator.accumulate(model):
                accelerator.backward(script.class_loss(model, batch))
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
    for ours, own in zip(training.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, own, rtol=0.0, atol=1e-6)
