"""Averaging: whether the loss of a batch, and so its gradient, is a mean over its examples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..hardware.random_state import preserved_random_state
from ..store.not_applicable import NotApplicable
from ..tasks.workload import Workload
from .base import coupled, flat, gradients, not_repeatable, shares, trainable, twin

__all__ = ["Averaging", "measure_averaging"]


@dataclass(frozen=True, kw_only=True)
class Averaging:
    """Relative differences, all of them rounding where loss and gradient are means over the examples.

    A difference is the norm of the difference over the norm of what the batch itself has; infinite where that is zero
    and the other is not.
    """

    batch_size: int
    parts: int
    loss: float
    """Of the batch."""
    gradient_norm: float
    """Of the batch, in loss per weight."""
    loss_twice: float
    """Loss of the batch with every example given twice; 1 if the loss were a sum."""
    gradient_twice: float
    """Gradient of the batch with every example given twice; 1 if the loss were a sum."""
    loss_of_parts: float
    """Mean of the losses of equal parts; (parts − 1)/parts if the loss were a sum."""
    gradient_of_parts: float
    """Mean of the gradients of equal parts; (parts − 1)/parts if the loss were a sum."""
    rounding: float
    """The relative rounding of one number of the weights' type, to set the differences against: they come from sums in
    another order, and are a few times as large, more where the terms nearly cancel."""


def measure_averaging(
    workload: Workload, model: nn.Module, *, batch_size: int = 64, parts: int = 4, seed: int = 0
) -> Averaging | NotApplicable:
    """Compare loss and gradient of a batch with those of the batch given twice, and with the mean over its parts.

    With `L(S) = 1/|S| Σ_{i∈S} l_i` it holds that `L(S twice) = L(S)`, and for k equal parts `L(S) = 1/k Σ_p L(S_p)`;
    the same for gradients. A sum in place of the mean breaks both; a mean over something else than examples (tokens,
    where texts differ in length) breaks the second alone.

    Args:
        workload: the task on its device.
        model: the weights to measure at; left as it is.
        batch_size: examples, drawn at random without replacement.
        parts: equal parts of the batch.
        seed: of the draw.

    Returns:
        The differences, or why there are none: where examples depend on their batch (batch normalisation), or where the
        loss of one batch differs from call to call (dropout, augmentation), they would show that instead.

    Raises:
        UsageError: a number makes no sense, or the training set is smaller than the batch.
        TaskError: the task's loss failed.

    Cost: forward and backward passes over 4 · batch_size examples, forward passes over 5 · batch_size more, and three
    vectors of the size of the gradient in float64.

    Valid when: examples are independent of one another, and the loss is the same each time.

    Source: Goodfellow, Bengio and Courville 2016, section 8.1.3 (the loss of a batch is a mean, and estimates that of
    all data).
    """
    if min(batch_size, parts) < 1 or batch_size % parts or batch_size > workload.examples:
        raise UsageError(
            f"a batch of {batch_size} in {parts} equal parts out of {workload.examples} examples: at least 1 of each, "
            "the batch a multiple of the parts and no larger than the training set"
        )
    copy = twin(workload, model)
    if (reason := coupled(workload, copy)) is not None:
        return reason
    chosen = torch.randperm(workload.examples, generator=torch.Generator().manual_seed(seed))[:batch_size]
    with preserved_random_state(seed):
        tried = not_repeatable(
            workload, copy, lambda: workload.batch(chosen), consequence="would count as a difference"
        )
        if tried is not None:
            return tried
        once = _loss(workload, copy, chosen)
        return _compared(workload, copy, chosen, once, parts)


def _loss(workload: Workload, model: nn.Module, indices: Tensor) -> float:
    with torch.no_grad():
        return float(workload.loss(model, workload.batch(indices)))


def _compared(workload: Workload, model: nn.Module, chosen: Tensor, loss: float, parts: int) -> Averaging:
    parameters = list(trainable(model).values())

    def gradient(indices: Tensor) -> Tensor:
        return flat(gradients(workload, model, workload.batch(indices), parameters))

    twice, equal = torch.cat([chosen, chosen]), chosen.split(len(chosen) // parts)
    own = gradient(chosen)
    norm = float(own.norm())
    difference_twice = float((gradient(twice) - own).norm())
    mean = torch.zeros_like(own)
    loss_of_parts = 0.0
    for part, share in zip(equal, shares(workload, equal), strict=True):
        mean.add_(gradient(part), alpha=share)
        loss_of_parts += share * _loss(workload, model, part)
    return Averaging(
        batch_size=len(chosen),
        parts=parts,
        loss=loss,
        gradient_norm=norm,
        loss_twice=_relative(abs(_loss(workload, model, twice) - loss), abs(loss)),
        gradient_twice=_relative(difference_twice, norm),
        loss_of_parts=_relative(abs(loss_of_parts - loss), abs(loss)),
        gradient_of_parts=_relative(float((mean - own).norm()), norm),
        rounding=max(torch.finfo(parameter.dtype).eps for parameter in parameters),
    )


def _relative(difference: float, norm: float) -> float:
    if norm > 0:
        return difference / norm
    return math.inf if difference > 0 else 0.0
