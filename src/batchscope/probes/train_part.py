"""Training part: how good a run is on its training data in evaluation mode, beside its validation and test metrics.

The training loss that a run records is a mean over the steps since the last evaluation, with dropout and batch
statistics as in training: a validation loss cannot be compared with it. Here the loss is taken as `evaluate` takes its
own, with the weights as they stand, in evaluation mode and without gradients, on a fixed random part of the training
data. A task that has `metrics_on(model, batch) -> {name: number}` is asked for all of it (an accuracy, say).

Cost: one forward pass over the part at an evaluation; its examples are kept in memory. As an estimate of the whole
training set it has a sampling error: an accuracy from 2,000 examples is uncertain by 1.1 points at most (one standard
error).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from weakref import ref

import torch
from torch import nn
from torch.optim import Optimizer

from ..errors import OutOfTime
from ..hardware.random_state import RandomState, preserved_random_state
from ..store.not_applicable import NotApplicable
from ..store.records import Row
from ..tasks.user_code import explained
from ..tasks.workload import Workload

__all__ = ["MOST_EXAMPLES", "TrainPart"]

MOST_EXAMPLES = 2000
_MOST_LOADED = 500
"""Where examples come from a loader, and are not in memory already."""
_SEED = 7


class TrainPart:
    """Observer that evaluates runs on a part of their training data, one run after another.

    Args:
        workload: the task on its device.
        chunk: examples in a forward pass, where the task has no `metrics_on`.
        most: examples of the part; always the same ones.

    Raises:
        OutOfTime: loading them takes longer than there is time; like each of its methods, see `Workload.limited`.

    Its row: `{"kind": "train_part", "step", "examples", "metrics": {"train_loss_eval": ..., ...}}`.
    """

    def __init__(self, workload: Workload, *, chunk: int = 1000, most: int = MOST_EXAMPLES) -> None:
        self._workload = workload
        self._metrics_on: Callable[[nn.Module, Any], Mapping[str, Any]] | None = getattr(
            workload.task, "metrics_on", None
        )
        order = torch.randperm(workload.examples, generator=torch.Generator().manual_seed(_SEED))
        indices = order[: most if workload.in_memory else min(most, _MOST_LOADED)].sort().values
        self.examples = len(indices)
        workload.until.require(workload.example_s * self.examples)
        parts = [indices] if self._metrics_on is not None else indices.split(max(1, chunk))
        self._batches = [workload.batch(part) for part in parts]
        self._model: Callable[[], nn.Module | None] = lambda: None

    def why_not(self) -> NotApplicable | None:
        """Reason why the training part cannot be evaluated on this task, if so; tries it on a fresh model."""
        with preserved_random_state(0):
            model = self._workload.model(0)
            try:
                self.measure(model)
            except OutOfTime:
                raise
            except Exception as error:  # a user's loss may refuse evaluation mode with any exception
                message = (str(error).splitlines() or [type(error).__name__])[0]
                return NotApplicable(reason=f"the loss cannot be taken in evaluation mode: {message}")
        return None

    def begin(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Watch this run from here on; its model lives no longer for it."""
        self._model = ref(model)

    def after_update(self, step: int) -> Row | None:
        """No row: the training part is evaluated at evaluations."""

    def at_evaluation(self, step: int) -> Row | None:
        """Measure the metrics now."""
        model = self._model()
        assert model is not None
        return {
            "kind": "train_part",
            "step": step,
            "examples": self.examples,
            "metrics": self.measure(model),
        }

    def measure(self, model: nn.Module) -> dict[str, float]:
        """The metrics of a model, `train_NAME_eval`; its mode and the random generators are put back."""
        was_training, random = model.training, RandomState.capture()
        model.eval()
        try:
            with torch.no_grad():
                return {f"train_{name}_eval": value for name, value in self._measured(model).items()}
        finally:
            model.train(was_training)
            random.restore()

    def _measured(self, model: nn.Module) -> dict[str, float]:
        if self._metrics_on is not None:
            with explained("metrics_on(model, batch)"):
                found = self._metrics_on(model, self._batches[0])
            return {str(name): float(value) for name, value in found.items()}
        total, seen = 0.0, 0
        for batch in self._batches:
            size = self._workload.weight(batch)
            total, seen = total + float(self._workload.loss(model, batch)) * size, seen + size
        return {"loss": total / seen}
