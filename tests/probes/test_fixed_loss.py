"""The fixed loss against the task's own loss, and with the layers whose fused kernels would be in the way."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, TensorDataset

from batchscope.errors import TaskError
from batchscope.probes.fixed_loss import FixedLoss, double
from batchscope.tasks.protocol import task
from batchscope.tasks.workload import Workload

EXAMPLES = 30


def workload_of(model: Callable[[], nn.Module], loss: Callable[[nn.Module, Any], Tensor], data: Any) -> Workload:
    return Workload(
        task(
            model=model,
            train=data,
            loss=loss,
            optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
            evaluate=lambda model: {"val_loss": 1.0},
        )
    )


def sequences() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(EXAMPLES, 4, 6, generator=generator), torch.arange(EXAMPLES) % 2)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.LSTM(6, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(x)[0][:, -1])


class Attentive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, dropout=0.1)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(x).mean(dim=1))


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


@pytest.mark.parametrize("make_model", [Recurrent, Attentive], ids=str)
def test_value_and_gradient_are_the_mean_over_all_examples(make_model: Callable[[], nn.Module]) -> None:
    workload = workload_of(make_model, cross_entropy, sequences())
    fixed = FixedLoss(workload, workload.model(0), at_once=7)
    value, gradient = fixed.value_and_gradient()
    model = workload.model(0).double().eval()
    loss = workload.loss(model, double(workload.batch(torch.arange(EXAMPLES))))
    loss.backward()
    assert value == pytest.approx(loss.item(), rel=1e-12)
    expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).numpy()
    np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-13)
    assert fixed.passes == 3
    step = 1e-6 * np.random.default_rng(0).standard_normal(gradient.size)
    up, down = (fixed.value_and_gradient(fixed_weights)[0] for fixed_weights in _around(fixed.weights(), step))
    assert up - down == pytest.approx(2 * float(step @ gradient), rel=1e-6)


def _around(weights: np.ndarray[Any, Any], step: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    return weights + step, weights - step


class Jittered(Dataset[Any]):
    """Examples that are augmented at random whenever they are asked for."""

    def __len__(self) -> int:
        return EXAMPLES

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": torch.randn(3), "y": torch.tensor(index % 2), "name": f"example {index}"}


def test_augmented_examples_are_drawn_once() -> None:
    workload = workload_of(lambda: nn.Linear(3, 2), lambda m, b: F.cross_entropy(m(b["x"]), b["y"]), Jittered())
    fixed = FixedLoss(workload, workload.model(0), examples=10)
    assert fixed.value_and_gradient()[0] == fixed.value_and_gradient()[0]
    assert (fixed.examples, fixed.training_examples) == (10, EXAMPLES)


def test_frozen_and_unused_parameters() -> None:
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused, self.frozen = nn.Linear(24, 2), nn.Linear(5, 5), nn.Linear(2, 2)
            self.frozen.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.frozen(self.used(x.flatten(1)))

    workload = workload_of(Partly, cross_entropy, sequences())
    fixed = FixedLoss(workload, workload.model(0))
    _, gradient = fixed.value_and_gradient()
    assert gradient.size == fixed.weights().size == 50 + 30
    assert np.abs(gradient[:48]).all()
    assert not gradient[50:].any()


def test_a_loss_that_switches_training_mode_on_is_not_repeatable() -> None:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        model.train()
        return cross_entropy(model, batch)

    workload = workload_of(Attentive, loss, sequences())
    with pytest.raises(TaskError, match="not repeatable"):
        FixedLoss(workload, workload.model(0))


def test_double_converts_floats_wherever_they_are() -> None:
    pair = namedtuple("pair", "a b")
    batch = {"x": [torch.ones(2), torch.ones(2, dtype=torch.int64)], "p": pair(torch.ones(1).half(), "text"), "n": (3,)}
    found = double(batch)
    assert [t.dtype for t in found["x"]] == [torch.float64, torch.int64]
    assert found["p"].a.dtype == torch.float64
    assert (found["p"].b, found["n"]) == ("text", (3,))
