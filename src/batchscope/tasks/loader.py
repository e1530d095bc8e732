"""Loader of a task's examples: the options that it has, how long a batch may take, how its workers begin and end.

Workers end with the stream that they load for, at once. A process that is forked while a stream is open inherits a copy
of it; the copy is kept until that process is gone, because only the parent may end the workers.
"""

from __future__ import annotations

import io
import math
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.reduction import ForkingPickler
from typing import Any, cast
from weakref import WeakSet

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler, SequentialSampler, default_collate

from ..errors import TaskError
from ..hardware.device import cores
from ..hardware.time_limit import NO_LIMIT, TimeLimit
from ..wording import duration
from .batches import MicroBatchSampler
from .collation import Collation
from .loader_workers import SeededData, begun_as_theirs, end_workers, forget_deaths, started
from .patience import GENEROUS, patience, waiting_for
from .protocol import Batch
from .user_code import explained

__all__ = [
    "checked_options",
    "example_seconds",
    "index_loader",
    "open_loader",
    "refuse_loader",
    "refuse_validation_loader",
    "start_method",
    "why_not_sent",
    "workers_for",
]

_OURS = (
    "dataset",
    "batch_size",
    "shuffle",
    "sampler",
    "batch_sampler",
    "drop_last",
    "collate_fn",
    "generator",
)
"""Arguments of `DataLoader` that follow from the batch size, the seed and the task's other members."""
_PROBED = 16
_SHARE_FOR_EXAMPLES = 0.05
_CHEAP_S = 2e-4
"""Seconds to load an example, below which sending it from a worker costs as much (about 0.1 ms)."""
_MOST_WORKERS = 4
_TIMED_OUT = "DataLoader timed out"
_HERE = "a batch of train_data()"
"""What is waited for where this process loads."""

_open: WeakSet[Iterator[Batch]] = WeakSet()
_inherited: list[Iterator[Batch]] = []
os.register_at_fork(after_in_child=lambda: _inherited.extend(_open))


def checked_options(
    task: Any, data: Dataset[Any], collate: Callable[[list[Any]], Batch] | None
) -> dict[str, Any] | None:
    """Options that the task gives for its loader, tried on a `DataLoader`; `None` where it gives none.

    Raises:
        TaskError: they are no mapping, name what is not the task's to set, or `DataLoader` refuses them.
    """
    options = getattr(task, "loader_options", None)
    if options is None:
        return None
    if not isinstance(options, Mapping):
        raise TaskError(
            f"loader_options is {options!r}; it must be a dict of arguments of DataLoader, for example "
            "{'num_workers': 2, 'persistent_workers': True}"
        )
    options = {str(key): value for key, value in cast(Mapping[Any, Any], options).items()}
    if ours := [name for name in _OURS if name in options]:
        raise TaskError(
            f"loader_options sets {', '.join(ours)}: batches and their order are what is searched here; leave it out "
            "(examples are joined by the task's member collate), and keep num_workers, pin_memory, prefetch_factor, "
            "persistent_workers"
        )
    with explained(f"DataLoader(train_data(), **{options})", "change loader_options"):
        DataLoader(data, collate_fn=collate, **options)
    if options.get("num_workers") and (why := why_not_sent(data, collate, options)):
        raise TaskError(
            f"loader_options asks for {options['num_workers']} loader workers, and {why}; define what they need "
            "(data set, transforms, collate) at the top level of a file, or leave num_workers out"
        )
    return options


def refuse_loader(data: Any) -> None:
    """Refuse what loads batches in the place of training data.

    Raises:
        TaskError: it is a `DataLoader`, or has one (`LightningDataModule`); the message says what to return, and what
            becomes of its other arguments.
    """
    if isinstance(data, DataLoader):
        loader = cast("DataLoader[Any]", data)
        beside = [] if loader.collate_fn is default_collate else ["its collate_fn as the task's collate"]
        if loader.num_workers:
            beside.append(f"its workers as loader_options={{'num_workers': {loader.num_workers}}}")
        if not isinstance(loader.sampler, RandomSampler | SequentialSampler):
            beside.append(f"its {type(loader.sampler).__name__} as sampler(seed), if it orders the examples")
        more = f"; give {', '.join(beside)}" if beside else ""
        raise TaskError(
            "train_data() returned a DataLoader, and batches are cut here, because batch size is what varies: return "
            f"its data set, loader.dataset{more}"
        )
    if hasattr(data, "train_dataloader"):
        raise TaskError(
            f"train_data() returned {type(data).__name__}, which makes loaders, and batches are cut here, because "
            "batch size is what varies: return the data set of its loader (after prepare_data() and setup('fit'), "
            "train_dataloader().dataset); give that loader's collate_fn as the task's collate, and its workers as "
            "loader_options={'num_workers': ...}"
        )


def refuse_validation_loader(data: Any) -> None:
    """Refuse a loader in the place of validation data, which are cut into batches here.

    Raises:
        TaskError: it is one.
    """
    if not isinstance(data, DataLoader):
        return
    loader = cast("DataLoader[Any]", data)
    collate = "" if loader.collate_fn is default_collate else ", and its collate_fn as collate"
    raise TaskError(
        f"val is a DataLoader, and batches of it are cut here: give its data set, val=loader.dataset{collate}; or "
        "measure on the loader yourself, in evaluate=lambda model: {'val_loss': ...}"
    )


class _Nowhere(io.RawIOBase):
    """A file that forgets what is written to it."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        return len(data)


def start_method(options: Mapping[str, Any]) -> str:
    """How loader workers are started: `fork`, `spawn` or `forkserver`."""
    context = options.get("multiprocessing_context")
    if context is None:
        return multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    return context if isinstance(context, str) else context.get_start_method()


def why_not_sent(data: Any, collate: Any, options: Mapping[str, Any]) -> str:
    """Reason why loader workers cannot be given the data; empty where they can.

    Workers that are forked have them as they are. Others (the contexts `spawn` and `forkserver`) get a pickled copy,
    which is tried.
    """
    if (method := start_method(options)) == "fork":
        return ""
    try:
        ForkingPickler(cast(Any, _Nowhere())).dump((data, collate, options.get("worker_init_fn")))
    except Exception as error:
        raised = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return f"the data cannot be pickled for them, as the {method} context of multiprocessing needs ({raised})"
    return ""


def example_seconds(collation: Collation, indices: Tensor, until: TimeLimit = NO_LIMIT) -> float:
    """Seconds to load an example in this process, by the first of those at some indices (int64, one dimension).

    Where these would take more than a twentieth of the time that is left, by the very first alone.
    """
    probed = indices[:_PROBED].tolist()
    start = time.perf_counter()
    collation.batch(probed[:1])
    first_s = time.perf_counter() - start
    if len(probed) * first_s > _SHARE_FOR_EXAMPLES * until.left_s:
        return first_s
    start = time.perf_counter()
    collation.batch(probed)
    return (time.perf_counter() - start) / len(probed)


def workers_for(example_s: float) -> int:
    """Number of loader workers where the task does not say it: none where sending costs more, else up to four."""
    return 0 if example_s < _CHEAP_S else min(_MOST_WORKERS, cores())


def index_loader(
    data: Dataset[Any],
    sampler: MicroBatchSampler,
    collate: Callable[[list[Any]], Batch] | None,
    options: Mapping[str, Any],
    seed: int,
) -> DataLoader[Any]:
    """A loader of one micro-batch after another; `seed` is of what its workers draw."""
    how: dict[str, Any] = {**begun_as_theirs(options), "generator": torch.Generator().manual_seed(seed)}
    return DataLoader(SeededData(data, seed), batch_sampler=cast(Any, sampler), collate_fn=collate, **how)


@contextmanager
def open_loader(loader: DataLoader[Any], *, batch_s: float) -> Generator[Callable[[], Any]]:
    """Open a run's loader; its workers are gone when the block is left.

    Args:
        loader: endless; a timeout that it has stands, and whoever watches waits as long.
        batch_s: seconds that loading one batch is expected to take in one process.

    Yields:
        A function that returns the next batch. It raises `TaskError` where a worker died, or, without a watchdog
        (`step_timeout`), hangs.
    """
    owner = os.getpid()
    what = f"a batch of train_data() from its {loader.num_workers} loader workers" if loader.num_workers else _HERE
    expected_s = max(batch_s, loader.timeout / GENEROUS)
    if loader.num_workers and not loader.timeout and not patience().watched:
        loader.timeout = math.ceil(patience().limit_s(what, batch_s))
    stream = started(loader)

    def next_batch() -> Any:
        try:
            with waiting_for(what, expected_s):
                return next(stream)
        except Exception as error:
            if loader.num_workers and error.__traceback__ is not None:
                forget_deaths(stream)
                traceback.clear_frames(error.__traceback__.tb_next)  # torch's, one of which holds the error itself
            if not isinstance(error, RuntimeError) or _TIMED_OUT not in str(error):
                raise
            raise TaskError(
                f"a batch of train_data() did not come from its {loader.num_workers} loader workers within "
                f"{duration(loader.timeout)}, though one was expected to take {duration(batch_s)} to load: an example "
                "hangs (a lock, a network, a file), or takes far longer than others; loader_options with num_workers=0 "
                "shows where, and a longer timeout there waits longer"
            ) from error

    try:
        _open.add(stream)
        yield next_batch
    finally:
        if os.getpid() == owner:
            end_workers(stream)
        _open.discard(stream)
