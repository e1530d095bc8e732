"""A task that goes to another process by its name and settings, and is loaded there as the command loaded it here."""

from __future__ import annotations

import contextlib
import functools
import pickle
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...hardware.device import pick
from ...tasks.loading import LoadedTask, load_task
from ...tasks.workload import Workload

__all__ = ["ReloadableTask", "one_thread"]


@dataclass(frozen=True, kw_only=True)
class ReloadableTask:
    """A loaded task on its device; unpickled in another process it is loaded again, once.

    Pickling raises `PicklingError` for a task that was made in Python; unpickling raises `ValueError` where the task's
    source or settings are no longer what they were.
    """

    loaded: LoadedTask
    workload: Workload

    def __reduce__(self) -> tuple[Any, ...]:
        if not self.loaded.spec:
            raise pickle.PicklingError(f"{self.loaded.name} was made in Python and cannot be loaded again")
        order = _Order(
            folder=str(Path.cwd()),
            spec=self.loaded.spec,
            given=self.loaded.given,
            settings=self.loaded.settings,
            source_sha256=self.loaded.source_sha256,
            device=str(self.workload.device.torch_device),
            independent=self.workload.independent,
        )
        return _loaded_again, (pickle.dumps(order),)


@dataclass(frozen=True, kw_only=True)
class _Order:
    """What another process needs to load a task again."""

    folder: str
    spec: str
    given: Sequence[str] | Mapping[str, Any]
    settings: Mapping[str, Any]
    source_sha256: str
    device: str
    independent: bool


@functools.lru_cache(maxsize=1)
def _loaded_again(pickled: bytes) -> ReloadableTask:
    """The task of an order, refused where its source has changed."""
    order: _Order = pickle.loads(pickled)
    with contextlib.chdir(order.folder):
        loaded = load_task(order.spec, order.given)
        if (loaded.settings, loaded.source_sha256) != (order.settings, order.source_sha256):
            raise ValueError(f"{order.spec} has changed since it was loaded")
        workload = Workload(loaded.task, name=loaded.name, settings=loaded.settings, device=pick(order.device))
    workload.independent = order.independent
    return ReloadableTask(loaded=loaded, workload=workload)


@contextlib.contextmanager
def one_thread(workload: Workload) -> Generator[None]:
    """Inside, torch computes on one thread, where the task is on the CPU: sums do not depend on how they are split."""
    before = torch.get_num_threads()
    if workload.device.torch_device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
