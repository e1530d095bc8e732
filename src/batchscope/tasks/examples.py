"""Training examples of a task: what `train_data()` returns, in which order it comes, and what is held back of it."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from ..errors import TaskError
from ..hardware.random_state import preserved_random_state
from ..hardware.time_limit import NO_LIMIT, TimeLimit
from .batches import subset
from .loader import refuse_loader
from .map_style import map_style
from .protocol import Task
from .samplers import TaskSampler
from .streams import LARGEST_BATCH, first_examples
from .user_code import explained

__all__ = ["Examples", "examples_of", "made_data"]

_HELD_BACK_SHARE = 0.1
_HELD_BACK_AT_MOST = 5000


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Training examples as they were made ready.

    Attributes:
        data: map-style; of a stream its first examples.
        epoch: how many there are in an epoch; `None`: training data are a stream.
        stream: as it was first made; `None`: they are none.
        held_back: taken off to evaluate on, where the task has no `evaluate`.
        numbers: of those that are left, then of those held back, in what `train_data()` returned; `None`: as they come.
        sampler: the task's, if it has one.
        example_s: seconds for a stream to yield an example; 0 for other data.
        opening_s: seconds until the first one came; 0 for other data.
        notes: what a reader should know of them.
    """

    data: Dataset[Any]
    epoch: int | None
    stream: IterableDataset[Any] | None = None
    held_back: Dataset[Any] | None = None
    numbers: tuple[Tensor, Tensor] | None = None
    sampler: TaskSampler | None = None
    example_s: float = 0.0
    opening_s: float = 0.0
    notes: tuple[str, ...] = ()


def made_data(task: Task, seed: int) -> Any:
    """What a task's `train_data()` returns, the generators seeded for the call.

    Raises:
        TaskError: it fails, or returns what loads batches.
    """
    with preserved_random_state(seed), explained("train_data()"):
        data = task.train_data()
    refuse_loader(data)
    return data


def examples_of(task: Task, until: TimeLimit = NO_LIMIT) -> Examples:
    """The training examples of a task.

    Raises:
        OutOfTime: the first examples of a stream did not come in time.
        TaskError: they cannot be used, or there are too few; the sampler does not fit them; a stream has no `evaluate`
            beside it.
    """
    data, evaluates = made_data(task, 0), getattr(task, "evaluate", None) is not None
    sampler = getattr(task, "sampler", None)
    if isinstance(data, IterableDataset):
        if sampler is not None:
            raise TaskError(
                "the task has a sampler, and its train_data() is a stream, which comes in its own order; leave sampler "
                "out, or return a list of examples"
            )
        return _of_stream(cast("IterableDataset[Any]", data), evaluates, until)
    data = map_style(data)
    examples, held_back, position, numbers = len(cast(Sized, data)), None, None, None
    if not evaluates:
        data, held_back, position, numbers = _hold_back(data)
    rest = len(cast(Sized, data))
    if sampler is None:
        return Examples(data=data, epoch=rest, held_back=held_back, numbers=numbers)
    ordered = TaskSampler(make=sampler, examples=examples, position=position)
    epoch = len(ordered.order(0))
    note = (
        f"the task's sampler orders the examples: an epoch is the {epoch} that it yields of {rest}, and a batch is a "
        "consecutive stretch of them, so that what a batch is made of depends on the batch size"
    )
    return Examples(data=data, epoch=epoch, held_back=held_back, numbers=numbers, sampler=ordered, notes=(note,))


def _of_stream(stream: IterableDataset[Any], evaluates: bool, until: TimeLimit) -> Examples:
    if not evaluates:
        raise TaskError(
            f"train_data() is a stream ({type(stream).__name__}), of which no validation split can be held back: give "
            "the task an evaluate(model) method that returns for example {'val_loss': ...} (or val=... in "
            "batchscope.task)"
        )
    with preserved_random_state(0):
        first = first_examples(stream, until=until)
    note = (
        "train_data() is a stream: there are no epochs, each run begins it anew, and batch sizes of up to "
        f"{LARGEST_BATCH} are considered (--max-batch-size sets another bound)"
    )
    data = cast("Dataset[Any]", first.examples)
    times: dict[str, Any] = {"example_s": first.seconds, "opening_s": first.opening_s}
    return Examples(data=data, epoch=None, stream=stream, **times, notes=(note,))


def _hold_back(data: Dataset[Any]) -> tuple[Dataset[Any], Dataset[Any], Tensor, tuple[Tensor, Tensor]]:
    """Training examples, those held back, where each stands among the former (-1: the latter), numbers of both."""
    examples = len(cast(Sized, data))
    held = max(1, min(_HELD_BACK_AT_MOST, round(examples * _HELD_BACK_SHARE)))
    if examples - held < 2:
        raise TaskError(
            f"train_data() has {examples} examples; without evaluate() one of them is held back, and too few are left: "
            "give the task an evaluate(model) method, or more examples"
        )
    order = torch.randperm(examples, generator=torch.Generator().manual_seed(0))
    position = torch.full((examples,), -1)
    position[order[held:]] = torch.arange(examples - held)
    numbers = order[held:], order[:held]
    return subset(data, numbers[0]), subset(data, numbers[1]), position, numbers
