"""The monitor in trainings of all kinds: it changes none of them, and says what it cannot measure."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from batchscope import NoiseMonitor

from .trainings import (
    PARTS,
    assert_equal_groups,
    assert_same,
    cut,
    examples,
    group_gradients,
    mean_loss,
    mlp,
    rows,
    rows_after,
    step,
    watch,
)


def train(watched: Callable[[nn.Module, torch.optim.Optimizer], list[NoiseMonitor]]) -> dict[str, Any]:
    """All that a training leaves behind, with dropout, a shuffled loader, clipping and AdamW."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    model = nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    x, y = examples(120)
    loader = DataLoader(TensorDataset(x.float(), y), batch_size=4, shuffle=True)
    monitors = watched(model, optimizer)
    seen: list[Tensor] = []
    for _ in range(2):
        for number, batch in enumerate(loader):
            seen.append(batch[0])
            for monitor in monitors:
                monitor.micro_batch(batch=batch)
            (mean_loss(model, batch) / 3).backward()
            if number % 3 == 2:
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
                for monitor in monitors:
                    monitor.read()
    left = {
        "model": model.state_dict(),
        "state": optimizer.state_dict(),
        "seen": seen,
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": np.random.get_state()[1],  # noqa: NPY002
    }
    for monitor in monitors:
        assert monitor.read().reason == ""
        monitor.close()
    return left


@pytest.mark.parametrize("monitors", [1, 2])
def test_a_training_is_bit_for_bit_what_it_is_without(monitors: int) -> None:
    readings: list[Any] = []

    def watched(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[NoiseMonitor]:
        options: dict[str, Any] = {"batch_size": 12, "share": 1.0, "layers": True, "on_reading": readings.append}
        return [NoiseMonitor(model, optimizer, **options) for _ in range(monitors)]

    assert_same(train(lambda model, optimizer: []), train(watched))
    assert len(readings) == 20 * monitors
    assert [reading.step for reading in readings[::monitors]] == list(range(1, 21))
    assert readings[-1].notes[0].startswith("batch normalisation")


def test_two_monitors_read_the_same() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first, second = watch(model, optimizer), watch(model, optimizer)
    step(model, optimizer, cut(examples(12), [4, 4, 4]))
    assert rows(first) == rows(second) != []
    first.close()
    step(model, optimizer, cut(examples(12), [4, 4, 4]))
    assert (len(rows(first)), len(rows(second))) == (1, 2)
    second.close()


class TestScaler:
    """A gradient scaler on the CPU, as in a float16 training."""

    def run(self, scaler: torch.amp.GradScaler, *, given: bool, steps: int) -> tuple[NoiseMonitor, list[Tensor]]:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        monitor = watch(model, optimizer, scaler=scaler if given else None)
        truths: list[Tensor] = []
        for number in range(steps):
            parts = cut(examples(12, seed=number), [4, 4, 4])
            truths.append(group_gradients(model, parts))
            for part in parts:
                scaler.scale(mean_loss(model, part) / 3).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1e-2)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        return monitor, truths

    def test_measured_unscaled(self) -> None:
        monitor, truths = self.run(torch.amp.GradScaler("cpu", growth_interval=2), given=True, steps=5)
        assert len(rows(monitor)) == 5
        for row, truth in zip(rows(monitor), truths, strict=True):
            assert_equal_groups(row, truth, 4)

    @pytest.mark.parametrize("set_to_none", [True, False])
    @pytest.mark.parametrize("told", [True, False])
    def test_a_step_that_is_skipped_on_overflow(self, set_to_none: bool, told: bool) -> None:
        model = mlp()
        optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu")
        with watch(model, optimizer, scaler=scaler) as monitor:
            truths: list[Tensor] = []
            for number in range(4):
                parts = cut(examples(12, seed=number), [4, 4, 4])
                truths.append(group_gradients(model, parts))
                for part in parts:
                    if told:
                        monitor.micro_batch(batch=part)
                    loss = mean_loss(model, part) / 3
                    scaler.scale(loss * (float("inf") if number == 1 else 1.0)).backward()
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad(set_to_none=set_to_none)
            assert monitor.read().step == 3
            assert len(rows(monitor)) == 3
            for row, truth in zip(rows(monitor), [truths[0], *truths[2:]], strict=True):
                assert_equal_groups(row, truth, 4)

    def test_one_that_was_not_given_is_recognised(self) -> None:
        monitor, _ = self.run(torch.amp.GradScaler("cpu"), given=False, steps=2)
        assert rows(monitor) == []
        assert "scaler=" in monitor.read().reason
        followed, _ = self.run(torch.amp.GradScaler("cpu"), given=True, steps=2)
        assert followed.read().reason == ""

    @pytest.mark.parametrize("given", [True, False])
    def test_one_that_is_not_enabled(self, given: bool) -> None:
        monitor, truths = self.run(torch.amp.GradScaler("cpu", enabled=False), given=given, steps=1)
        assert_equal_groups(rows(monitor)[0], truths[0], 4)


class TestClosure:
    """Forward and backward inside `optimizer.step(closure)`."""

    @pytest.mark.parametrize("keyword", [True, False])
    def test_the_last_micro_batch_inside_the_step_as_in_lightning(self, keyword: bool) -> None:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        losses: list[Any] = []
        with watch(model, optimizer) as monitor:
            for number in range(3):
                parts = cut(examples(12, seed=number), [4, 4, 4])
                truth = group_gradients(model, parts)
                for index, part in enumerate(parts):

                    def closure(index: int = index, part: Any = part) -> Tensor:
                        if index == 0:
                            optimizer.zero_grad()
                        loss = mean_loss(model, part) / 3
                        loss.backward()
                        return loss

                    if index < 2:
                        closure()
                    elif keyword:
                        losses.append(optimizer.step(closure=closure))
                    else:
                        losses.append(optimizer.step(closure))
                assert_equal_groups(rows(monitor)[-1], truth, 4)
        assert all(isinstance(loss, Tensor) for loss in losses)

    def test_lbfgs_is_refused(self) -> None:
        def run(watched: bool) -> tuple[Any, NoiseMonitor | None]:
            model = mlp()
            optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)
            monitor = watch(model, optimizer) if watched else None
            part = examples(12)

            def closure() -> Tensor:
                optimizer.zero_grad()
                loss = mean_loss(model, part)
                loss.backward()
                return loss

            for _ in range(3):
                optimizer.step(closure)
            return model.state_dict(), monitor

        plain, _ = run(False)
        left, monitor = run(True)
        assert_same(plain, left)
        assert monitor is not None
        assert "closure" in monitor.read().reason
        assert "LBFGS" in monitor.read().reason
        assert monitor.read().gradient_noise_scale.value is None

    def test_two_passes_with_a_change_of_weights_between_them(self) -> None:
        """Sharpness-aware minimization by hand: its second pass is at other weights."""
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with watch(model, optimizer) as monitor:
            for _ in range(2):
                mean_loss(model, examples(12)).backward()
                with torch.no_grad():
                    for p in model.parameters():
                        p.add_(0.01)
            optimizer.step()
            assert "parameters changed between" in monitor.read().reason


def test_gradients_that_are_not_finite() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with watch(model, optimizer) as monitor:
        for spoiled in (float("nan"), float("inf")):
            for part in cut(examples(12), [4, 4, 4]):
                (mean_loss(model, part) * spoiled).backward()
            for p in model.parameters():
                assert p.grad is not None
            optimizer.step()
            model.load_state_dict(mlp().state_dict())
            optimizer.zero_grad()
            assert "not finite" in monitor.read().reason
        truth = step(model, optimizer, cut(examples(12), [4, 4, 4]))
        assert len(rows(monitor)) == 1
        assert_equal_groups(rows(monitor)[0], truth, 4)
        assert monitor.read().reason == ""


def test_a_batch_of_one() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, batch_size=1) as monitor:
        step(model, optimizer, cut(examples(1), [1]))
        assert monitor.read().reason == "one backward pass in the step"
        step(model, optimizer, cut(examples(2), [1, 1]))
        assert "batch_size is 1, and the step had 2 backward passes" in monitor.read().reason
    with watch(model, optimizer, batch_size=2) as monitor:
        truth = step(model, optimizer, cut(examples(2), [1, 1]))
        assert_equal_groups(rows(monitor)[0], truth, 1)


def test_a_model_without_gradients() -> None:
    model = mlp().requires_grad_(False)
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    with watch(model, optimizer) as monitor:
        weight.sum().backward()
        optimizer.step()
        reading = monitor.read()
    assert "no parameter of this model that requires a gradient" in reading.reason
    assert reading.gradient_noise_scale.value is None


def test_an_optimizer_for_a_part_of_the_model() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)  # pyright: ignore
    with watch(model, optimizer) as monitor:
        truth = step(model, optimizer, cut(examples(12), [4, 4, 4]))
        assert_equal_groups(rows(monitor)[0], truth[:, 42:], 4)


def test_parameters_that_are_thawed_later() -> None:
    model = mlp()
    model[0].requires_grad_(False)  # pyright: ignore
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as monitor:
        assert_equal_groups(rows_after(monitor, model, optimizer), group_gradients(model, PARTS), 4)
        model[0].requires_grad_(True)  # pyright: ignore
        step(model, optimizer, PARTS)  # its hooks were put on before
        assert_equal_groups(rows_after(monitor, model, optimizer), group_gradients(model, PARTS), 4)
