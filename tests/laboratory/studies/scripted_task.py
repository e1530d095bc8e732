"""A task whose metrics follow a script of batch size, learning rate, examples and seed; a device of scripted time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import TensorDataset

from batchscope.hardware.device import Device


class At(NamedTuple):
    """Where a run is."""

    batch_size: int
    lr: float
    seen: float
    """Examples."""
    draw: float
    """A standard normal number of the seed."""


Script = Callable[[At], Mapping[str, float]]
"""Metrics; those that begin with `train_` are the training part's."""


class Clock(Device):
    """A CPU on which time passes as the task says."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.now = 0.0

    def clock(self) -> float:
        return self.now


class _Point(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))
        self.register_buffer("size", torch.zeros((), dtype=torch.int64))
        self.register_buffer("draw", torch.randn(()))


class Scripted:
    """See the module.

    Args:
        script: what an evaluation finds.
        examples: in the training set.
        step_time_s: of a batch size.
    """

    name = "scripted"

    def __init__(
        self, script: Script, *, examples: int = 40, step_time_s: Callable[[int], float] = lambda size: 0.1
    ) -> None:
        self.script, self.examples, self.step_time_s = script, examples, step_time_s
        self.device = Clock()
        self._lr = 0.0

    def model(self) -> nn.Module:
        return _Point()

    def train_data(self) -> TensorDataset:
        return TensorDataset(torch.zeros(self.examples, 1))

    def loss(self, model: Any, batch: Any) -> Tensor:
        size = len(batch[0])
        if model.training:
            model.seen += size
            model.size.fill_(size)
            self.device.now += self.step_time_s(size)
        return (model.w.square() + batch[0].sum(1)).mean()

    def optimizer(self, params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        self._lr = lr
        return SGD(params, lr=lr)

    def evaluate(self, model: Any) -> Mapping[str, float]:
        return {name: value for name, value in self._metrics(model).items() if not name.startswith("train_")}

    def metrics_on(self, model: Any, batch: Any) -> Mapping[str, float]:
        found = self._metrics(model)
        return {name.removeprefix("train_"): value for name, value in found.items() if name.startswith("train_")}

    def _metrics(self, model: Any) -> Mapping[str, float]:
        return self.script(At(int(model.size), self._lr, float(model.seen), float(model.draw)))
