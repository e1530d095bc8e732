"""A model, its batches and the rows of batches that are split beside its training."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from batchscope.live.sources.split import SplitSource
from batchscope.live.window import Window
from batchscope.store.records import Row


def mean_square(model: Any, batch: Any) -> Tensor:
    return F.mse_loss(model(batch[0]), batch[1])


def make_batch(size: int, seed: int = 0, *, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, 4, generator=generator, dtype=dtype)
    return x, x[:, :1] + 0.5 * torch.randn(size, 1, generator=generator, dtype=dtype)


def make_model(*extra: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), *extra, nn.Linear(6, 1)).double()


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def window(size: int, step: int = 0) -> Window:
    return Window(step=step, examples_before=step * size, batch_size=size)


def row_of(source: SplitSource, model: nn.Module, batch: Any, size: int) -> Row:
    source.attach(model, sgd(model))
    source.micro_batch(batch)
    row = source.take(window(size))
    source.detach()
    assert row is not None, source.reason
    return row


def per_example(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    found = [
        torch.cat([g.flatten() for g in torch.autograd.grad(mean_square(model, (x, y)), list(model.parameters()))])
        for x, y in zip(batch[0].split(1), batch[1].split(1), strict=True)
    ]
    return torch.stack(found)


class Trained:
    """All of a training that a pass beside it could move."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.state = copy.deepcopy(model.state_dict())
        self.gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
        self.optimizer = copy.deepcopy(optimizer.state_dict())
        self.modes = [m.training for m in model.modules()]
        self.random = torch.get_rng_state(), str(np.random.get_state()), random.getstate()  # noqa: NPY002
        self.hooks = [len(p._backward_hooks or ()) for p in model.parameters()]
        self.autocast = torch.is_autocast_enabled("cpu"), torch.is_autocast_cache_enabled()

    def same_as(self, other: Trained) -> bool:
        def same(a: Any, b: Any) -> bool:
            return torch.equal(a, b) if isinstance(a, Tensor) else a == b

        return (
            all(map(same, self.state.values(), other.state.values()))
            and all(map(same, self.gradients, other.gradients))
            and str(self.optimizer) == str(other.optimizer)
            and self.modes == other.modes
            and torch.equal(self.random[0], other.random[0])
            and self.random[1:] == other.random[1:]
            and (self.hooks, self.autocast) == (other.hooks, other.autocast)
        )
