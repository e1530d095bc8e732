"""Update size: how far one update carries the weights, and how far an epoch's updates carry them together."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..store.records import Row
from .base import square_norm, trainable

__all__ = ["UpdateSize"]


class UpdateSize:
    """Observer of the norm of each step's update `u_t = θ_t − θ_{t−1}`, and of an epoch's sum of them.

    At every evaluation but the first, a row: `kind` is `updates`, `step`, `measured` (updates measured since the last
    such row), and of them `mean_norm`, the mean of `‖u_t‖`, and `largest_norm`. At every end of an epoch, a row: `kind`
    is `epoch_updates`, `step`, `epoch` (from 1), `steps` in it, `norm_of_sum` = `‖Σ u_t‖`, `sum_of_norms` = `Σ ‖u_t‖`
    (the length of the path; from the measured updates, scaled to all), `mean_norm`, and `straightness` = `norm_of_sum ÷
    sum_of_norms`: 1 where all updates point one way, about `1/√steps` for a random walk; `None` without movement. Norms
    are Euclidean over all trained parameters, in weight units. The updates are the optimizer's, whatever it is:
    learning rate, momentum and weight decay are in them.

    Args:
        examples: in the training set.
        batch_size: of a step. Steps run on over the ends of epochs; an epoch ends with the step that completes it.
        every: measure every k-th update. The norm of an epoch's sum is always measured.

    Raises:
        ValueError: a number below 1.

    Cost: no extra pass. Two copies of the weights in memory; for every measured update one subtraction, one norm and
    one copy of the weights. Measured (`benchmarks/probes.py`; 64-32-10, then 784-1024-1024-10): a use
    takes 0.5 and 0.2 training steps of 64 examples; with `every=10` a tenth of that.

    Valid when: always. With `every` above 1 the mean norm is an estimate, and unbiased only where update sizes do not
    follow a cycle of the same length. The triangle inequality makes `straightness` at most 1 where `every` is 1.

    Source: Chang and Pathak 2020 (average size of batch and of epoch updates against batch size).
    """

    def __init__(self, *, examples: int, batch_size: int, every: int = 1) -> None:
        if min(examples, batch_size, every) < 1:
            raise ValueError(f"examples is {examples}, batch_size {batch_size} and every {every}; each at least 1")
        self._examples, self._batch_size, self._every = examples, batch_size, every
        self._parameters: list[nn.Parameter] = []
        self._last: list[Tensor] = []
        self._epoch_start: list[Tensor] = []
        self._epoch, self._epoch_first_step = 0, 0
        self._norms: list[Tensor] = []
        self._epoch_norms: list[Tensor] = []

    def begin(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Keep the initial weights."""
        self._parameters = list(trainable(model).values())
        self._last, self._epoch_start = self._copies(), self._copies()

    @torch.no_grad()
    def after_update(self, step: int) -> Row | None:
        """Measure the update; the row of an epoch that this step completes."""
        if step % self._every == 0:
            norm = _distance_moved(self._last, self._parameters)
            self._norms.append(norm)
            self._epoch_norms.append(norm)
        if (step + 1) % self._every == 0:
            _copy(self._parameters, self._last)
        epoch = step * self._batch_size // self._examples
        return self._end_of_epoch(epoch, step) if epoch > self._epoch else None

    def at_evaluation(self, step: int) -> Row | None:
        """Mean over the updates since the last row; none where no update was measured."""
        if not self._norms:
            return None
        norms = torch.stack(self._norms).tolist()
        self._norms = []
        return {
            "kind": "updates",
            "step": step,
            "measured": len(norms),
            "mean_norm": sum(norms) / len(norms),
            "largest_norm": max(norms),
        }

    def _end_of_epoch(self, epoch: int, step: int) -> Row:
        norms = torch.stack(self._epoch_norms).tolist() if self._epoch_norms else []
        norm_of_sum = float(_distance_moved(self._epoch_start, self._parameters))
        steps = step - self._epoch_first_step
        mean = sum(norms) / len(norms) if norms else None
        path = None if mean is None else mean * steps
        _copy(self._parameters, self._epoch_start)
        self._epoch, self._epoch_first_step, self._epoch_norms = epoch, step, []
        return {
            "kind": "epoch_updates",
            "step": step,
            "epoch": epoch,
            "steps": steps,
            "norm_of_sum": norm_of_sum,
            "sum_of_norms": path,
            "mean_norm": mean,
            "straightness": norm_of_sum / path if path else None,
        }

    def _copies(self) -> list[Tensor]:
        return [p.detach().clone() for p in self._parameters]


def _distance_moved(before: list[Tensor], parameters: list[nn.Parameter]) -> Tensor:
    """Distance `‖before − now‖`; `before` is used up."""
    moved = [then.sub_(now) for then, now in zip(before, parameters, strict=True)]
    return torch.stack([square_norm(tensor) for tensor in moved]).sum().sqrt()


def _copy(parameters: list[nn.Parameter], into: list[Tensor]) -> None:
    for tensor, parameter in zip(into, parameters, strict=True):
        tensor.copy_(parameter)
