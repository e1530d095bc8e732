"""The optimizer holds the parameters, and the learning rate reaches it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from batchscope.errors import TaskError

from .parts import run, sgd


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


def test_what_is_legitimate_but_worth_saying() -> None:
    def last_layer(params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        return torch.optim.SGD(list(params)[1:], lr=lr)

    def two_rates(params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        weight, bias = params
        return torch.optim.SGD([{"params": [weight]}, {"params": [bias], "lr": 0.5}], lr=lr)

    assert run(make_optimizer=last_layer).notes == (
        "the optimizer leaves 1 of 2 parameter tensors as they are (weight, ...)",
    )
    assert run(make_optimizer=two_rates).notes == ("parameter group 1 keeps its learning rate 0.5 whatever lr is",)
    assert run(make_optimizer=lambda params, lr: sgd(params, lr / 10)).notes == (
        "asked for lr=0.001, the optimizer's learning rate is 0.0001; what is recommended is lr",
    )
