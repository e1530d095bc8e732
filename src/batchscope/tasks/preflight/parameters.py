"""Parameters: whether the model has some that can learn, and all of them before the optimizer is made."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress

import torch
from torch import nn

from ...errors import TaskError
from ..fresh_model import MADE_BEFORE
from ..protocol import Batch
from ..workload import Workload

__all__ = ["parameters_as_made", "trainable_numbers"]


def trainable_numbers(workload: Workload, model: nn.Module, batch: Batch) -> int:
    """How many numbers of a model can learn.

    Raises:
        TaskError: none.
    """
    parameters = list(model.parameters())
    if not parameters:
        with parameters_as_made(model), suppress(TaskError), torch.no_grad():
            workload.loss(model, batch)
    if not any(p.requires_grad for p in parameters):
        raise TaskError(
            f"the model has no trainable parameters ({len(parameters)} parameter tensors"
            f"{', all with requires_grad=False' if parameters else ''}); model() must return one that can learn"
        )
    return sum(p.numel() for p in parameters if p.requires_grad)


@contextmanager
def parameters_as_made(model: nn.Module) -> Generator[None]:
    """Refuse a model that makes parameters in its first forward pass, after which an optimizer does not hold them.

    Raises:
        TaskError: it has parameters, when the block is left, that it did not have before.
    """
    before = {id(p) for p in model.parameters()}
    yield
    made = [name for name, p in model.named_parameters() if id(p) not in before]
    if made:
        raise TaskError(
            f"the first forward pass made {len(made)} parameter tensors of the model ({made[0]}, ...), and the "
            "optimizer is made before, so it would not train them; make them in __init__, use lazy layers "
            f"(nn.LazyLinear), or {MADE_BEFORE}"
        )
