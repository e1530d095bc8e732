"""Gradient statistics: how the gradient of a batch is spread about the full gradient, against batch size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..fits import intervals
from ..hardware.random_state import preserved_random_state
from ..store.not_applicable import NotApplicable
from ..store.ranges import CORRELATION, NOT_NEGATIVE
from ..store.records import Estimate
from ..tasks.workload import Workload
from .base import chosen_weight, coupled, mean_gradient, trainable, twin

__all__ = ["GradientStatistics", "measure_gradients"]


@dataclass(frozen=True, kw_only=True)
class GradientStatistics:
    """Statistics of `repeats` gradients `g_r` of batches of one size, `G` being the gradient over the whole sample."""

    batch_size: int
    repeats: int
    replacement: bool
    sample: int
    """Examples that batches were drawn from, and that `G` is the mean over."""
    full_norm: float
    """`‖G‖`, exact over the sample."""
    norm: Estimate
    """Mean of `‖g_r‖`."""
    norm_sd: float | None
    """Standard deviation of `‖g_r‖` between batches (n − 1); `None` for one repeat."""
    variance: Estimate
    """The trace of the covariance of a batch's gradient: mean of `‖g_r − G‖²`."""
    example_variance: Estimate
    """tr(Σ), the variance of one example's gradient, that this size implies: the same for all sizes in theory. No value
    where a batch is the whole sample."""
    cosine: Estimate
    """Mean of `cos(g_r, G)`, over the repeats where `g_r` is not zero."""


def measure_gradients(
    workload: Workload,
    model: nn.Module,
    *,
    batch_sizes: Sequence[int],
    repeats: int = 30,
    seed: int = 0,
    sample: int | None = 4096,
    replacement: bool = True,
    layer: str | None = None,
    at_once: int = 1024,
) -> tuple[GradientStatistics, ...] | NotApplicable:
    """Measure norm, variance and cosine to the full gradient of batches drawn at random, for each batch size.

    With `G` and `Σ` the mean and covariance of the example gradients of the sample, a batch of B drawn with replacement
    has `E g_B = G` and `E‖g_B − G‖² = tr(Σ)/B`; without, `tr(Σ)/B · (N − B)/(N − 1)`. As `G` is known, not estimated,
    the mean of `‖g_r − G‖²` over the repeats is unbiased (no n − 1).

    Args:
        workload: the task on its device.
        model: the weights to measure at; left as it is.
        batch_sizes: in examples; without replacement at most the sample's.
        repeats: independent batches of each size.
        seed: of the draws, and of what is random in the loss.
        sample: examples to draw from, a random part of the training set; `None`: all of it.
        replacement: whether a batch may hold an example twice. Training draws without, from all examples; with it the
            law is 1/B up to any size.
        layer: a layer's or a parameter's name: its weight alone; default: all trained parameters.
        at_once: examples in one forward and backward pass.

    Returns:
        One record a batch size, or why there is none: examples that depend on their batch (batch normalisation) have no
        gradient of their own to average.

    Raises:
        UsageError: a number makes no sense, or no layer has that name.
        TaskError: the task's loss failed.

    Units: gradients are in loss per weight; `variance` in their square.

    Cost: forward and backward passes over `sample + repeats · Σ batch_sizes` examples, and four vectors of the size of
    the gradient in float64. Measured (`benchmarks/probes.py`; 64-32-10, then 784-1024-1024-10): 1.9 times
    as long as those passes alone, at batches of 64.

    Valid when: examples are independent of one another. Randomness in the loss (dropout) is part of the variance, and
    then also of `G`, whose own error the variance contains (below `tr(Σ)/sample`).

    Source: McCandlish et al. 2018, section 2.2 (`Cov(g_B) = Σ/B`; the finite population: their appendix A.1).
    """
    numbers = (*batch_sizes, repeats, at_once, sample or 1)
    if not batch_sizes or min(numbers) < 1:
        raise UsageError(
            f"batch sizes {list(batch_sizes)}, {repeats} repeats, a sample of {sample}: at least 1 of each"
        )
    size = min(sample or workload.examples, workload.examples)
    if not replacement and max(batch_sizes) > size:
        raise UsageError(f"a batch of {max(batch_sizes)} cannot be drawn without replacement from {size} examples")
    copy = twin(workload, model)
    if (reason := coupled(workload, copy)) is not None:
        return reason
    parameters = list(trainable(copy).values())
    if layer is not None:
        found = chosen_weight(copy, layer)
        if isinstance(found, NotApplicable):
            return found
        parameters = [found[1]]
    draws = _Draws(pool_size=size, examples=workload.examples, replacement=replacement, seed=seed)
    with preserved_random_state(seed):
        full = mean_gradient(workload, copy, draws.pool, parameters, at_once=at_once)
        records: list[GradientStatistics] = []
        for batch_size in batch_sizes:
            sums = [
                _sums(mean_gradient(workload, copy, draws.batch(batch_size), parameters, at_once=at_once), full)
                for _ in range(repeats)
            ]
            records.append(_record(sums, full_norm=float(full.norm()), batch_size=batch_size, draws=draws))
    return tuple(records)


class _Draws:
    """Draws: a random part of the training set, and batches of it."""

    def __init__(self, *, pool_size: int, examples: int, replacement: bool, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self.pool = torch.randperm(examples, generator=self._generator)[:pool_size]
        self.replacement = replacement

    def batch(self, size: int) -> Tensor:
        if self.replacement:
            return self.pool[torch.randint(len(self.pool), (size,), generator=self._generator)]
        return self.pool[torch.randperm(len(self.pool), generator=self._generator)[:size]]


def _sums(gradient: Tensor, full: Tensor) -> tuple[float, float, float]:
    """Sums `‖g‖`, `‖g − G‖²` and `g·G`."""
    away = gradient - full
    norm, square, along = torch.stack([gradient.norm(), away @ away, gradient @ full]).tolist()
    return norm, square, along


def _record(
    sums: Sequence[tuple[float, float, float]], *, full_norm: float, batch_size: int, draws: _Draws
) -> GradientStatistics:
    norms = [norm for norm, _, _ in sums]
    variances = [square for _, square, _ in sums]
    sample = len(draws.pool)
    share = 1.0 if draws.replacement else (sample - batch_size) / max(1, sample - 1)
    examples = [variance * batch_size / share for variance in variances] if share > 0 else []
    return GradientStatistics(
        batch_size=batch_size,
        repeats=len(sums),
        replacement=draws.replacement,
        sample=sample,
        full_norm=full_norm,
        norm=intervals.mean(norms, unit="loss per weight", within=NOT_NEGATIVE),
        norm_sd=intervals.standard_deviation(norms).value,
        variance=intervals.mean(variances, unit="(loss per weight)²"),
        example_variance=intervals.mean(examples, unit="(loss per weight)²"),
        cosine=intervals.mean(
            [along / (norm * full_norm) for norm, _, along in sums if norm * full_norm > 0],
            unit="1",
            within=CORRELATION,
        ),
    )
