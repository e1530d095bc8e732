"""The optimizer holds the parameters, and the learning rate reaches it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from batchscope.errors import TaskError
from batchscope.tasks.preflight.check import check
from batchscope.tasks.update import Update
from batchscope.tasks.workload import Workload

from .parts import Parts, mean_loss, run, sgd, stacked


class Deaf(torch.optim.SGD):
    """Says the right rate and steps by another."""

    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            for p in group["params"]:
                p.data -= 0.01 * p.grad


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (
            lambda params, lr: torch.optim.SGD(params, lr=0.1),
            r"ignores lr: asked for 0.001 its learning rate is 0.1, asked for 0.0005 it is 0.1",
        ),
        (
            lambda params, lr: Deaf(params, lr=lr),
            r"ignores lr: a step at 0.001 moves the weights by ([\d.e-]+), one at 0.0005 by \1",
        ),
        (
            lambda params, lr: torch.optim.SGD(nn.Linear(4, 3).parameters(), lr=lr),
            r"holds none of the model's 2 trainable parameter tensors, but 2 others",
        ),
        (lambda params, lr: None, r"optimizer\(params, lr\) returned NoneType, which is no torch optimizer"),
        (lambda params: None, r"optimizer\(params, lr\) raised TypeError: .*takes 1 positional argument"),
        (lambda params, lr: torch.optim.LBFGS(params, lr=lr), r"optimizer.step\(\) raised TypeError: .*closure"),
        (
            lambda params, lr: torch.optim.SGD([], lr=lr),
            r"optimizer\(params, lr\) raised ValueError: optimizer got an empty parameter list",
        ),
    ],
)
def test_bad_optimizers(optimizer: Callable[..., Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        run(make_optimizer=optimizer)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW, torch.optim.Adagrad, torch.optim.RMSprop])
def test_sound_optimizers(kind: Any) -> None:
    assert run(make_optimizer=lambda params, lr: kind(params, lr=lr)).notes == ()


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e6])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_a_scaled_loss_is_no_fault_of_the_optimizer(kind: Any, scale: float) -> None:
    """A step at 0.001 would be lost in the rounding of the weights."""
    run(compute_loss=lambda m, b: scale * mean_loss(m, b), make_optimizer=lambda params, lr: kind(params, lr=lr))


def test_what_is_legitimate_but_worth_saying() -> None:
    def without_a_bias(params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        return torch.optim.SGD(list(params)[:-1], lr=lr)

    def fixed_rate(params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        weight, bias = params
        return torch.optim.SGD([{"params": [weight]}, {"params": [bias], "lr": 0.5}], lr=lr)

    assert run(make_model=stacked(nn.ReLU()), make_optimizer=without_a_bias).notes == (
        "the optimizer leaves 1 of 4 parameter tensors as they are, 3 of 67 numbers (2.bias)",
    )
    assert run(make_optimizer=fixed_rate).notes == (
        "parameter group 1 keeps its learning rate 0.5 whatever lr is; a schedule scales it like the others",
    )
    assert run(make_optimizer=lambda params, lr: sgd(params, lr / 10)).notes == (
        "asked for lr=0.001, the optimizer's learning rate is 0.0001; what is recommended is lr",
    )


def test_groups_with_learning_rates_of_their_own_are_scaled_together_and_that_is_said() -> None:
    def two_rates(params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        weight, bias = params
        return torch.optim.SGD([{"params": [weight], "lr": lr / 10}, {"params": [bias], "lr": 3 * lr}], lr=lr)

    assert run(make_optimizer=two_rates).notes == (
        "the learning rates of the 2 parameter groups are 0.1, 3 times lr: they are scaled together, and what is "
        "recommended is lr",
    )
    workload = Workload(Parts(make_optimizer=two_rates))
    update = Update(workload, workload.model(0), 0.2)
    update.set_factor(0.5)
    assert [group["lr"] for group in update.optimizer.param_groups] == pytest.approx([0.01, 0.3])


def test_an_optimizer_that_leaves_half_of_the_parameters_out_is_refused_and_the_advice_works() -> None:
    def head_only(params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        return sgd([p for p in list(params)[2:] if p.requires_grad], lr)

    def frozen() -> nn.Module:
        model = stacked(nn.ReLU())()
        for p in list(model.parameters())[:2]:
            p.requires_grad_(False)
        return model

    with pytest.raises(TaskError) as caught:
        run(make_model=stacked(nn.ReLU()), make_optimizer=head_only)
    assert "leaves 2 of 4 parameter tensors as they are, 40 of 67 numbers (0.weight, 0.bias); hand all" in str(
        caught.value
    )
    assert "requires_grad_(False)" in str(caught.value)
    assert run(make_model=frozen, make_optimizer=head_only).parameters == 27
    assert run(make_model=stacked(nn.ReLU()), make_optimizer=sgd).parameters == 67


def test_a_model_under_another_name_is_pointed_out_and_the_advice_works() -> None:
    class Net(Parts):
        def optimizer(self, net: Any, lr: float) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
            return torch.optim.SGD(net.parameters(), lr=lr)

    class Model(Parts):
        def optimizer(self, model: Any, lr: float) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
            return torch.optim.SGD(model.parameters(), lr=lr)

    with pytest.raises(TaskError, match=r"is a list of parameters: call it `model` to be handed the model"):
        check(Workload(Net()))
    assert check(Workload(Model())).parameters == 15
