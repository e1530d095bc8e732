"""Order of the examples of an epoch as the task's `sampler` gives it: weighted, or by length, or any other.

`sampler(seed)` yields the indices of one epoch; epoch `e` of a run asks it with the run's seed plus `e`. A batch is a
consecutive stretch of that order, and one that the end of an epoch cuts off goes on in the next, so that every step has
exactly `batch_size` examples. With replacement, or with some examples left out, an epoch is as many examples as the
sampler yields.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import TaskError
from ..hardware.random_state import preserved_random_state
from .user_code import explained

__all__ = ["TaskSampler"]

_MOST_EPOCHS = 100
"""A sampler that yields more than this many times the examples is taken for one that never ends."""
_HOW = "it must yield the indices of the examples of one epoch, one after another, such as torch.randperm(n).tolist()"


@dataclass(frozen=True, kw_only=True)
class TaskSampler:
    """A task's sampler, its indices checked.

    Attributes:
        make: the task's `sampler`.
        examples: in what `train_data()` returned.
        position: where each of these stands among those that are trained on, below zero for those that are held back,
            shape `(examples,)`; `None`: as they came.
    """

    make: Callable[[int], Iterable[int]]
    examples: int
    position: Tensor | None = None

    def order(self, seed: int) -> Tensor:
        """Indices of the examples of one epoch, int64, one dimension.

        Global generators are seeded for the call, so that a sampler may draw from them.

        Raises:
            TaskError: it fails, or yields none, something else, or too many.
        """
        with preserved_random_state(seed), explained(f"sampler({seed})"):
            indices = self._indices(self.make(seed))
        if not len(indices):
            raise TaskError(f"sampler({seed}) yielded no index; {_HOW}")
        if int(indices.min()) < 0 or int(indices.max()) >= self.examples:
            raise TaskError(
                f"sampler({seed}) yielded indices from {int(indices.min())} to {int(indices.max())}, and train_data() "
                f"has {self.examples} examples, 0 to {self.examples - 1}; {_HOW}"
            )
        if self.position is not None:
            indices = self.position[indices]
            indices = indices[indices >= 0]
            if not len(indices):
                raise TaskError(
                    f"sampler({seed}) yielded only examples that are held back to evaluate on; give the task an "
                    "evaluate(model) method"
                )
        return indices

    def _indices(self, given: Any) -> Tensor:
        if isinstance(given, Tensor):
            if given.ndim != 1 or given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
                raise TaskError(f"sampler returned a tensor of shape {tuple(given.shape)}, {given.dtype}; {_HOW}")
            return given.to("cpu", torch.int64)
        try:
            values = list(itertools.islice(iter(given), _MOST_EPOCHS * self.examples + 1))
        except TypeError as error:
            if hasattr(given, "__iter__"):
                raise
            raise TaskError(f"sampler returned {type(given).__name__}; {_HOW}") from error
        if len(values) > _MOST_EPOCHS * self.examples:
            raise TaskError(
                f"sampler yielded over {_MOST_EPOCHS} times the {self.examples} examples of train_data(), as if it "
                f"never ended; {_HOW}"
            )
        return torch.tensor([_index(value) for value in values], dtype=torch.int64)


def _index(value: Any) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        batches = "; batches are cut here, so give no batch sampler" if isinstance(value, list | tuple) else ""
        raise TaskError(f"sampler yielded {value!r}, which is not the index of an example{batches}; {_HOW}") from None
