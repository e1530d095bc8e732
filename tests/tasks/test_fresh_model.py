"""Fresh models: lazy layers get their sizes, whatever they are; what is no model, or grows later, is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from batchscope.errors import TaskError
from batchscope.tasks.update import Update
from batchscope.tasks.variants import same_initial_weights
from batchscope.tasks.workload import Workload

from .preflight.parts import CLASSES, Parts, run

PICTURES = TensorDataset(torch.randn(60, 3, 8, 8), torch.arange(60) % CLASSES)


def linear() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(CLASSES))


def convolution() -> nn.Module:
    layers = nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1)
    return nn.Sequential(*layers, nn.LazyLinear(CLASSES))


class InTraining(nn.Module):
    """Calls its lazy layer in training alone, as an auxiliary output does."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.beside = nn.Linear(4, CLASSES), nn.LazyLinear(CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.own(x) + self.beside(x) if self.training else self.own(x)


@pytest.mark.parametrize(
    ("make", "data", "numbers"),
    [(linear, None, 4 * 8 + 8 + 8 * 3 + 3), (convolution, PICTURES, 112 + 8 + 435), (InTraining, None, 30)],
    ids=["linear", "convolution", "in training"],
)
def test_lazy_layers_work(make: Callable[[], nn.Module], data: Any, numbers: int) -> None:
    parts: dict[str, Any] = {} if data is None else {"data": data}
    assert run(make_model=make, **parts).parameters == numbers
    workload = Workload(Parts(make_model=make, **parts))
    one, same, other = workload.model(0), workload.model(0), workload.model(1)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), same.state_dict().values(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert one.training
    means = [buffer for name, buffer in one.named_buffers() if name.endswith("running_mean")]
    assert all(not bool(mean.any()) for mean in means)
    update = Update(workload, one, 0.1)
    update.gradients(next(workload.micro_batches(8, 2, 0)))
    update.apply()
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))


def test_lazy_layers_keep_their_weights_where_only_the_order_differs() -> None:
    workload = Workload(Parts(make_model=linear))
    fixed = Workload(Parts(make_model=same_initial_weights(workload.made_model, 3)))
    first, second, theirs = fixed.model(0), fixed.model(1), workload.model(3)
    for a, b, c in zip(first.parameters(), second.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


class Aside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.own, self.aside = nn.Linear(4, CLASSES), nn.LazyLinear(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.own(x)


class ByHand(nn.Module):
    """Makes a layer at the first call."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.first: nn.Module = nn.Linear(4, 4) if own else nn.Identity()
        self.last: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.last is None:
            self.last = nn.Linear(x.shape[1], CLASSES)
        return self.last(x)


def test_a_lazy_layer_that_is_not_called_is_named() -> None:
    with pytest.raises(TaskError, match=r"2 lazy \(uninitialized\) parameter tensors .*\(aside\.weight, aside\.bias\)"):
        run(make_model=Aside)


def test_a_loss_that_fails_at_the_first_call_of_lazy_layers_is_told() -> None:
    with pytest.raises(TaskError, match=r"loss\(model, batch\) raised .*\(test_fresh_model.py, .*lazy layers learn"):
        run(make_model=linear, compute_loss=lambda model, batch: model(batch["x"]))


@pytest.mark.parametrize("own", [False, True])
def test_parameters_made_by_the_first_call_are_refused_with_what_works(own: bool) -> None:
    with pytest.raises(
        TaskError, match=r"first forward pass made 2 parameter tensors .*\(last\.weight, .*in model\(\)"
    ):
        run(make_model=lambda: ByHand(own))

    def called_once() -> nn.Module:
        made = ByHand(own)
        made(torch.zeros(2, 4))
        return made

    assert run(make_model=called_once).parameters == 15 + (20 if own else 0)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (None, r"model\(\) returned None; end it with `return`"),
        (nn.Linear, r"returned the class Linear; return an object of it: Linear\(\.\.\.\)"),
        (lambda x: x, r"returned an object of type function, which is no torch.nn.Module"),
    ],
    ids=["None", "a class", "a function"],
)
def test_what_is_no_model_is_refused(made: Any, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        run(make_model=lambda: made)
