"""Map-style training data: what can be taken for a set of single examples, and what to return in place of the rest."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from ..errors import TaskError
from .user_code import explained

__all__ = ["map_style"]

_MOST = 2**31
"""Examples of which an order is drawn: the indices of more take over 16 GB."""
_MOST_COLUMNS = 8
_STREAM = "an IterableDataset (a class whose __iter__ begins anew each time)"


def map_style(data: Any) -> Dataset[Any]:
    """What `train_data()` returned, as a set of examples that are had by their index.

    Raises:
        TaskError: it is none; the message says what it is, and what to return.
    """
    _refuse_no_data(data)
    if isinstance(data, Mapping):
        _refuse_mapping(cast("Mapping[Any, Any]", data))
    elif isinstance(data, list | tuple):
        _refuse_columns(cast("Sequence[Any]", data))
    elif _is_table(data):
        raise TaskError(
            f"train_data() returned a {type(data).__name__}, a table of columns, whose [0] is no example; return "
            "torch.utils.data.TensorDataset(torch.tensor(table[INPUTS].to_numpy('float32')), "
            "torch.tensor(table[LABEL].to_numpy())), with the names of its columns"
        )
    _refuse_unsized(data)
    with explained("len(train_data())", "__len__ must return the number of examples, a whole number"):
        examples = len(data)
    if examples < 2:
        raise TaskError(f"train_data() has {examples} example{'s' if examples != 1 else ''}; at least 2 are needed")
    if examples > _MOST:
        raise TaskError(
            f"train_data() has {examples:.3g} examples, and the order of an epoch, 8 bytes an example, takes "
            f"{8 * examples / 1e9:.3g} GB; return {_STREAM}, or a part: torch.utils.data.Subset(data, range(10**6))"
        )
    _refuse_wrong_subset(data)
    return cast("Dataset[Any]", data)


def _refuse_no_data(data: Any) -> None:
    """Refuse what stands for data, or makes them, in the place of the data themselves."""
    if inspect.isclass(data):
        raise TaskError(
            f"train_data() returned the class {data.__name__}; return an object of it: {data.__name__}(...)"
        )
    if inspect.isroutine(data):
        name = getattr(data, "__name__", "function")
        raise TaskError(f"train_data() returned the function {name}, which makes data; call it: return list({name}())")
    if isinstance(data, str | bytes | os.PathLike):
        raise TaskError(
            f"train_data() returned {data!r}, a {type(data).__name__}, not examples: read them in train_data(), and "
            "return a data set, for example torch.utils.data.TensorDataset(x, y)"
        )


def _refuse_unsized(data: Any) -> None:
    """Refuse what has no length, or no examples by index."""
    by_index = any(callable(getattr(data, name, None)) for name in ("__getitem__", "__getitems__"))
    if by_index and not hasattr(data, "__len__"):
        raise TaskError(
            f"train_data() returned {type(data).__name__}, which has no __len__, and an epoch is as long as it says; "
            "give it `def __len__(self): return ...`, the number of its examples"
        )
    if not by_index or not hasattr(data, "__len__"):
        raise TaskError(
            f"train_data() returned {type(data).__name__}, which is neither a data set with __len__ and __getitem__ "
            f"nor {_STREAM}; where it fits into memory, return a list of its examples"
        )


def _refuse_mapping(data: Mapping[Any, Any]) -> None:
    """Refuse a mapping that has no examples by index."""
    examples = len(data)
    if examples and all(index in data for index in range(examples)):
        return
    keys = ", ".join(repr(key) for key in list(data)[:4]) + (", ..." if examples > 4 else "")
    held = f"train_data() returned a {type(data).__name__} ({keys}), not a list of examples"
    values = list(data.values())
    if values and all(isinstance(value, Dataset) for value in values):
        raise TaskError(f"{held}: return the data set of it that is trained on, such as data[{next(iter(data))!r}]")
    if (columns := _columns(values)) is not None:
        raise TaskError(
            f"{held}: its values are columns ({', '.join(columns)}); join them to examples: return "
            "torch.utils.data.StackDataset(**{name: torch.as_tensor(column) for name, column in data.items()})"
        )
    raise TaskError(f"{held}, which has them by the indices 0, 1, ...: return list(data.values()), if each is one")


def _refuse_columns(data: Sequence[Any]) -> None:
    """Refuse a tuple or list of whole columns, or of data sets."""
    what = f"train_data() returned a {type(data).__name__} of {len(data)}"
    if 0 < len(data) <= _MOST_COLUMNS and all(isinstance(part, Dataset) for part in data):
        raise TaskError(
            f"{what} data sets, not of examples: return the one that is trained on; the one to validate on goes into "
            "evaluate(model), or val=... of batchscope.task"
        )
    columns = _columns(data)
    alike = isinstance(data, list) and columns is not None and len(set(map(_kind_of_column, data))) == 1
    if columns is None or alike:
        return
    raise TaskError(
        f"{what} columns ({', '.join(columns)}), not a list of examples; join them: return "
        f"{_tensor_dataset(data, [f'data[{i}]' for i in range(len(data))])}"
    )


def _columns(values: Sequence[Any]) -> list[str] | None:
    """Columns in words, where the values are some: at most eight, each with an entry for each of the same examples."""
    if not 2 <= len(values) <= _MOST_COLUMNS or not all(_is_column(value) for value in values):
        return None
    lengths = {len(value) for value in values}
    if len(lengths) != 1 or lengths.pop() <= len(values):
        return None
    return [
        f"{type(value).__name__} of shape {tuple(value.shape)}"
        if isinstance(value, Tensor | np.ndarray)
        else f"{type(value).__name__} of {len(value)}"
        for value in values
    ]


def _is_column(value: Any) -> bool:
    return isinstance(value, list | tuple) or (isinstance(value, Tensor | np.ndarray) and value.ndim > 0)


def _kind_of_column(value: Any) -> tuple[Any, ...]:
    """What two examples of a list, which can be joined to a batch, have in common, and columns rarely."""
    if isinstance(value, Tensor | np.ndarray):
        return type(value).__name__, tuple(value.shape)
    first = cast("Sequence[Any]", value)[0]
    return type(value).__name__, len(first) if isinstance(first, list | tuple) else type(first).__name__


def _tensor_dataset(values: Sequence[Any], names: Sequence[str]) -> str:
    """Python that joins columns."""
    made = [
        name if isinstance(value, Tensor) else f"torch.as_tensor({name})"
        for name, value in zip(names, values, strict=True)
    ]
    return f"torch.utils.data.TensorDataset({', '.join(made)})"


def _is_table(data: Any) -> bool:
    """Whether it is a table of pandas, polars or the like, by what such tables have."""
    return hasattr(data, "columns") and (hasattr(data, "iloc") or hasattr(data, "to_numpy"))


def _refuse_wrong_subset(data: Any) -> None:
    """Refuse a `Subset` whose indices are a mask, or point beyond its data."""
    if type(data) is not Subset:
        return
    part = cast("Subset[Any]", data)
    try:
        indices = torch.as_tensor(part.indices)
        most = len(cast(Any, part.dataset))
    except (TypeError, ValueError, RuntimeError):
        return  # of a data set with other keys, or of no length, whose own errors tell
    if indices.dtype == torch.bool:
        raise TaskError(
            "train_data() returned a Subset whose indices are True and False, and it takes positions: "
            "Subset(data, torch.as_tensor(mask).nonzero().flatten().tolist())"
        )
    if int(indices.min()) < -most or int(indices.max()) >= most:
        raise TaskError(
            f"train_data() returned a Subset whose indices run from {int(indices.min())} to {int(indices.max())}, and "
            f"its data set has {most} examples, 0 to {most - 1}"
        )
    _refuse_wrong_subset(part.dataset)
