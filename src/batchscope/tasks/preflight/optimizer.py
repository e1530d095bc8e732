"""Optimizer: whether it holds the model's parameters, and the learning rate reaches it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import TaskError
from ..update import groups_that_follow
from ..user_code import explained
from ..workload import Workload
from .scheduler import refusal_of, refuse_scheduler

__all__ = ["check_optimizer"]

_SAME_STEP = 0.05
_LOST_IN_ROUNDING, _LARGER, _MOST_LARGER = 1e-6, 1e3, 4
"""Share of the norm of the weights; factor to the next larger learning rate; how many of these."""
_NAMED = 8
"""Parameters that a message names at most."""
_HELD = "return an optimizer over the parameters that it is given: torch.optim.SGD(params, lr=lr)"


def check_optimizer(workload: Workload, model: nn.Module, lr: float) -> list[str]:
    """Make one step at `lr` and one at half of it, from the same weights and gradients; weights are put back.

    Where the step is lost in the rounding of the weights, as with a loss of 1e-6, larger learning rates are tried.

    Args:
        workload: the task.
        model: with gradients.
        lr: the larger learning rate.

    Returns:
        Notes on what is legitimate, but should be known.

    Raises:
        TaskError: the optimizer is none or several, has a scheduler, holds other parameters, leaves half of them out,
            ignores the learning rate, or does not move the weights.
    """
    lost = _LOST_IN_ROUNDING * math.hypot(*(float(p.detach().norm()) for p in model.parameters() if p.requires_grad))
    tried = lr
    notes, moved = _two_steps(workload, model, tried)
    while moved[0] <= lost and tried < _LARGER**_MOST_LARGER * lr:
        tried *= _LARGER
        larger = _two_steps(workload, model, tried)[1]
        if not math.isfinite(larger[0]):
            break
        moved = larger
    _check_moves(moved, tried)
    return notes


def _two_steps(workload: Workload, model: nn.Module, lr: float) -> tuple[list[str], list[float]]:
    """Notes on the optimizer, and how far the groups that follow the learning rate move at `lr` and at half of it."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients = [None if p.grad is None else p.grad.clone() for p in parameters]
    weights = {p: p.detach().clone() for p in parameters}
    lrs: list[list[float]] = []
    moved: list[list[float]] = []
    notes: list[str] = []
    for tried in (lr, lr / 2):
        optimizer = _made(workload, model, tried)
        notes = _check_held(optimizer, model)
        lrs.append([float(group["lr"]) for group in optimizer.param_groups])
        refuse_scheduler(optimizer)
        for p, gradient in zip(parameters, gradients, strict=True):
            p.grad = None if gradient is None else gradient.clone()
        with explained("optimizer.step()", "the training loop calls it without a closure"):
            optimizer.step()
        moved.append([_distance(group["params"], weights) for group in optimizer.param_groups])
        with torch.no_grad():
            for p, weight in weights.items():
                p.copy_(weight)
    fixed = [i for i, follows in enumerate(groups_that_follow(*lrs)) if not follows]
    notes += _check_lrs(lrs, fixed, lr)
    return notes, [math.hypot(*(d for i, d in enumerate(groups) if i not in fixed)) for groups in moved]


def _made(workload: Workload, model: nn.Module, lr: float) -> Any:
    try:
        with explained(
            "optimizer(params, lr)", "write `def optimizer(self, params, lr): return torch.optim.SGD(params, lr=lr)`"
        ):
            optimizer: Any = workload.made_optimizer(model, lr)
    except TaskError as error:
        if isinstance(error.__cause__, AttributeError) and "'list' object has no attribute" in str(error):
            raise TaskError(
                f"{error}; the first argument of optimizer(params, lr) is a list of parameters: call it `model` to be "
                "handed the model"
            ) from error.__cause__
        raise
    if not hasattr(optimizer, "param_groups") or not callable(getattr(optimizer, "step", None)):
        raise refusal_of(optimizer) or TaskError(
            f"optimizer(params, lr) returned {type(optimizer).__name__}, which is no torch optimizer; {_HELD}"
        )
    return optimizer


def _check_held(optimizer: Any, model: nn.Module) -> list[str]:
    """Notes on a small part of the parameters that is left out.

    Raises:
        TaskError: half of them or more are, by tensors or by numbers.
    """
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    left = {name: p.numel() for name, p in trainable.items() if id(p) not in held}
    if len(left) == len(trainable):
        raise TaskError(
            f"the optimizer holds none of the model's {len(trainable)} trainable parameter tensors, but "
            f"{len(held)} others; {_HELD}"
        )
    if not left:
        return []
    numbers, whole = sum(left.values()), sum(p.numel() for p in trainable.values())
    seen = (
        f"the optimizer leaves {len(left)} of {len(trainable)} parameter tensors as they are, {numbers:,} of {whole:,} "
        f"numbers ({', '.join([*left][:_NAMED])}{', ...' if len(left) > _NAMED else ''})"
    )
    if 2 * len(left) >= len(trainable) or 2 * numbers >= whole:
        raise TaskError(
            f"{seen}; hand all of them to it, or freeze them in model() with requires_grad_(False), so that no "
            "gradient of theirs is computed or counted"
        )
    return [seen]


def _check_lrs(lrs: Sequence[Sequence[float]], fixed: Sequence[int], lr: float) -> list[str]:
    if len(fixed) == len(lrs[0]):
        raise TaskError(
            f"the optimizer ignores lr: asked for {lr:g} its learning rate is {lrs[0][0]:g}, asked for {lr / 2:g} it "
            f"is {lrs[1][0]:g}; pass lr on: torch.optim.SGD(params, lr=lr)"
        )
    factors = [group / lr for i, group in enumerate(lrs[0]) if i not in fixed]
    notes = [
        f"parameter group {i} keeps its learning rate {lrs[0][i]:g} whatever lr is; a schedule scales it like the "
        "others"
        for i in fixed[:1]
    ]
    if not all(math.isclose(factor, factors[0], rel_tol=1e-6) for factor in factors):
        listed = ", ".join(f"{factor:.4g}" for factor in factors)
        notes.append(
            f"the learning rates of the {len(factors)} parameter groups are {listed} times lr: they are scaled "
            "together, and what is recommended is lr"
        )
    elif not fixed and not math.isclose(factors[0], 1.0, rel_tol=1e-6):
        notes.append(f"asked for lr={lr:g}, the optimizer's learning rate is {lrs[0][0]:g}; what is recommended is lr")
    return notes


def _check_moves(moved: Sequence[float], lr: float) -> None:
    full, half = moved
    if full == 0.0:
        raise TaskError(f"a step of the optimizer moved no parameter, not at lr={lr:g} either; {_HELD}")
    if abs(full - half) <= _SAME_STEP * full:
        raise TaskError(
            f"the optimizer ignores lr: a step at {lr:g} moves the weights by {full:.4g}, one at {lr / 2:g} by "
            f"{half:.4g}; use an optimizer whose step is set by lr (for Adafactor relative_step=False)"
        )


def _distance(parameters: Sequence[nn.Parameter], weights: Mapping[nn.Parameter, Tensor]) -> float:
    squares = [(p.detach() - weights[p]).abs().double().square().sum() for p in parameters if p in weights]
    return math.sqrt(sum(float(square) for square in squares))
