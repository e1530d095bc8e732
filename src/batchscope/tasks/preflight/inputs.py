"""Examples to try first: the unusual ones, where training data in memory can be looked through."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..protocol import Batch
from ..workload import Workload

__all__ = ["describe_batch", "describe_integers", "describe_nan", "named_tensors", "outputs_of", "telling_examples"]

_SCANNED_AT_MOST = 200_000_000


def telling_examples(workload: Workload, size: int) -> Tensor:
    """Indices of `size` examples: those with the smallest and largest labels or codes, one with a NaN, then any.

    Cost: one pass over the training data where it is in memory.
    """
    telling: list[int] = []
    for tensor in workload.tensors:
        if not 0 < tensor.numel() <= _SCANNED_AT_MOST:
            continue
        rows = tensor.reshape(len(tensor), -1) if tensor.is_contiguous() else tensor.flatten(1)
        if tensor.is_floating_point():
            with_nan = rows.isnan().any(1)
            telling += [int(with_nan.int().argmax())] if bool(with_nan.any()) else []
        elif not tensor.is_complex():
            telling += [int(rows.amin(1).argmin()), int(rows.amax(1).argmax())]
    drawn = torch.randperm(workload.examples, generator=torch.Generator().manual_seed(0))[:size].tolist()
    return torch.tensor(list(dict.fromkeys([*telling, *drawn]))[:size])


def named_tensors(batch: Batch, name: str = "batch") -> Iterator[tuple[str, Tensor]]:
    """Tensors in a batch, with the expression that reaches it."""
    if isinstance(batch, Tensor):
        yield name, batch
    elif isinstance(batch, Mapping):
        for key, value in batch.items():
            yield from named_tensors(value, f"{name}[{key!r}]")
    elif isinstance(batch, list | tuple):
        fields: Any = getattr(batch, "_fields", None)
        for i, value in enumerate(batch):
            yield from named_tensors(value, f"{name}.{fields[i]}" if fields else f"{name}[{i}]")


def describe_batch(workload: Workload, batch: Batch) -> str:
    """Sentence on what a batch is, and who made it."""
    kind = type(batch).__name__
    if isinstance(batch, Mapping):
        kind = f"{kind} with the keys {', '.join(map(str, batch))}"
    elif isinstance(batch, list | tuple):
        kind = f"{kind} of {len(batch)}"
    tensors = ", ".join(f"{name} {tuple(t.shape)}" for name, t in named_tensors(batch))
    what = f"the batch is a {kind}{f' ({tensors})' if tensors else ''}"
    if workload.in_memory:
        return f"{what}, cut from the tensors of train_data()"
    if workload.has_collate:
        return f"{what}, made by the task's collate"
    return f"{what}, made by torch's default_collate; a collate_fn of your loader goes into the task's collate"


def describe_nan(workload: Workload, batch: Batch) -> str:
    """Sentence on where the inputs hold NaN, and how many; empty where none was seen."""
    whole = [(f"tensor {i} of the training data", t) for i, t in enumerate(workload.tensors)]
    found: list[str] = []
    for name, tensor in whole or list(named_tensors(batch)):
        if tensor.is_floating_point() and (count := int(tensor.isnan().sum())):
            rows = int(tensor.isnan().flatten(1).any(1).sum()) if tensor.ndim > 1 else count
            found.append(f"{name} (shape {tuple(tensor.shape)}) holds {count} NaN in {rows} of {len(tensor)} examples")
    return "; ".join(found)


def describe_integers(workload: Workload, batch: Batch, model: nn.Module) -> str:
    """Sentence on the ranges of integer tensors, and how many outputs the model's last layer has."""
    whole = [(f"tensor {i} of the training data", t) for i, t in enumerate(workload.tensors)]
    ranges = [
        f"{name} runs from {int(t.min())} to {int(t.max())}"
        for name, t in whole or list(named_tensors(batch))
        if t.numel() and not t.is_floating_point() and not t.is_complex()
    ]
    last = outputs_of(model)
    outputs = f"; the model's last layer has {last} outputs (0 to {last - 1})" if last is not None else ""
    return ", ".join(ranges) + outputs


def outputs_of(model: nn.Module) -> int | None:
    """How many outputs the model's last linear layer has; `None` where it has none."""
    found: list[Any] = [getattr(module, "out_features", None) for module in model.modules()]
    return next((width for width in reversed(found) if isinstance(width, int)), None)
