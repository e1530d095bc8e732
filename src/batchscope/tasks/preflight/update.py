"""Update: whether the weights suit the precision, and `before_update` leaves gradients to step by."""

from __future__ import annotations

import math

import torch
from torch import nn

from ...errors import TaskError
from ..update import call_before_update
from ..workload import Workload

__all__ = ["check_before_update", "check_precision"]


def check_precision(workload: Workload, model: nn.Module) -> None:
    """Refuse weights in float16 under the precision float16, whose gradients cannot be scaled.

    Raises:
        TaskError: there are some.
    """
    if workload.precision != "float16":
        return
    halves = [name for name, p in model.named_parameters() if p.requires_grad and p.dtype == torch.float16]
    if halves:
        raise TaskError(
            f"precision is 'float16', and {len(halves)} parameter tensors of the model are float16 already "
            f"({halves[0]}, ...): small gradients would be lost; return the model in float32 from model(), without "
            ".half(): autocast computes in float16 all the same"
        )


def check_before_update(workload: Workload, model: nn.Module) -> None:
    """Call the task's `before_update` on a model with gradients, and leave those that it makes.

    Raises:
        TaskError: it fails, takes the gradients away, or makes all of them zero or one of them no number.
    """
    if workload.before_update is None:
        return
    before = _norm(model)
    call_before_update(workload.before_update, model)
    after = _norm(model)
    seen = f"the norm of all gradients was {before:.4g} before before_update(model) and is {after:.4g} after it"
    if after == 0.0:
        raise TaskError(
            f"{seen}, so the optimizer would change nothing; it may clip or scale p.grad, and must leave a part of it"
        )
    if not math.isfinite(after):
        raise TaskError(f"{seen}; look for a division by a norm or a standard deviation of zero in it")


def _norm(model: nn.Module) -> float:
    squares = [float(p.grad.to_dense().abs().double().square().sum()) for p in model.parameters() if p.grad is not None]
    return math.sqrt(math.fsum(squares)) if all(map(math.isfinite, squares)) else math.inf
