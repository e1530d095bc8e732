"""Downhill steps: how often one step of SGD on a batch lowers the loss on all data, against batch size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..fits import intervals
from ..hardware.random_state import preserved_random_state
from ..store.not_applicable import NotApplicable
from ..store.records import Estimate
from ..tasks.protocol import Batch
from ..tasks.workload import Workload
from .base import coupled, gradients, not_repeatable, shares, trainable, twin

__all__ = ["Downhill", "measure_downhill"]

_CHANCE = "would make it rise or fall without any step"


@dataclass(frozen=True, kw_only=True)
class Downhill:
    """Result of `repeats` single steps on batches of one size, for the loss `L` over the sample."""

    batch_size: int
    lr: float
    repeats: int
    sample: int
    """Examples that batches were drawn from, and that `L` is the mean over."""
    loss: float
    """`L(θ)` before each step."""
    lowered: int
    """Steps after which `L` was lower."""
    share: Estimate
    """`lowered / repeats`."""
    fall: Estimate
    """Mean of `L(θ) − L(θ − lr g)`, in loss; no value where a step led out of the range of numbers."""


def measure_downhill(
    workload: Workload,
    model: nn.Module,
    *,
    batch_sizes: Sequence[int],
    lr: float,
    repeats: int = 60,
    sample: int = 4096,
    seed: int = 0,
    at_once: int = 1024,
) -> tuple[Downhill, ...] | NotApplicable:
    """Take single steps `θ − lr g` from the same weights, each on a batch of its own, and look at the loss of all.

    To second order `L` falls by `lr g·G − ½ lr² gᵀHg`, whose mean over batches is
    `lr ‖G‖² − ½ lr² (GᵀHG + tr(HΣ)/B)`: a larger batch falls further, and above all more surely, at the same learning
    rate.

    Args:
        workload: the task on its device.
        model: the weights to start each step from; left as it is.
        batch_sizes: in examples; batches are drawn with replacement, so that any size goes.
        lr: of the step, plain SGD whatever the task's optimizer; the same for all sizes.
        repeats: independent batches of each size.
        sample: examples to draw from and to evaluate on, a random part of the training set.
        seed: of the draws.
        at_once: examples in one forward pass.

    Returns:
        One record a batch size, or why there is none: where the loss of one batch differs from call to call (dropout),
        the share would be about that.

    Raises:
        UsageError: a number makes no sense.
        TaskError: the task's loss failed.

    Cost: forward and backward passes over `repeats · Σ batch_sizes` examples, forward passes over `sample` for each
    of these steps, the sample's batches in memory, and two copies of the weights.

    Valid when: the loss is the same each time. It is that of training mode: with batch normalisation each of the near
    equal chunks, of at most `at_once` examples, in which the sample is evaluated has its own statistics, and a batch
    goes through in one pass, however large. A fall below the rounding of the loss (1e-7 of it in float32) is chance.

    Source: Bottou, Curtis and Nocedal 2018, lemma 4.2 (the expected fall of one step); the interval of the share:
    Wilson 1927.
    """
    if not batch_sizes or min(*batch_sizes, repeats, sample, at_once) < 1:
        raise UsageError(
            f"batch sizes {list(batch_sizes)}, {repeats} repeats, a sample of {sample}, {at_once} at once: at least 1 "
            "of each"
        )
    copy = twin(workload, model)
    generator = torch.Generator().manual_seed(seed)
    pool = torch.randperm(workload.examples, generator=generator)[:sample]
    with preserved_random_state(seed):
        chunks = [workload.batch(part) for part in pool.tensor_split(math.ceil(len(pool) / at_once))]
        sizes = [workload.weight(chunk) for chunk in chunks]
        smallest = workload.batch(pool[torch.arange(min(batch_sizes)) % len(pool)])
        for batch in (smallest, chunks[0]):
            if (reason := not_repeatable(workload, copy, lambda batch=batch: batch, consequence=_CHANCE)) is not None:
                return reason
        stepper = _Stepper(workload, copy, list(zip(chunks, sizes, strict=True)), lr=lr, at_once=at_once)
        records: list[Downhill] = []
        for batch_size in batch_sizes:
            falls = [
                stepper.fall(pool[torch.randint(len(pool), (batch_size,), generator=generator)]) for _ in range(repeats)
            ]
            records.append(_record(falls, stepper.loss, batch_size=batch_size, lr=lr, sample=len(pool)))
    return tuple(records)


class _Stepper:
    """Stepper from the same weights again and again, and what each does to the mean loss over the sample."""

    def __init__(
        self, workload: Workload, model: nn.Module, chunks: Sequence[tuple[Batch, float]], *, lr: float, at_once: int
    ) -> None:
        self._workload, self._model, self._chunks, self._lr = workload, model, chunks, lr
        self._at_once = None if coupled(workload, model) else at_once
        self._parameters = list(trainable(model).values())
        self._start = [parameter.detach().clone() for parameter in self._parameters]
        self.loss = self._mean_loss()

    def fall(self, indices: Tensor) -> float:
        """Fall of the loss by a step on the examples at `indices`; the weights are put back."""
        step = self._gradient(indices)
        with torch.no_grad():
            for parameter, gradient in zip(self._parameters, step, strict=True):
                parameter.sub_(gradient, alpha=self._lr)
        after = self._mean_loss()
        with torch.no_grad():
            for parameter, before in zip(self._parameters, self._start, strict=True):
                parameter.copy_(before)
        return self.loss - after

    def _gradient(self, indices: Tensor) -> list[Tensor]:
        total = [torch.zeros_like(parameter) for parameter in self._parameters]
        parts = indices.split(self._at_once or len(indices))
        for part, share in zip(parts, shares(self._workload, parts), strict=True):
            found = gradients(self._workload, self._model, self._workload.batch(part), self._parameters)
            for whole, gradient in zip(total, found, strict=True):
                whole.add_(gradient, alpha=share)
        return total

    def _mean_loss(self) -> float:
        with torch.no_grad():
            losses = [float(self._workload.loss(self._model, batch)) for batch, _ in self._chunks]
        sizes = [size for _, size in self._chunks]
        return sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / sum(sizes)


def _record(falls: Sequence[float], loss: float, *, batch_size: int, lr: float, sample: int) -> Downhill:
    lowered = sum(fall > 0 for fall in falls)
    lost = sum(not math.isfinite(fall) for fall in falls)
    fall = intervals.mean([] if lost else falls, unit="loss")
    if lost:
        method = f"{lost} of {len(falls)} steps led to a loss that is not a number"
        fall = Estimate(value=None, low=None, high=None, n=len(falls), unit="loss", method=method)
    return Downhill(
        batch_size=batch_size,
        lr=lr,
        repeats=len(falls),
        sample=sample,
        loss=loss,
        lowered=lowered,
        share=intervals.share(lowered, len(falls)),
        fall=fall,
    )
