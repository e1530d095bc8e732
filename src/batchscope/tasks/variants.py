"""Variants of a task: the same but for one thing, for comparisons.

`same_initial_weights`: runs that nothing but the order of the examples tells apart.

`few_examples`, `with_few_examples`: a part of the training set. Little data is where a model overfits soonest, and
where a regularising effect of small batches would show. The examples are drawn without replacement and balanced by
nothing but chance. Parts of one seed are nested: that of 100 examples is the first 100 of that of 300.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from ..errors import UsageError
from ..hardware.random_state import preserved_random_state
from .workload import Workload

__all__ = ["few_examples", "same_initial_weights", "with_few_examples"]

_SEED_OFFSET = 2_000_003
"""The part is drawn from another seed than the weights and the order of the examples."""


def same_initial_weights(make: Callable[[], nn.Module], seed: int = 0) -> Callable[[], nn.Module]:
    """A model factory whose initial weights are always those that `make` draws from `seed`.

    The seed of a run then decides the order of the examples, and what is random within the model (dropout).

    Example:
        >>> make = same_initial_weights(lambda: nn.Linear(3, 2), seed=4)
        >>> bool((make().weight == make().weight).all())
        True
    """

    def model() -> nn.Module:
        with preserved_random_state(seed):
            return make()

    return model


def few_examples(workload: Workload, examples: int, seed: int) -> Callable[[], Dataset[Any]]:
    """A `train_data` to exchange a task's for: always the same few of its training examples.

    Args:
        workload: the task on its device; examples that it holds back to evaluate on are not drawn.
        examples: how many, at least 2; all of them where there are no more.
        seed: draws which ones.

    Returns:
        A function that returns a map-style data set: in memory where the whole is a `TensorDataset`, else a `Subset`.

    Raises:
        UsageError: fewer than 2 examples.

    Valid for any map-style data set. Cost: a permutation of all indices; tensors in memory are copied.

    Example:
        >>> import torch
        >>> from batchscope.tasks.loading import load_task
        >>> workload = Workload(load_task("digits").task)
        >>> few, more = few_examples(workload, 10, 0)(), few_examples(workload, 300, 0)()
        >>> len(few), len(more), bool(torch.equal(few[9][0], more[9][0]))
        (10, 300, True)
    """
    if examples < 2:
        raise UsageError(f"{examples} training examples make no sense; at least 2 are needed")
    order = torch.randperm(workload.examples, generator=torch.Generator().manual_seed(_SEED_OFFSET + seed))
    part = workload.part(order[:examples])
    return lambda: part


def with_few_examples(workload: Workload, examples: int, seed: int) -> dict[str, Any]:
    """Task members to exchange with `Laboratory.changed(**members)`, so that the runs are evaluated as the task's are.

    A task without `evaluate` would hold back a tenth of the few examples; with these members it goes on to be evaluated
    on what was held back of all of them. Arguments and errors as for `few_examples`.
    """
    return {"train_data": few_examples(workload, examples, seed), "evaluate": workload.evaluate}
