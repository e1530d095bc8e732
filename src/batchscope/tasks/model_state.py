"""State of a model, its parameters and buffers: what `evaluate` must leave as it is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

__all__ = ["ModelState", "difference", "fingerprint"]

ModelState = dict[str, float]
"""A number for each parameter and buffer, by its name."""


@torch.no_grad()
def fingerprint(model: nn.Module) -> ModelState:
    """Norm of each parameter and floating-point buffer, and sum of every other buffer, by name.

    A change that leaves the norm of its tensor as it was to the last digit goes unseen. Cost: one pass over the
    weights, and no memory.
    """
    tensors = dict(_tensors(model))
    numbers = [_number(tensor) for tensor in tensors.values()]
    if not numbers:
        return {}
    device = numbers[0].device
    return dict(zip(tensors, torch.stack([n.to(device) for n in numbers]).tolist(), strict=True))


def difference(before: ModelState, after: ModelState) -> str | None:
    """Name of the first parameter or buffer that is not as it was; `None`: all are.

    >>> difference({"weight": 1.0, "bias": math.nan}, {"weight": 1.0, "bias": math.nan}) is None
    True
    >>> difference({"weight": 1.0}, {"weight": 1.5}), difference({}, {"bias": 0.0})
    ('weight', 'bias')
    """
    for name in {**before, **after}:
        was, now = before.get(name), after.get(name)
        if was is None or now is None or not (was == now or (math.isnan(was) and math.isnan(now))):
            return name
    return None


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return itertools.chain(model.named_parameters(), model.named_buffers())


def _number(tensor: Tensor) -> Tensor:
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_floating_point() or tensor.is_complex():
        wide = tensor.float() if tensor.element_size() == 1 else tensor  # torch computes nothing in float8
        return torch.linalg.vector_norm(wide).double()
    return tensor.sum(dtype=torch.int64).double()
