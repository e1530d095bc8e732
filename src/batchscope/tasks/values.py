"""Values in an example or a batch: its tensors by name, which of them hold NaN or inf, and rows taken out of it."""

from __future__ import annotations

import copy
import dataclasses
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from .protocol import Batch

__all__ = ["NotFinite", "in_training_data", "member_replaced", "named_values", "not_finite", "rows_of"]

_NAMED = 5
"""Rows that a sentence names at most."""


def named_values(value: Any, name: str = "batch") -> Iterator[tuple[str, Any]]:
    """What a batch or an example is made of, down to tensors and numbers, with the expression that reaches each."""
    if isinstance(value, Mapping):
        for key, member in cast("Mapping[Any, Any]", value).items():
            yield from named_values(member, f"{name}[{key!r}]")
    elif isinstance(value, list | tuple):
        fields: Any = getattr(cast(Any, value), "_fields", None)
        for i, member in enumerate(cast("Sequence[Any]", value)):
            yield from named_values(member, f"{name}.{fields[i]}" if fields else f"{name}[{i}]")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from named_values(getattr(value, field.name), f"{name}.{field.name}")
    else:
        yield name, value


@dataclass(frozen=True, kw_only=True)
class NotFinite:
    """A tensor, array or number that holds NaN or inf.

    Attributes:
        name: expression that reaches it.
        shape: of it.
        nan: how many NaN it holds.
        inf: how many infinite values.
        rows: indices along its first dimension of those that hold one.
    """

    name: str
    shape: tuple[int, ...]
    nan: int
    inf: int
    rows: tuple[int, ...]

    @property
    def counted(self) -> str:
        """How many of each.

        >>> NotFinite(name="x", shape=(4, 2), nan=2, inf=1, rows=(0, 3)).counted
        '2 NaN and 1 inf'
        """
        return " and ".join(f"{n:,} {what}" for n, what in ((self.nan, "NaN"), (self.inf, "inf")) if n)

    def of_examples(self, number_of: Callable[[int], int] | None = None) -> str:
        """Sentence that counts the rows as examples.

        Args:
            number_of: number in the training data of the example in a row; `None`: not known.

        >>> NotFinite(name="x", shape=(4, 2), nan=2, inf=1, rows=(0, 3)).of_examples(lambda row: row + 7)
        'x (shape (4, 2)) holds 2 NaN and 1 inf in 2 of 4 examples (7 and 10 of train_data(), counted from 0)'
        """
        said = f"{self.name} (shape {self.shape}) holds {self.counted} in {len(self.rows)} of {self.shape[0]} examples"
        return said if number_of is None else f"{said} ({in_training_data([*map(number_of, self.rows)])})"

    @property
    def alone(self) -> str:
        """Sentence on a value of one example.

        >>> NotFinite(name="example['x']", shape=(6,), nan=1, inf=0, rows=(2,)).alone
        "1 NaN in example['x'] (shape (6,))"
        """
        return f"{self.counted} in {self.name}" + (f" (shape {self.shape})" if self.shape else "")


def in_training_data(numbers: Sequence[int], data: str = "train_data()") -> str:
    """Some examples by their number in the training data, or in others by their name.

    >>> in_training_data([7]), in_training_data([3, 1, 4, 1, 5, 9])
    ('7 of train_data(), counted from 0', '3, 1, 4, 1, 5 and others of train_data(), counted from 0')
    """
    named, more = [str(n) for n in numbers[:_NAMED]], len(numbers) > _NAMED
    last = "others" if more else named.pop()
    return f"{', '.join(named)}{' and ' if named else ''}{last} of {data}, counted from 0"


def not_finite(value: Any, name: str = "batch") -> list[NotFinite]:
    """Tensors, arrays and numbers in a batch or an example that hold NaN or inf.

    Cost: a sum over each of them; a value that is looked at more closely only where its sum is not finite.
    """
    return [found for at, each in named_values(value, name) if (found := _looked_at(each, at)) is not None]


def _looked_at(value: Any, name: str) -> NotFinite | None:
    tensor = _tensor(value)
    if tensor is None or tensor.numel() == 0 or _sum_is_finite(tensor):
        return None
    nan, inf = tensor.isnan(), tensor.isinf()
    rows = (nan | inf).reshape(len(tensor), -1).any(1).nonzero().flatten() if tensor.ndim else torch.zeros(0)
    counts = int(nan.sum()), int(inf.sum())
    if not any(counts):
        return None
    return NotFinite(
        name=name, shape=tuple(tensor.shape), nan=counts[0], inf=counts[1], rows=tuple(int(r) for r in rows.tolist())
    )


def _sum_is_finite(tensor: Tensor) -> bool:
    """Whether a sum says that all numbers are finite: NaN and inf never leave one; a large sum may overflow."""
    total = tensor.sum(dtype=torch.promote_types(tensor.dtype, torch.float32))
    return bool(total.isfinite())


def _tensor(value: Any) -> Tensor | None:
    """A value as a dense tensor that can hold NaN; `None` where it cannot."""
    if isinstance(value, float | np.floating):
        return torch.tensor(float(value))
    if isinstance(value, np.ndarray):
        array = cast("np.ndarray[Any, Any]", value)
        if array.dtype.kind not in "fc":
            return None
        return torch.tensor(array.astype(np.complex128 if array.dtype.kind == "c" else np.float64))
    if not isinstance(value, Tensor) or not (value.is_floating_point() or value.is_complex()):
        return None
    tensor = value.detach()
    if tensor.is_nested:
        tensor = tensor.values() if tensor.layout is torch.jagged else tensor.to_padded_tensor(0.0)
    elif tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    return tensor.float() if tensor.element_size() == 1 else tensor


def rows_of(batch: Batch, rows: Sequence[int], count: int) -> Batch | None:
    """Some examples of a batch, as a batch; `None` where it is not made of members with one entry an example.

    Args:
        batch: tensors, dense or in coordinates (sparse), or mappings, lists, tuples and data classes of them.
        rows: indices of the examples in it; one may come several times.
        count: examples in the batch.

    >>> rows_of({"x": torch.tensor([5, 6, 7]), "name": ["a", "b", "c"]}, [2, 2], 3)
    {'x': tensor([7, 7]), 'name': ['c', 'c']}
    """
    if isinstance(batch, Tensor):
        if batch.layout not in (torch.strided, torch.sparse_coo) or batch.is_nested:
            return None
        if batch.ndim == 0 or batch.shape[0] != count:
            return None
        return batch.index_select(0, torch.tensor(rows, device=batch.device))
    if isinstance(batch, Mapping):
        mapping = cast("Mapping[Any, Any]", batch)
        parts = [rows_of(member, rows, count) for member in mapping.values()]
        return None if any(part is None for part in parts) else dict(zip(mapping, parts, strict=True))
    if isinstance(batch, list | tuple):
        members = list(cast("Sequence[Any]", batch))
        if not any(isinstance(member, Tensor | Mapping | list | tuple) for member in members):
            return [members[row] for row in rows] if len(members) == count else None
        parts = [rows_of(member, rows, count) for member in members]
        if any(part is None for part in parts):
            return None
        kind: Any = type(cast(Any, batch))
        return kind(*parts) if hasattr(kind, "_fields") else kind(parts)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        taken = {
            field.name: rows_of(getattr(batch, field.name), rows, count)
            for field in dataclasses.fields(batch)
            if field.init
        }
        return None if any(part is None for part in taken.values()) else dataclasses.replace(batch, **taken)
    return None


def member_replaced(batch: Batch, member: Tensor, by: Tensor) -> Batch:
    """A batch with another tensor in the place of one that `named_values` reaches; the given batch is left as it is.

    >>> x = torch.tensor([5, 6])
    >>> member_replaced({"x": x, "name": ["a", "b"]}, x, x + 1)
    {'x': tensor([6, 7]), 'name': ['a', 'b']}
    """
    if batch is member:
        return by
    if isinstance(batch, Mapping):
        mapping = cast("Mapping[Any, Any]", batch)
        made: Any = copy.copy(mapping) if isinstance(mapping, dict | UserDict) else dict(mapping)
        for key, value in mapping.items():
            made[key] = member_replaced(value, member, by)
        return made
    if isinstance(batch, list | tuple):
        parts = [member_replaced(value, member, by) for value in cast("Sequence[Any]", batch)]
        kind: Any = type(cast(Any, batch))
        return kind(*parts) if hasattr(kind, "_fields") else kind(parts)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        made = copy.copy(batch)
        for field in dataclasses.fields(batch):  # of a frozen one too
            object.__setattr__(made, field.name, member_replaced(getattr(batch, field.name), member, by))
        return made
    return batch
