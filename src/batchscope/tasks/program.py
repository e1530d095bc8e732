"""What a program that trains a task must know of it, read off the task itself."""

from __future__ import annotations

import enum
import inspect
import math
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from ..hardware.random_state import preserved_random_state
from ..store.records import LibraryArguments, TaskProgram
from ..wording import quoted
from .fresh_model import without_sizes
from .loading import LoadedTask
from .members import MEMBERS, autocast, place_of_loss, wants_model
from .protocol import Batch, Task
from .workload import Workload

__all__ = ["program_of"]

_DRAWN = 256
"""Examples over which their tokens are averaged."""
_AT_ONCE = 16
"""Of them in a batch, at most."""


def program_of(loaded: LoadedTask, workload: Workload, *, seed: int, largest_micro_batch: int) -> TaskProgram:
    """Look a task over for the program that trains it.

    Args:
        loaded: the task, and what it was loaded from.
        workload: the same task on its device.
        seed: of the runs.
        largest_micro_batch: no more examples are computed with at once.

    Raises:
        TaskError: the task failed on a batch.

    Cost: two models, one loss of at most 16 examples, and 256 examples are loaded where the task has `loss_weight`.
    """
    task = loaded.task
    optional = [member.name for member in MEMBERS if not member.required and member.name != "name"]
    members = tuple(name for name in optional if getattr(task, name, None) is not None)
    written = {key: _written(loaded.arguments[key]) for key in _given(loaded) if key in loaded.arguments}
    size = min(_AT_ONCE, largest_micro_batch)
    with preserved_random_state(seed):
        batches = _drawn(workload, size, seed, math.ceil(_DRAWN / size) if workload.loss_weight else 1)
        loss_at = _loss_at(workload, batches[0], seed)
        lazy = bool(without_sizes(task.model()))
        tokens = sum(map(workload.weight, batches)) / sum(map(workload.count, batches))
    library = getattr(task, "library", None)
    return TaskProgram(
        spec=loaded.spec,
        arguments={key: text for key, (text, _) in written.items()},
        imports=tuple(sorted({line for _, lines in written.values() for line in lines})),
        members=members,
        optimizer_takes_model=wants_model(task.optimizer),
        lazy=lazy,
        loss_at=loss_at,
        precision=workload.precision,
        ema_decay=workload.ema_decay,
        loading="stream" if workload.examples_in_epoch is None else "tensors" if workload.in_memory else "examples",
        loader_options=_chosen(task, workload),
        held_back=workload.held_back,
        seed=seed,
        device=str(workload.device.torch_device),
        tokens_per_example=tokens if workload.loss_weight else None,
        library=library if isinstance(library, LibraryArguments) else None,
    )


def _chosen(task: Task, workload: Workload) -> dict[str, Any]:
    """Loader options that are not the task's own."""
    own = cast("Mapping[str, Any]", getattr(task, "loader_options", None) or {})
    return {name: value for name, value in workload.loader_options.items() if name not in own or own[name] != value}


def _drawn(workload: Workload, size: int, seed: int, number: int) -> list[Batch]:
    stream = workload.micro_batches(size, 1, seed)
    try:
        return [next(stream)[0] for _ in range(number)]
    finally:
        stream.close()


def _loss_at(workload: Workload, batch: Batch, seed: int) -> str:
    """Where the scalar stands in what the task's `loss` returns, as Python."""
    model = workload.model(seed)
    with torch.no_grad(), autocast(workload.precision, workload.device):
        return place_of_loss(workload.task.loss(model, batch))


def _given(loaded: LoadedTask) -> list[str]:
    """Names of the settings that were given, in their order."""
    if isinstance(loaded.given, Mapping):
        return list(loaded.given)
    return [text.partition("=")[0].strip() for text in loaded.given]


def _written(value: Any) -> tuple[str, list[str]]:
    """A setting as a Python expression, and the import statements that it needs; `...` where it has to be filled in."""
    if isinstance(value, enum.Enum):
        kind = type(value)
        return f"{kind.__qualname__}.{value.name}", [_import_of(kind)]
    if value is None or isinstance(value, bool | int | float | str):
        return quoted(value), []
    if isinstance(value, Path):
        return f"Path({quoted(str(value))})", ["from pathlib import Path"]
    if isinstance(value, Mapping):
        items = cast(Mapping[Any, Any], value)
        return _joined("{{{}}}", [*items.values()], [f"{quoted(key)}: " for key in items])
    if isinstance(value, list):
        return _joined("[{}]", cast("list[Any]", value))
    if isinstance(value, tuple):
        items = cast("tuple[Any, ...]", value)
        return _joined("({},)" if len(items) == 1 else "({})", items)
    if inspect.isfunction(value) or inspect.isclass(value):
        return value.__qualname__, [_import_of(value)]
    return "...", []


def _import_of(named: type | types.FunctionType) -> str:
    return f"from {named.__module__} import {named.__qualname__.partition('.')[0]}"


def _joined(form: str, items: Sequence[Any], names: Sequence[str] = ()) -> tuple[str, list[str]]:
    parts = [_written(item) for item in items]
    texts = [f"{name}{text}" for name, (text, _) in zip(names or [""] * len(parts), parts, strict=True)]
    return form.format(", ".join(texts)), [line for _, lines in parts for line in lines]
