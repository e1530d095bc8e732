"""Small trainings with accumulated micro-batches, and the truth about their gradients in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from batchscope import NoiseMonitor

Batch = tuple[Tensor, Tensor]


def mlp(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2)).double()


def examples(n: int, seed: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    return x, (x[:, 0] + 0.5 * torch.randn(n, generator=generator) > 0).long()


def cut(batch: Batch, sizes: Sequence[int]) -> list[Batch]:
    return list(zip(batch[0].split(list(sizes)), batch[1].split(list(sizes)), strict=True))


def mean_loss(model: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def gradient(model: nn.Module, loss: Tensor) -> Tensor:
    """Gradient over all trainable parameters, in one vector."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    parts = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([part.to_dense().flatten() for part in parts])


def group_gradients(
    model: nn.Module, parts: Sequence[Any], loss: Callable[[nn.Module, Any], Tensor] = mean_loss
) -> Tensor:
    """Mean gradients of micro-batches, shape (micro-batches, parameters)."""
    return torch.stack([gradient(model, loss(model, part)) for part in parts])


def watch(model: nn.Module, optimizer: torch.optim.Optimizer, **options: Any) -> NoiseMonitor:
    """Monitor that measures every step, from micro-batches."""
    return NoiseMonitor(model, optimizer, **{"batch_size": 12, "share": 1.0, "source": "micro-batches", **options})


def rows(monitor: NoiseMonitor) -> list[dict[str, Any]]:
    return monitor.state_dict()["rows"]


def assert_equal_groups(row: dict[str, Any], groups: Tensor, group_size: float) -> None:
    """The row holds what equal groups with these mean gradients have."""
    assert row["groups"] == len(groups)
    assert row["group_size"] == pytest.approx(group_size, rel=1e-12)
    assert row["mean_square_norm"] == pytest.approx(float(groups.square().sum(dim=1).mean()), rel=1e-10)
    assert row["square_norm_of_mean"] == pytest.approx(float(groups.mean(dim=0).square().sum()), rel=1e-10)


def step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    parts: Sequence[Any],
    *,
    loss: Callable[[nn.Module, Any], Tensor] = mean_loss,
    shares: Sequence[float] | None = None,
) -> Tensor:
    """One step, accumulated; the mean gradients of its micro-batches as they were before it."""
    truth = group_gradients(model, parts, loss)
    for part, share in zip(parts, shares or [1 / len(parts)] * len(parts), strict=True):
        (loss(model, part) * share).backward()
    optimizer.step()
    optimizer.zero_grad()
    return truth


def assert_same(first: Any, second: Any) -> None:
    assert type(first) is type(second)
    if isinstance(first, Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, np.ndarray):
        assert np.array_equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for a, b in zip(first, second, strict=True):
            assert_same(a, b)
    else:
        assert first == second


PARTS = cut(examples(12), [4, 4, 4])


def rows_after(monitor: NoiseMonitor, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Last row after a step that changes nothing."""
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    step(model, optimizer, PARTS)
    return rows(monitor)[-1]
