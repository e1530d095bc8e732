"""Batches out of a data set: in which order examples come, how many a batch holds, where its tensors are."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from ..errors import TaskError
from ..hardware.live_bytes import tensors_in
from .protocol import Batch

__all__ = [
    "MicroBatchRequest",
    "MicroBatchSampler",
    "first_dimension",
    "index_stream",
    "subset",
    "tensors_of",
    "to_device",
]


def index_stream(
    examples: int, batch_size: int, seed: int, skip: int = 0, order: Callable[[int], Tensor] | None = None
) -> Iterator[Tensor]:
    """Endless batches of indices: seeded permutations of all examples, one after another without gaps.

    Args:
        examples: size of the training set.
        batch_size: of every batch; one that an epoch ends in goes on in the next.
        seed: draws the order of the examples.
        skip: batches that are left out at the beginning, at the cost of drawing their orders.
        order: gives the indices of an epoch, one dimension, for `seed` plus its 0-based number; default: permutations
            drawn one after another.

    Raises:
        ValueError: the batch is larger than the data set.
    """
    if batch_size > examples:
        raise ValueError(f"batch_size {batch_size} is larger than the training set of {examples} examples")
    epochs = _permutations(examples, seed) if order is None else map(order, itertools.count(seed))
    pool, over = next(epochs), skip * batch_size
    while over >= len(pool):
        over -= len(pool)
        pool = next(epochs)
    pool = pool[over:]
    while True:
        while len(pool) < batch_size:
            pool = torch.cat([pool, next(epochs)])
        yield pool[:batch_size]
        pool = pool[batch_size:]


def _permutations(examples: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randperm(examples, generator=generator)


class MicroBatchRequest(NamedTuple):
    """What a loader asks for: the examples of a micro-batch, and which one of a run it is."""

    indices: list[int]
    step: int
    part: int


class MicroBatchSampler:
    """Requests for one micro-batch after another, for a `DataLoader`: the batches of `index_stream` in equal parts.

    Args:
        batches: makes the batches of indices from the first that is not left out on.
        parts_of: micro-batches of a step, of its 0-based number.
        skip: steps that are left out at the beginning.

    Attributes:
        asked: indices of each micro-batch that was yielded, the oldest first; whoever receives one takes it off.
    """

    def __init__(self, batches: Callable[[], Iterator[Tensor]], parts_of: Callable[[int], int], skip: int = 0) -> None:
        self.batches, self.parts_of, self.skip = batches, parts_of, skip
        self.asked: deque[list[int]] = deque()

    def __iter__(self) -> Iterator[MicroBatchRequest]:
        for step, indices in enumerate(self.batches(), self.skip):
            for number, part in enumerate(indices.split(len(indices) // self.parts_of(step))):
                self.asked.append(part.tolist())
                yield MicroBatchRequest(self.asked[-1], step, number)


def first_dimension(batch: Batch) -> int:
    """The number of examples in a batch: the first dimension of its first tensor.

    Raises:
        TaskError: the batch holds no tensor.
    """
    tensor = next(tensors_in(batch), None)
    if tensor is None or tensor.ndim == 0:
        raise TaskError(
            f"a batch of type {type(batch).__name__} holds no tensor with a first dimension, so its examples cannot be "
            "counted; give the task a method batch_size(batch) -> int"
        )
    return tensor.size(0)  # a nested tensor has no shape


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with every tensor in it on the device, and none that leads back to what the data were computed by."""
    if isinstance(batch, Tensor):
        return batch.detach().to(device)
    if hasattr(batch, "to"):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device) for value in batch)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        moved = copy.copy(batch)
        for field in dataclasses.fields(batch):
            object.__setattr__(moved, field.name, to_device(getattr(batch, field.name), device))
        return moved
    return batch


def subset(data: Dataset[Any], indices: Tensor) -> Dataset[Any]:
    """Examples of a data set at `indices` (int64, one dimension), as a data set; in memory where the whole is."""
    tensors = tensors_of(data)
    return TensorDataset(*(t[indices] for t in tensors)) if tensors is not None else Subset(data, indices.tolist())


def tensors_of(data: Dataset[Any]) -> tuple[Tensor, ...] | None:
    """Tensors of a `TensorDataset` or of a part of one (`random_split`); other types may compute their examples.

    Sparse and nested ones, of which rows are not taken by indices, are left to the data set.
    """
    if type(data) is TensorDataset:
        dense = all(t.layout is torch.strided and not t.is_nested for t in data.tensors)
        return tuple(t.detach() for t in data.tensors) if dense else None
    if type(data) is Subset and (whole := tensors_of(data.dataset)) is not None:
        return tuple(t[torch.as_tensor(data.indices)] for t in whole)
    return None
