"""Windows whose gradients are not the sum of their passes: no row from any source, and the right examples."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from batchscope import NoiseMonitor

from .trainings import cut, examples, gradient, mean_loss, mlp, rows, step, watch


@pytest.fixture
def training() -> Iterator[tuple[nn.Module, torch.optim.Optimizer, NoiseMonitor]]:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with watch(model, optimizer, source="per-example") as monitor:
        yield model, optimizer, monitor


def test_gradients_that_are_clipped_between_two_passes_give_no_row() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with watch(model, optimizer, source=None) as monitor:
        for number in range(8):
            for part in cut(examples(12, seed=number), [6, 6]):
                mean_loss(model, part).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 0.01)
            optimizer.step()
            optimizer.zero_grad()
        assert not rows(monitor)
        assert "clip or unscale them after the last" in monitor.read().reason
        for number in range(8):  # as it says
            for part in cut(examples(12, seed=number), [6, 6]):
                mean_loss(model, part).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.01)
            optimizer.step()
            optimizer.zero_grad()
        assert rows(monitor)


@pytest.mark.parametrize("set_to_none", [True, False])
def test_gradients_that_the_training_writes_itself_give_no_row(
    training: tuple[nn.Module, torch.optim.Optimizer, NoiseMonitor], set_to_none: bool
) -> None:
    model, optimizer, monitor = training
    for number in range(4):
        parameters = list(model.parameters())
        for p, g in zip(
            parameters, torch.autograd.grad(mean_loss(model, examples(12, number)), parameters), strict=True
        ):
            p.grad = g.clone() if p.grad is None else p.grad.copy_(g)
        optimizer.step()
        optimizer.zero_grad(set_to_none=set_to_none)
    assert not rows(monitor)
    assert "no backward pass in the step added to the gradients" in monitor.read().reason


@pytest.mark.parametrize("of", ["parameters", "input", "second forward pass"])
def test_a_look_at_gradients_before_the_backward_pass_leaves_per_example_norms_right(
    training: tuple[nn.Module, torch.optim.Optimizer, NoiseMonitor], of: str
) -> None:
    model, optimizer, monitor = training
    truths: list[Tensor] = []
    for number in range(3):
        x, y = examples(12, seed=number)
        truths.append(torch.stack([gradient(model, mean_loss(model, (x[i : i + 1], y[i : i + 1]))) for i in range(12)]))
        x.requires_grad_()
        loss = mean_loss(model, (x, y))
        looked = mean_loss(model, (x, y)) if of == "second forward pass" else loss
        torch.autograd.grad(looked, x if of == "input" else list(model.parameters()), retain_graph=True)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    found = rows(monitor)
    assert len(found) == 3
    for row, truth in zip(found, truths, strict=True):
        assert row["mean_square_norm"] == pytest.approx(float(truth.square().sum(1).mean()), rel=1e-9)
        assert row["square_norm_of_mean"] == pytest.approx(float(truth.mean(0).square().sum()), rel=1e-9)


def test_a_window_whose_number_of_passes_is_rare_does_not_set_what_is_usual() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with watch(model, optimizer) as monitor:
        step(model, optimizer, cut(examples(8), [4, 4]))  # the monitor came in mid-accumulation
        for number in range(4):
            step(model, optimizer, cut(examples(12, seed=number), [4, 4, 4]))
        assert [row["groups"] for row in rows(monitor)][-3:] == [3, 3, 3]


@pytest.mark.parametrize("source", ["micro-batches", "per-example"])
@pytest.mark.parametrize("share", [1.0, 1e-9])
def test_steps_that_the_scaler_skips_are_no_examples(source: str, share: float) -> None:
    model = mlp()
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.05), torch.amp.GradScaler("cpu")
    with watch(model, optimizer, scaler=scaler, source=source, share=share) as monitor:
        for number in range(9):
            for part in cut(examples(12, seed=number), [6, 6]):
                monitor.micro_batch(examples=6)
                loss = mean_loss(model, part) / 2
                scaler.scale(loss * (float("inf") if number in (2, 5, 6) else 1.0)).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        reading = monitor.read()
        assert (reading.step, reading.examples) == (6, 72)
        assert len(rows(monitor)) == (6 if share == 1.0 else 2)
