"""A real run of the training loop in which everything is counted: passes, batches, updates, uses of each example.

What batch size, iteration and epoch mean is not computed from one another here; each is counted where it happens:

    batch       what the loop draws for one step
    pass        one forward pass of the task's loss whose backward pass reached it again
    update      one step of the optimizer
    use         one training example in one pass, known by an index that travels beside it

Batches are cut from a stream of seeded permutations without gaps (`workload.index_stream`): each has exactly the
configured size, the last of an epoch may hold the first examples of the next, and none is partial. E epochs of N
examples at batch size B are round(E N / B) steps, as in a study; where E N / B is not whole, some examples are used
once more or once less than E times, and a single epoch may miss some.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Dataset, StackDataset, TensorDataset, default_collate

from ..errors import UsageError
from ..hardware.random_state import preserved_random_state
from ..store.records import Row, RunConfig
from ..tasks.protocol import Batch
from ..tasks.workload import Workload
from .loop import train

__all__ = ["CountedRun", "count_run"]


@dataclass(frozen=True, kw_only=True)
class CountedRun:
    """What was counted in one run; all but the first three and `examples_in_set` were seen, not computed."""

    batch_size: int
    """As configured."""
    accumulate: int
    """Micro-batches of a step, as configured."""
    epochs: int
    """That were counted: those asked for, or as many as `most_steps` allows."""
    examples_in_set: int
    updates: int
    """Steps of the optimizer."""
    batches: int
    """Drawn by the loop."""
    passes: int
    """Forward and backward passes."""
    smallest_batch: int
    """The fewest examples that went forward and backward between two updates."""
    largest_batch: int
    smallest_pass: int
    """The fewest examples of one pass."""
    largest_pass: int
    examples_seen: int
    """Over all passes, an example counted each time."""
    least_uses: int
    """Of the example that was used the fewest times; both are `epochs` where `whole_epochs`."""
    most_uses: int
    whole_epochs: bool
    """Whether `examples_seen` is `epochs` times `examples_in_set`; else uses differ by one (see the module)."""
    updates_in_first_epoch: float | None
    """Examples seen when each had been used once, over the batch size: a batch that ends in the next epoch counts in
    part. `None`: the run was over before."""
    updates_until_all_seen: int | None
    """The same in whole updates, rounded up. `None`: the run was over before."""
    shortened: str
    """Why fewer epochs were counted than asked for; empty where all were."""


def count_run(
    workload: Workload,
    *,
    batch_size: int,
    epochs: int,
    lr: float,
    accumulate: int = 1,
    seed: int = 0,
    most_steps: int = 3000,
) -> CountedRun:
    """Train a fresh model for some epochs, and count in passing.

    The task's own model, loss, optimizer and data are used, and its loss gets the batches that it would get otherwise.
    It is not evaluated, and a sampler of the task does not order its examples: each counts once an epoch.

    Args:
        workload: the task on its device.
        batch_size: examples of a step.
        epochs: passes through the training set, at least 1.
        lr: constant; counts do not depend on it.
        accumulate: equal micro-batches of a step, each with a pass of its own.
        seed: of the weights and of the order of the examples; the caller's generators are left as they were.
        most_steps: where the epochs take more, fewer are counted; where not even one fits, the run is cut there.

    Raises:
        UsageError: a number makes no sense, or the batch is larger than the training set.
        TaskError: the task's loss failed.
        OutOfMemory: a step did not fit.

    Cost: round(epochs · N / batch_size) training steps, at most `most_steps`, and about 100 bytes an example.

    Valid for any task. Where examples come from a `DataLoader`, its workers hand over an index with each.

    Example:
        >>> from batchscope.tasks.loading import load_task
        >>> run = count_run(Workload(load_task("digits").task), batch_size=479, epochs=2, lr=0.1)
        >>> run.examples_in_set, run.updates, run.updates_in_first_epoch, run.examples_seen, run.most_uses
        (1437, 6, 3.0, 2874, 2)
    """
    workload.refuse_stream()
    examples = workload.examples
    if min(batch_size, epochs, accumulate, most_steps) < 1 or batch_size % accumulate or batch_size > examples:
        raise UsageError(
            f"a batch size of {batch_size} in {accumulate} parts, {epochs} epochs of {examples} examples, at most "
            f"{most_steps} steps: each at least 1, the parts equal, and the batch no larger than the training set"
        )
    counted, steps, shortened = _length(epochs, examples, batch_size, most_steps)
    counters = _Counters(examples)
    with preserved_random_state(seed):
        watched = _CountedWorkload(workload, counters)
    config = RunConfig(
        task=workload.name,
        batch_size=batch_size,
        micro_batch_size=batch_size // accumulate,
        grad_accum_steps=accumulate,
        lr=lr,
        seed=seed,
        max_steps=steps,
        evaluation_epochs=float(counted + 1),
        purpose="count",
    )
    train(watched, config, observers=[counters])
    seen, batches = sum(counters.passes), counters.between_updates
    return CountedRun(
        batch_size=batch_size,
        accumulate=accumulate,
        epochs=counted,
        examples_in_set=examples,
        updates=len(batches),
        batches=counters.batches,
        passes=len(counters.passes),
        smallest_batch=min(batches),
        largest_batch=max(batches),
        smallest_pass=min(counters.passes),
        largest_pass=max(counters.passes),
        examples_seen=seen,
        least_uses=int(counters.uses.min()),
        most_uses=int(counters.uses.max()),
        whole_epochs=seen == counted * examples,
        updates_in_first_epoch=None if counters.all_seen is None else counters.all_seen / batch_size,
        updates_until_all_seen=counters.all_seen_update,
        shortened=shortened,
    )


def _length(epochs: int, examples: int, batch_size: int, most_steps: int) -> tuple[int, int, str]:
    """The epochs to count, their steps, and why they are fewer than asked for."""
    steps, fewer = max(1, round(epochs * examples / batch_size)), most_steps * batch_size // examples
    if steps <= most_steps:
        return epochs, steps, ""
    asked = f"{epochs} epoch{'s are' if epochs > 1 else ' is'} {steps} steps, more than {most_steps}"
    if fewer == 0:
        return 1, most_steps, f"{asked}: the run was cut after {most_steps} steps, in its first epoch"
    return fewer, round(fewer * examples / batch_size), f"{asked}: {fewer} were counted"


class _Counters:
    """Counts one run, as its observer and from inside its loss."""

    def __init__(self, examples: int) -> None:
        self.model: nn.Module | None = None
        """Which is trained; what a look for a fault does with another one does not count."""
        self.batches = 0
        self.passes: list[int] = []
        self.between_updates: list[int] = []
        self.uses = torch.zeros(examples, dtype=torch.int64)
        self.all_seen: int | None = None
        self.all_seen_update: int | None = None
        """Examples seen, and the number of the update under way, when each example had been used once."""
        self._unseen = set(range(examples))
        self._since_update = 0

    def passed(self, indices: Tensor) -> None:
        """A backward pass has reached the loss of these examples."""
        chosen = indices.cpu()
        if self._unseen:
            for position, example in enumerate(chosen.tolist(), start=1):
                self._unseen.discard(example)
                if not self._unseen:
                    self.all_seen, self.all_seen_update = sum(self.passes) + position, len(self.between_updates) + 1
                    break
        self.uses.index_add_(0, chosen, torch.ones_like(chosen))
        self.passes.append(len(chosen))
        self._since_update += len(chosen)

    def begin(self, model: nn.Module, optimizer: Optimizer) -> None:
        """The run begins."""
        self.model = model

    def after_update(self, step: int) -> Row | None:
        """The optimizer has made a step."""
        self.between_updates.append(self._since_update)
        self._since_update = 0

    def at_evaluation(self, step: int) -> Row | None: ...


class _CountedWorkload(Workload):
    """The task of a workload, its batches counted as they are drawn."""

    def __init__(self, workload: Workload, counters: _Counters) -> None:
        super().__init__(_NumberedTask(workload, counters), name=workload.name, device=workload.device)
        self.loader_workers = workload.loader_workers
        self._counters = counters

    def micro_batches(
        self, batch_size: int, parts: int | Callable[[int], int], seed: int, skip: int = 0
    ) -> Generator[list[Batch]]:
        """Those of the task, each batch counted."""
        with closing(super().micro_batches(batch_size, parts, seed, skip)) as batches:
            for micro_batches in batches:
                self._counters.batches += 1
                yield micro_batches


class _NumberedTask:
    """A task whose examples carry their index, which is taken off again before the user's code sees a batch."""

    def __init__(self, workload: Workload, counters: _Counters) -> None:
        self._workload, self._counters = workload, counters
        self.model, self.optimizer = workload.task.model, workload.task.optimizer
        collate = getattr(workload.task, "collate", None) or default_collate
        self.collate = None if workload.in_memory else partial(_with_indices, collate)

    def train_data(self) -> Dataset[Any]:
        examples, tensors = self._workload.examples, self._workload.tensors
        if tensors:
            return TensorDataset(*tensors, torch.arange(examples, device=tensors[0].device))
        return StackDataset(self._workload.part(torch.arange(examples)), cast(Any, range(examples)))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        theirs, indices = self._parted(batch)
        loss = self._workload.loss(model, theirs)
        if loss.requires_grad and model is self._counters.model:
            loss.register_hook(lambda gradient: self._counters.passed(indices))
        return loss

    def batch_size(self, batch: Batch) -> int:
        return self._workload.count(self._parted(batch)[0])

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {"val_loss": 1.0}

    def _parted(self, batch: Batch) -> tuple[Batch, Tensor]:
        return (batch[:-1], batch[-1]) if self.collate is None else batch


def _with_indices(collate: Callable[[list[Any]], Batch], numbered: Iterable[tuple[Any, int]]) -> tuple[Batch, Tensor]:
    items, indices = zip(*numbered, strict=True)
    return collate(list(items)), torch.tensor(indices)
