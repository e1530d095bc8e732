"""Loader of a task's examples: the options that it has, how long a batch may take, how its workers begin and end.

Workers end with the stream that they load for, at once. A process that is forked while a stream is open inherits a copy
of it; the copy is kept until that process is gone, because only the parent may end the workers.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sized
from contextlib import contextmanager
from typing import Any, cast
from weakref import WeakSet

import torch
from torch.utils.data import DataLoader, Dataset

from ..errors import TaskError
from ..hardware.device import cores
from ..wording import duration
from .batches import MicroBatchSampler
from .protocol import Batch
from .user_code import explained

__all__ = ["checked_options", "example_seconds", "open_stream", "workers_for"]

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
_CHEAP_S = 2e-4
"""Seconds to load an example, below which sending it from a worker costs as much (about 0.1 ms)."""
_MOST_WORKERS = 4
_GENEROUS = 20.0
"""Times the measured loading time of a batch, after which a worker counts as hanging."""
_TIMED_OUT = "DataLoader timed out"

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
    return options


def example_seconds(data: Dataset[Any], collate: Callable[[list[Any]], Batch]) -> float:
    """Seconds to load an example in this process, by some of the first ones."""
    probe = min(_PROBED, len(cast(Sized, data)))
    with explained("collating examples of train_data()"):
        collate([data[0]])
        start = time.perf_counter()
        collate([data[i] for i in range(probe)])
        return (time.perf_counter() - start) / probe


def workers_for(example_s: float) -> int:
    """Number of loader workers where the task does not say it: none where sending costs more, else up to four."""
    return 0 if example_s < _CHEAP_S else min(_MOST_WORKERS, cores())


@contextmanager
def open_stream(
    data: Dataset[Any],
    sampler: MicroBatchSampler,
    *,
    collate: Callable[[list[Any]], Batch] | None,
    options: Mapping[str, Any],
    seed: int,
    batch_s: float,
    patience_s: float,
) -> Generator[Callable[[], Batch]]:
    """Open the stream of a run's batches; its workers are gone when the block is left.

    Args:
        data: map-style.
        sampler: indices of one batch after another.
        collate: joins examples; default: torch's.
        options: further arguments of `DataLoader`; a `timeout` among them stands.
        seed: of what workers draw.
        batch_s: seconds that loading one batch is expected to take in one process.
        patience_s: how long a batch of workers may take at least before they count as hanging.

    Yields:
        A function that returns the next batch. It raises `TaskError` where a worker died, or hangs: for 20 times
        `batch_s` and `patience_s` at least.
    """
    options, owner = dict(options), os.getpid()
    if options.get("num_workers") and not options.get("timeout"):
        options["timeout"] = math.ceil(max(patience_s, _GENEROUS * batch_s))
    loader = DataLoader(
        data, batch_sampler=sampler, collate_fn=collate, generator=torch.Generator().manual_seed(seed), **options
    )
    stream = iter(loader)
    _open.add(stream)

    def next_batch() -> Batch:
        try:
            return next(stream)
        except RuntimeError as error:
            if _TIMED_OUT not in str(error):
                raise
            waited = options["timeout"]
            raise TaskError(
                f"a batch of train_data() did not come from its {options['num_workers']} loader workers within "
                f"{duration(waited)}, though one was expected to take {duration(batch_s)} to load: an example hangs "
                "(a lock, a network, a file), or takes far longer than others; loader_options with num_workers=0 "
                "shows where, and a longer timeout there waits longer"
            ) from error

    try:
        yield next_batch
    finally:
        end = getattr(stream, "_shutdown_workers", None)
        if end is not None and os.getpid() == owner:
            end()
        _open.discard(stream)
