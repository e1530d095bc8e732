"""Examples to try first: the unusual ones, where training data in memory can be looked through."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import TaskError
from ..culprits import bad_values_of
from ..protocol import Batch
from ..values import named_values, not_finite
from ..workload import Workload

__all__ = [
    "describe_bad_values",
    "describe_batch",
    "describe_integers",
    "describe_mismatch",
    "is_dense",
    "named_tensors",
    "outputs_of",
    "shape_of",
    "telling_examples",
]

_SCANNED_AT_MOST = 200_000_000
_LOADING_S, _WAITING_S = 0.08, 0.2
"""Seconds that looking through examples may take of this thread, and by the clock."""
_ORDERED = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def telling_examples(workload: Workload, size: int) -> Tensor:
    """Indices of `size` examples: the smallest and largest labels or codes, some with NaN or inf, then any.

    They are among those that training draws, and fewer where these are. Cost: one pass over the training data where it
    is in memory, else loading examples drawn at random: 0.08 s of work, 0.2 s where they are waited for.
    """
    drawable = workload.drawable
    telling = [] if workload.in_memory else _with_bad_values(workload, drawable)
    for tensor in _drawn_rows(workload, drawable):
        if not 0 < tensor.numel() <= _SCANNED_AT_MOST:
            continue
        if tensor.is_floating_point():
            telling += [int(drawable[row]) for found in not_finite(tensor) for row in found.rows[:1]]
        elif (codes := comparable(tensor)) is not None:
            within = tuple(range(1, tensor.ndim))  # an example's own dimensions; a view of a part is not copied so
            least, most = (codes.amin(within), codes.amax(within)) if within else (codes, codes)
            telling += [int(drawable[least.argmin()]), int(drawable[most.argmax()])]
    drawn = drawable[torch.randperm(len(drawable), generator=torch.Generator().manual_seed(0))[:size]].tolist()
    return torch.tensor(list(dict.fromkeys([*telling, *drawn]))[:size])


def _drawn_rows(workload: Workload, drawable: Tensor) -> Iterator[Tensor]:
    """Each tensor of the training data in memory, where training draws some examples alone these rows of it."""
    whole = len(drawable) == workload.examples
    return (t if whole else t[drawable.to(t.device)] for t in workload.tensors)


def _with_bad_values(workload: Workload, drawable: Tensor) -> list[int]:
    """Index of an example that reaches the loss with NaN or inf, of as many as load in a short time; empty: none does.

    They are drawn in batches that double in size. One that cannot be made is left to the checks that follow.
    """
    order = drawable[torch.randperm(len(drawable), generator=torch.Generator().manual_seed(1))]
    works_until, waits_until, size = time.thread_time() + _LOADING_S, time.perf_counter() + _WAITING_S, 1
    while len(order) and time.thread_time() < works_until and time.perf_counter() < waits_until:
        chunk, order, size = order[:size], order[size:], 2 * size
        try:
            if not_finite(workload.batch(chunk)):
                return [i for i in chunk.tolist() if not_finite(workload.batch(torch.tensor([i])))][:1]
        except TaskError:
            return []
    return []


def named_tensors(batch: Batch, name: str = "batch") -> Iterator[tuple[str, Tensor]]:
    """Tensors in a batch, with the expression that reaches it."""
    return ((at, value) for at, value in named_values(batch, name) if isinstance(value, Tensor))


def describe_batch(workload: Workload, batch: Batch) -> str:
    """Sentence on what a batch is, and who made it."""
    kind = type(batch).__name__
    if isinstance(batch, Mapping):
        kind = f"{kind} with the keys {', '.join(map(str, batch))}"
    elif isinstance(batch, list | tuple):
        kind = f"{kind} of {len(batch)}"
    tensors = ", ".join(f"{name} {shape_of(t)} {dtype_of(t)}" for name, t in named_tensors(batch))
    what = f"the batch is a {kind}{f' ({tensors})' if tensors else ''}"
    if workload.in_memory:
        return f"{what}, cut from the tensors of train_data()"
    if workload.has_collate:
        return f"{what}, made by the task's collate"
    return f"{what}, made by torch's default_collate; a collate_fn of your loader goes into the task's collate"


def describe_bad_values(workload: Workload, batch: Batch, indices: Tensor) -> str:
    """Sentence on where the inputs hold NaN or inf, and in which examples; empty where none was seen.

    Args:
        workload: the task; where the batch holds some, training data in memory are looked at as a whole.
        batch: of `telling_examples`.
        indices: of the examples in it.
    """
    if workload.in_memory and not_finite(batch):
        drawable = workload.drawable
        of = "" if len(drawable) == workload.examples else " that the sampler yields"
        found = [
            value
            for i, rows in enumerate(_drawn_rows(workload, drawable))
            for value in not_finite(rows, f"tensor {i} of the training data{of}")
        ]
        return "; ".join(value.of_examples(lambda row: workload.number_of(int(drawable[row]))) for value in found)
    return "; ".join(bad_values_of(workload, batch, indices))


def describe_mismatch(workload: Workload, model: nn.Module, batch: Batch, error: BaseException) -> str:
    """Clause on what in a batch a failed loss was about: numbers of another dtype, or a list in a tensor's place.

    Args:
        workload: the task.
        model: whose loss failed.
        batch: of which.
        error: what torch raised.
    """
    text = str(error)
    name = "" if workload.has_collate else _list_of_numbers(batch, "batch")
    if name and "list" in text:
        return (
            f"; {name} is a list of tensors, one for each place in a list of numbers: make it one tensor of an example "
            "in train_data(), torch.tensor(...)"
        )
    own = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    about = re.search(r"\b(d|scalar )?type\b", text) and not re.search("target|indices", text)
    if own is None or not about or workload.precision != "float32":
        return ""
    tensors = list(named_tensors(batch))
    fractions = [(name, t) for name, t in tensors if t.is_floating_point() and t.dtype != own]
    name, tensor = next(iter(fractions or tensors), ("", None))
    if tensor is None or tensor.dtype == own:
        return ""
    return (
        f"; {name} is {dtype_of(tensor)} and the model's weights are {_word(own)}, which torch does not mix: use "
        f"{name}.to({own}) in loss, or make it so in train_data()"
    )


def _list_of_numbers(batch: Batch, name: str) -> str:
    """Expression that reaches a list of one number each for all examples, in a batch; empty where there is none."""
    if isinstance(batch, Mapping):
        parts = [(f"{name}[{key!r}]", value) for key, value in batch.items()]
    elif isinstance(batch, list | tuple):
        parts = [(f"{name}[{i}]", value) for i, value in enumerate(batch)]
        if name != "batch" and len(batch) > 1 and all(isinstance(value, Tensor) and value.ndim == 1 for value in batch):
            return name
    else:
        return ""
    return next(filter(None, (_list_of_numbers(value, at) for at, value in parts)), "")


def comparable(tensor: Tensor) -> Tensor | None:
    """Whole numbers of a tensor in a dtype that torch orders; `None`: it holds others, or is not dense."""
    if not is_dense(tensor) or tensor.is_quantized:
        return None
    if tensor.is_floating_point() or tensor.is_complex():
        return None
    if tensor.dtype == torch.bool:
        return tensor.to(torch.uint8)
    return tensor if tensor.dtype in _ORDERED else tensor.to(torch.int64)


def is_dense(tensor: Tensor) -> bool:
    """Whether a tensor is neither nested nor sparse."""
    return tensor.layout is torch.strided and not tensor.is_nested


def shape_of(tensor: Tensor) -> str:
    """Shape in words; a nested tensor has none."""
    return f"({tensor.size(0)}, nested)" if tensor.is_nested else str(tuple(tensor.shape))


def dtype_of(tensor: Tensor) -> str:
    """Type of a tensor's numbers, and its layout where it is not dense."""
    sparse = "" if tensor.layout in (torch.strided, torch.jagged) else "sparse "
    return f"{sparse}{_word(tensor.dtype)}"


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def describe_integers(workload: Workload, batch: Batch, model: nn.Module) -> str:
    """Sentence on the ranges of integer tensors, and how many outputs the model's last layer has."""
    whole = [(f"tensor {i} of the training data", t) for i, t in enumerate(workload.tensors)]
    ranges = [
        f"{name} runs from {int(codes.min())} to {int(codes.max())}"
        for name, t in whole or list(named_tensors(batch))
        if (codes := comparable(t)) is not None and codes.numel()
    ]
    last = outputs_of(model)
    outputs = f"; the model's last layer has {last} outputs (0 to {last - 1})" if last is not None else ""
    return ", ".join(ranges) + outputs


def outputs_of(model: nn.Module) -> int | None:
    """How many outputs the model's last linear layer has; `None` where it has none."""
    found: list[Any] = [getattr(module, "out_features", None) for module in model.modules()]
    return next((width for width in reversed(found) if isinstance(width, int)), None)
