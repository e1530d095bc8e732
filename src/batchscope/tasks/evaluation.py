"""Evaluation on a data set, and what the task's own `evaluate` returned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..errors import TaskError
from .batches import first_dimension, tensors_of, to_device
from .collation import Collation
from .protocol import Batch

__all__ = ["checked_metrics", "mean_loss"]

_EVALUATION_CHUNK = 1000


def mean_loss(
    model: nn.Module,
    loss: Callable[[nn.Module, Batch], Tensor],
    data: Dataset[Any],
    *,
    collate: Callable[[list[Any]], Batch] | None = None,
    weight: Callable[[Batch], float] | None = None,
    name: str = "val",
    numbers: Tensor | None = None,
) -> float:
    """The mean loss over a whole data set, in chunks, without gradients.

    Args:
        model: evaluated as it is; its mode is the caller's.
        loss: `(model, batch) -> scalar mean loss`.
        data: map-style data set.
        collate: as the loader's; default: `default_collate`.
        weight: number of terms in the mean of a batch's loss; default: its examples, the first dimension of its first
            tensor.
        name: of the data, for messages.
        numbers: index of each example in what goes by that name, where it is another.

    Returns:
        The mean over all terms, every one weighing the same.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    total, seen = 0.0, 0
    held = Collation(data=data, collate=collate, name=name, numbers=numbers)
    tensors, examples = None if collate else tensors_of(data), len(cast(Sized, data))
    for start in range(0, examples, _EVALUATION_CHUNK):
        stop = min(start + _EVALUATION_CHUNK, examples)
        if tensors is not None:
            batch: Batch = [t[start:stop].to(device) for t in tensors]
        else:
            batch = to_device(held.batch(range(start, stop)), device)
        size = (weight or first_dimension)(batch)
        with torch.no_grad():
            total += float(loss(model, batch)) * size
        seen += size
    return total / seen


def checked_metrics(metrics: Any) -> dict[str, float]:
    """What `evaluate` returned, as numbers.

    Raises:
        TaskError: it is no dict of numbers.
    """
    if not isinstance(metrics, Mapping) or not metrics:
        raise TaskError(
            f"evaluate() returned {metrics!r}; it must return a dict of numbers, for example {{'val_loss': 0.3}}"
        )
    checked: dict[str, float] = {}
    for key, value in metrics.items():
        try:
            checked[str(key)] = float(value)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise TaskError(
                f"evaluate() returned {_short(value)} for {str(key)!r}, which is not a number; return float(...) of it"
            ) from None
    return checked


def _short(value: Any) -> str:
    """A value in a message; a number of thousands of digits has none."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:
        return f"{type(value).__name__} beyond all floats"
    return text if len(text) <= 80 else f"{text[:80]}..."
