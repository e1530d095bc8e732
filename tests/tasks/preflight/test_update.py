"""The update before anything is trained: weights of batches, precision, `before_update`, and the advice followed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from batchscope.errors import TaskError
from batchscope.hardware.device import Device
from batchscope.store.records import Target
from batchscope.tasks.preflight.check import check
from batchscope.tasks.workload import Workload

from ..tokens import Tokens, Unweighted
from .parts import Parts


class Extended(Parts):
    """A sound task with further members."""

    def __init__(self, members: dict[str, Any] | None = None, **parts: Any) -> None:
        super().__init__(**parts)
        vars(self).update(members or {})


def clipped(model: nn.Module) -> None:
    nn.utils.clip_grad_norm_(model.parameters(), 0.1)


def wrong_call(model: Any) -> None:
    nn.utils.clip_grad_norm_(model.weights, 0.1)


def cleared(model: nn.Module) -> None:
    model.zero_grad()


def zeroed(model: nn.Module) -> None:
    for p in model.parameters():
        p.grad = torch.zeros_like(p)


def not_a_number(model: nn.Module) -> None:
    for p in model.parameters():
        assert p.grad is not None
        p.grad *= float("nan")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            wrong_call,
            r"before_update\(model\) raised AttributeError: .*'weights' .*clip_grad_norm_\(model.weights.*; for "
            r"example torch.nn.utils.clip_grad_norm_\(model.parameters\(\), 1.0\) stands in it",
        ),
        (cleared, r"before_update\(model\) left no gradients.*clip or scale p.grad, and must not call zero_grad"),
        (zeroed, r"the norm of all gradients was [\d.]+ before before_update\(model\) and is 0 after it"),
        (not_a_number, r"and is inf after it; look for a division by a norm"),
    ],
)
def test_before_update_that_leaves_nothing_to_step_by(call: Callable[..., Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        check(Workload(Extended({"before_update": call})))
    assert check(Workload(Extended({"before_update": clipped}))).notes == ()


@pytest.mark.parametrize("weight", [0, -1.0, math.nan, math.inf])
def test_loss_weights_that_are_none(weight: float) -> None:
    with pytest.raises(TaskError, match=r"loss_weight\(batch\) returned .*number of terms.*tokens.*above 0"):
        check(Workload(Tokens(loss_weight=lambda batch: weight)))
    assert check(Workload(Tokens())).independent


def test_a_mean_over_tokens_without_its_weights_is_told_of_them_and_the_advice_works() -> None:
    without = check(Workload(Unweighted()))
    assert not without.independent
    assert "where loss() is a mean over tokens, give the task loss_weight(batch)" in without.coupling
    wrong = check(Workload(Tokens(loss_weight=lambda batch: len(batch["x"]))))
    assert "by which the pairs were weighted, is not the number of terms in the mean of loss()" in wrong.coupling
    assert check(Workload(Tokens())).notes == ()


def test_a_precision_that_the_device_lacks() -> None:
    with pytest.raises(TaskError, match=r"precision is 'float16', and meta does not compute in it; use 'float32', or"):
        Workload(Extended({"precision": "float16"}), device=Device(torch.device("meta")))
    assert check(Workload(Extended({"precision": "float32"}))).notes == ()


@pytest.mark.parametrize(
    ("precision", "hint"),
    [("bf16", r"; did you mean 'bfloat16'\?"), (torch.float16, r"; did you mean 'float16'\?"), (16, "$")],
)
def test_a_precision_of_another_name(precision: Any, hint: str) -> None:
    with pytest.raises(TaskError, match=r"must be one of 'float32', 'bfloat16', 'float16'" + hint):
        Workload(Extended({"precision": precision}))


def test_weights_in_float16_under_float16() -> None:
    with pytest.raises(TaskError, match=r"2 parameter tensors .* float16 already \(weight, ...\).*without .half\(\)"):
        check(Workload(Extended({"precision": "float16"}, make_model=lambda: nn.Linear(4, 3).half())))
    assert check(Workload(Extended({"precision": "float16"}))).independent


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_is_no_coupling_and_small_gradients_count(precision: str) -> None:
    assert check(Workload(Extended({"precision": precision}))).notes == ()
    tiny = Extended(
        {"precision": precision},
        compute_loss=lambda model, batch: 1e-7 * (model(batch[0]).float() ** 2).mean(),
        make_optimizer=lambda params, lr: torch.optim.Adam(params, lr=lr, eps=1e-15),
    )
    assert check(Workload(tiny)).notes == ()


@pytest.mark.parametrize("decay", [0, 1, 1.5, "0.9", True])
def test_decays_that_are_none(decay: Any) -> None:
    with pytest.raises(TaskError, match=r"ema_decay is .*between 0 and 1, for example 0.999"):
        Workload(Extended({"ema_decay": decay}))


def test_metrics_of_the_averaged_weights_can_be_the_target() -> None:
    found = check(Workload(Tokens(ema_decay=0.999)), target=Target.parse("ema_val_loss<=0.5"))
    assert set(found.metrics) == {"val_loss", "ema_val_loss", "test_loss", "test_ema_loss"}
