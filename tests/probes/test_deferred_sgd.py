"""Updates that are deferred, against the same steps with autograd and every weight updated at once, in float64."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from batchscope.probes.deferred_sgd import DeferredSGD
from batchscope.tasks.protocol import task
from batchscope.tasks.workload import Workload

EXAMPLES, LR = 48, 0.2
GATHERING: Any = {"rows": 5, "smallest": 1}
"""Every layer counts as large, and five rows fill its buffer."""


class Residual(nn.Module):
    """Positions in front of the features, a layer used twice, work in place, and a frozen bias."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(2, 6))
        self.twice = nn.Linear(6, 6)
        self.twice.bias.requires_grad_(False)
        self.norm = nn.LayerNorm(6)
        self.out = nn.Linear(6, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, None, :] + self.positions
        x = x + functional.relu(self.twice(x), inplace=True)
        return self.out(self.norm(self.twice(x))).mean(1)


class Bypassed(nn.Module):
    """A weight that is also used without its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + functional.linear(x, self.layer.weight.square())


class Tied(nn.Module):
    """One weight under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.second(torch.tanh(self.first(x))))


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 3))


def with_batch_norm_and_dropout() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.4), nn.ReLU(), nn.Linear(8, 3))


def ready(model: Callable[[], nn.Module]) -> Workload:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(EXAMPLES, 6, generator=generator, dtype=torch.float64)
    part = TensorDataset(x, torch.randint(3, (EXAMPLES,), generator=generator))
    return Workload(
        task(
            model=lambda: model().double(),
            train=part,
            val=part,
            loss=lambda model, batch: functional.cross_entropy(model(batch[0]), batch[1]),
            optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
        )
    )


def batches(workload: Workload, size: int) -> list[Any]:
    return [workload.batch(part) for part in torch.arange(EXAMPLES).split(size)]


@pytest.mark.parametrize("size", [2, 3, 16])
@pytest.mark.parametrize(
    ("make", "watched", "deferred"),
    [
        (perceptron, "4.weight", ("0", "2", "4")),
        (perceptron, "2.bias", ("0", "2", "4")),
        (Residual, "twice.weight", ("twice", "out")),
        (Residual, "positions", ("twice", "out")),
        (Bypassed, "layer.weight", ()),
        (Tied, "first.weight", ("out",)),
        (with_batch_norm_and_dropout, "0.weight", ("0", "4")),
    ],
)
def test_the_same_path_and_sum_as_plain_steps(make: Any, watched: str, deferred: tuple[str, ...], size: int) -> None:
    workload = ready(make)
    model, plain = workload.model(0), workload.model(0)
    parameter = model.get_parameter(watched)
    torch.manual_seed(5)
    trial = workload.batch(torch.arange(4))
    sgd = DeferredSGD(workload, model, lr=LR, watched=parameter, trial=trial, **GATHERING)
    assert sgd.deferred == deferred
    for batch in batches(workload, size):
        sgd.step(batch)
    total = sgd.finish()

    torch.manual_seed(5)
    expected = torch.zeros_like(plain.get_parameter(watched))
    optimizer = torch.optim.SGD([p for p in plain.parameters() if p.requires_grad], lr=LR)
    for batch in batches(workload, size):
        optimizer.zero_grad()
        workload.loss(plain, batch).backward()
        gradient = plain.get_parameter(watched).grad
        assert gradient is not None
        expected += gradient
        optimizer.step()
    torch.testing.assert_close(total, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(model.state_dict(), plain.state_dict(), rtol=1e-9, atol=1e-12)


def test_the_sum_begins_again_after_each_finish() -> None:
    workload = ready(perceptron)
    model = workload.model(0)
    sgd = DeferredSGD(workload, model, lr=0.0, watched=model.get_parameter("0.weight"), trial=batches(workload, 8)[0])
    sums: list[Tensor] = []
    for _ in range(2):
        sgd.step(batches(workload, 8)[1])
        sums.append(sgd.finish())
    torch.testing.assert_close(sums[0], sums[1])


def test_evaluation_in_between_sees_rows_that_are_deferred() -> None:
    workload = ready(perceptron)
    model, plain = workload.model(0), workload.model(0)
    trial = batches(workload, 8)[0]
    sgd = DeferredSGD(workload, model, lr=LR, watched=model.get_parameter("4.weight"), trial=trial, **GATHERING)
    first = batches(workload, 3)[0]
    sgd.step(first)
    workload.loss(plain, first).backward()
    torch.optim.SGD(plain.parameters(), lr=LR).step()
    assert workload.evaluate(model)["val_loss"] == pytest.approx(workload.evaluate(plain)["val_loss"], rel=1e-12)


def test_a_released_model_has_its_own_layers_and_nothing_keeps_it_in_memory() -> None:
    workload = ready(perceptron)
    model = workload.model(0)
    trial = batches(workload, 8)[0]
    sgd = DeferredSGD(workload, model, lr=LR, watched=model.get_parameter("4.weight"), trial=trial, **GATHERING)
    assert sgd.deferred
    sgd.step(batches(workload, 3)[0])
    sgd.release()
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any("forward" in vars(module) for module in model.modules())
    alive = weakref.ref(model)
    gc.disable()
    try:
        del model, sgd
        assert alive() is None
    finally:
        gc.enable()
