"""The noise monitor inside a Trainer: right with token weights, without a trace in the training, logged and kept."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("transformers", reason="the tests of the Trainer need transformers; install the extra integrations")

from transformers import Trainer, TrainerCallback

from batchscope.fits.noise_scale import estimate
from batchscope.integrations.transformers import NoiseCallback
from batchscope.live.monitor import NoiseMonitor
from batchscope.live.reading import Reading
from batchscope.live.window import Window, noise_row

from .trainers import make_classifier_trainer, make_language_trainer, padded, sequences

PARTS, STEPS = 4, 4


def always() -> float:
    """A clock that stands still: every step is measured."""
    return 0.0


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def small(**changes: Any) -> Trainer:
    """Steps of four micro-batches of four sequences each."""
    how = {"gradient_accumulation_steps": PARTS, "max_steps": STEPS, "warmup_steps": 0, "optim": "sgd"}
    return make_language_trainer(**{**how, **changes})


def watched(trainer: Trainer, **options: Any) -> tuple[NoiseCallback, Reading]:
    callback = NoiseCallback(trainer, **{"clock": always, **options})
    trainer.add_callback(callback)
    trainer.train()
    reading = callback.read()
    assert reading is not None
    return callback, reading


class Noted(Trainer):
    """Keeps the gradient that each micro-batch adds, computed apart."""

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        apart = copy.deepcopy(model)
        self.compute_loss(apart, copy.copy(inputs), num_items_in_batch=num_items_in_batch).backward()
        gradient = torch.cat([p.grad.flatten() for p in apart.parameters() if p.grad is not None]).double()
        self.noted.append((gradient, int(inputs["labels"].ne(-100).sum())))
        return super().training_step(model, inputs, num_items_in_batch)

    noted: list[tuple[Tensor, int]]


@pytest.mark.parametrize("changes", [{}, {"label_smoothing_factor": 0.1}, {"bf16": True}])
def test_readings_are_those_of_the_micro_batches_with_their_tokens(changes: dict[str, Any]) -> None:
    trainer = small(kind=Noted, learning_rate=1e-9, **changes)
    trainer.noted = []
    _, reading = watched(trainer)
    rows: list[Any] = []
    for step in range(STEPS):
        parts = trainer.noted[step * PARTS : (step + 1) * PARTS]
        window = Window(step=step, examples_before=16 * step, batch_size=16)
        whole = torch.stack([gradient for gradient, _ in parts]).sum(0)
        squares = [float(gradient.square().sum()) for gradient, _ in parts]
        shares = [tokens for _, tokens in parts]
        rows.append(noise_row(window, squares, float(whole.square().sum()), shares=shares, examples=[4] * PARTS))
    expected = estimate(rows)
    assert len({tokens for _, tokens in trainer.noted}) > 3
    assert (reading.source, reading.step, reading.examples) == ("accumulated micro-batches", STEPS, 16 * STEPS)
    found = reading.gradient_noise_scale
    assert (found.n, expected.value is None) == (STEPS, False)
    assert found.value == pytest.approx(expected.value, rel=1e-4)


def test_a_training_is_bit_by_bit_the_same_and_nothing_is_left_in_it() -> None:
    models: list[Any] = []
    for watch in (False, True):
        trainer = small(optim="adamw_torch", learning_rate=1e-2)
        if watch:
            watched(trainer)
        else:
            trainer.train()
        models.append(trainer.model)
        state = torch.get_rng_state()
        models.append(state)
    plain, before, ours, after = models
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), ours.parameters(), strict=True))
    assert torch.equal(before, after)
    assert "get_batch_samples" not in vars(trainer)
    assert not any(p._backward_hooks for p in ours.parameters())


def test_readings_are_logged_with_the_trainers_own_log_and_to_tensorboard(here: Path) -> None:
    pytest.importorskip("tensorboard", reason="readings in TensorBoard need tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = small(logging_steps=2, report_to="tensorboard", disable_tqdm=True)
    _, reading = watched(trainer, layers=True)
    logged = [entry for entry in trainer.state.log_history if "noise_monitor_overhead" in entry]
    assert [entry["step"] for entry in logged] == [2, 4]
    assert logged[-1].get("gradient_noise_scale") == reading.gradient_noise_scale.value
    assert logged[-1]["gradient_noise"] == reading.noise.value
    assert "gradient_noise_scale/transformer.wte" in logged[-1]
    (folder,) = {path.parent for path in here.rglob("events.out.tfevents*")}
    events = EventAccumulator(str(folder)).Reload()
    assert [event.step for event in events.Scalars("train/noise_monitor_overhead")] == [2, 4]


def test_with_one_micro_batch_a_step_it_is_said_why_there_is_none(caplog: pytest.LogCaptureFixture) -> None:
    callback, reading = watched(make_classifier_trainer(), source="micro-batches")
    assert callback.monitor is None
    assert reading.gradient_noise_scale.n == 0
    assert "no gradient noise scale was read: one backward pass in the step" in caplog.text


def test_the_loss_of_a_split_batch_is_the_trainers_unless_it_is_overridden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[Any] = []

    class Spied(NoiseMonitor):
        def __init__(self, *args: Any, **how: Any) -> None:
            given.append(how.get("loss"))
            super().__init__(*args, **how)

    class Own(Trainer):
        def compute_loss(self, *args: Any, **named: Any) -> Any:
            return super().compute_loss(*args, **named)

    monkeypatch.setattr("batchscope.integrations.transformers.callback.NoiseMonitor", Spied)
    trainer = small()
    watched(trainer)
    watched(small(kind=Own))
    loss, none = given
    assert none is None
    batch = padded(sequences(6))
    model = trainer.model
    assert isinstance(model, nn.Module)
    parts = [{key: value[rows] for key, value in batch.items()} for rows in (slice(0, 2), slice(2, 6))]
    tokens = [float(part["labels"].ne(-100).sum()) for part in parts]
    whole = sum(n * loss(model, part).item() for n, part in zip(tokens, parts, strict=True)) / sum(tokens)
    assert loss(model, batch).item() == pytest.approx(whole, rel=1e-5)
    assert "labels" in batch


def test_a_token_mean_without_accumulation_is_split_by_its_tokens() -> None:
    for changes in ({}, {"label_smoothing_factor": 0.1}):
        _, reading = watched(small(gradient_accumulation_steps=1, **changes), source="split")
        assert (reading.source, reading.reason) == ("batches split in 2", "")
        assert reading.gradient_noise_scale.n == STEPS
    _, refused = watched(small(gradient_accumulation_steps=1), source="split", loss_weight=None)
    assert "if it is a mean over terms such as tokens, give loss_weight=" in refused.reason


def test_a_classifiers_batch_is_split_by_its_examples() -> None:
    _, reading = watched(make_classifier_trainer(), source="split")
    assert (reading.source, reading.reason) == ("batches split in 2", "")


def test_a_training_that_is_resumed_goes_on_with_its_readings(here: Path) -> None:
    watched(small(save_strategy="steps", save_steps=2))
    assert (here / "out" / "checkpoint-2" / "noise_monitor.json").is_file()
    trainer = small()
    callback = NoiseCallback(trainer, clock=always)
    trainer.add_callback(callback)
    trainer.train(resume_from_checkpoint=str(here / "out" / "checkpoint-2"))
    reading = callback.read()
    assert reading is not None
    assert (reading.step, reading.gradient_noise_scale.n) == (STEPS, STEPS)


def test_its_own_error_switches_it_off_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = small()

    class Failing(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            monkeypatch.setattr(callback.monitor, "micro_batch", lambda *_: 1 / 0)

    callback = NoiseCallback(trainer)
    trainer.add_callback(callback)
    trainer.add_callback(Failing())
    with pytest.warns(RuntimeWarning, match="has switched itself off.*ZeroDivisionError") as caught:
        assert trainer.train().global_step == STEPS
    assert len(caught) == 1
