"""The sum of a layer's gradients over the same samples, in small steps or in one: Shen's measure of gradient size.

From one set of weights, the same M samples are gone through in floor(M/B) steps of SGD of B samples each, *with the
weights changing*; the gradients of one layer are added up and multiplied by B/M. For B = M that is one gradient; for
small B the later gradients are those of a model that has learnt from the earlier samples.

Where B is small, time goes into moving weights; `deferred_sgd` moves less of them, and says how much that gains. On
Shen's network (784-1024-1024-10) a repeat of 15 batch sizes over 1,024 samples takes 3.6 s of one core
(`benchmarks/deferred_sgd.py`): 100 repeats are 6 minutes, or 3 of two processes that share them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor, nn

from ..errors import TaskError, UsageError
from ..fits import intervals
from ..hardware.random_state import preserved_random_state
from ..store.not_applicable import NotApplicable
from ..store.ranges import NOT_NEGATIVE
from ..store.records import Estimate
from ..tasks.workload import Workload
from .base import chosen_weight, coupled, square_norm, twin
from .deferred_sgd import DeferredSGD

__all__ = ["NormSpread", "SequentialNorms", "measure_sequential_gradients"]

_TRIAL = 32
_SEEDS_APART = 1_000_003


@dataclass(frozen=True, kw_only=True)
class NormSpread:
    """The norms at one batch size, over the repeats."""

    batch_size: int
    steps: int
    """floor(M/B): a rest of fewer than B samples is left out, and the factor stays B/M, as published."""
    norm: Estimate
    """Mean of `‖B/M Σ_s g_s‖`."""
    sd: float | None
    """Standard deviation between repeats (n − 1)."""
    relative_error: float | None
    """Standard error of the mean ÷ the mean."""
    rescaled_sd: float | None
    """`sd` after the norms were multiplied so that their mean is that of the largest batch size."""


@dataclass(frozen=True, kw_only=True)
class SequentialNorms:
    """Norms for every batch size and repeat; parts with other repeats of the same measurement can be joined."""

    layer: str
    samples: int
    lr: float
    seed: int
    batch_sizes: tuple[int, ...]
    repeats: tuple[int, ...]
    """The numbers of the repeats; a number stands for the same samples whichever part holds it."""
    norms: tuple[tuple[float, ...], ...]
    """For each batch size, the norm in each repeat, in loss per weight."""
    seconds: tuple[float, ...]
    """What each repeat took."""

    def spreads(self) -> tuple[NormSpread, ...]:
        """Mean and spread at each batch size."""
        largest = max(range(len(self.batch_sizes)), key=lambda i: self.batch_sizes[i])
        reference = fmean(self.norms[largest])
        return tuple(
            _spread(norms, batch_size, self.samples // batch_size, reference)
            for batch_size, norms in zip(self.batch_sizes, self.norms, strict=True)
        )

    def predicted_seconds(self, repeats: int) -> Estimate:
        """What so many repeats take in one process, from the repeats made; they are independent, so k processes share.

        The first repeat pays for warming up; it is left out where there are three or more.
        """
        counted = self.seconds[1:] if len(self.seconds) > 2 else self.seconds
        each = intervals.mean(counted, unit="s", within=NOT_NEGATIVE)
        value, low, high = (None if v is None else v * repeats for v in (each.value, each.low, each.high))
        method = f"{len(counted)} repeats measured, times {repeats}"
        return Estimate(value=value, low=low, high=high, n=len(counted), unit="s", method=method)

    def joined(self, other: SequentialNorms) -> SequentialNorms:
        """This part and another, ordered by the number of the repeat.

        Raises:
            ValueError: the parts differ in more than their repeats, or share some.
        """
        mine, theirs = ((part.layer, part.samples, part.lr, part.seed, part.batch_sizes) for part in (self, other))
        if mine != theirs or set(self.repeats) & set(other.repeats):
            raise ValueError(f"repeats {self.repeats} of {mine} cannot be joined with {other.repeats} of {theirs}")
        numbers = self.repeats + other.repeats
        order = sorted(range(len(numbers)), key=lambda i: numbers[i])

        def sorted_up(ours: tuple[float, ...], others: tuple[float, ...]) -> tuple[float, ...]:
            return tuple((ours + others)[i] for i in order)

        return SequentialNorms(
            layer=self.layer,
            samples=self.samples,
            lr=self.lr,
            seed=self.seed,
            batch_sizes=self.batch_sizes,
            repeats=tuple(sorted(numbers)),
            norms=tuple(sorted_up(a, b) for a, b in zip(self.norms, other.norms, strict=True)),
            seconds=sorted_up(self.seconds, other.seconds),
        )


def measure_sequential_gradients(
    workload: Workload,
    model: nn.Module,
    *,
    batch_sizes: Sequence[int],
    repeats: int,
    lr: float,
    samples: int = 1024,
    first_repeat: int = 0,
    seed: int = 0,
    layer: str | None = None,
    on_sum: Callable[[int, Tensor], None] | None = None,
    defer: bool = True,
) -> SequentialNorms | NotApplicable:
    """Norms of `B/M Σ_s g_s`, the sum over floor(M/B) steps of SGD from these weights, for each batch size B.

    In each repeat M samples are drawn with replacement; every batch size goes through the same ones in the same order,
    from the same weights. The steps are `θ ← θ − lr g_s` whatever the task's optimizer: no momentum, no weight decay.

    Args:
        workload: the task on its device.
        model: the weights to start from, a checkpoint; left as it is.
        batch_sizes: B, each from 1 to M.
        repeats: how many times samples are drawn.
        lr: of the steps.
        samples: M.
        first_repeat: number of the first repeat. Repeats are independent and numbered, so that they can be shared among
            processes, or made a few at a time: predict from the first ones, go on with the others, join all.
        seed: of the samples and of what is random in the loss.
        layer: a layer's or a parameter's name; default: the last weight matrix.
        on_sum: receives every batch size and its tensor `B/M Σ_s g_s` (shape of the layer's weight), for histograms.
        defer: whether updates of linear layers are applied several at a time (`deferred_sgd`), or each at once; the
            norms differ by rounding only.

    Returns:
        The norms, or why there are none.

    Raises:
        UsageError: a number makes no sense, or no layer has that name.
        TaskError: the task's loss failed.

    Cost: `repeats · M · len(batch_sizes)` examples forward and backward, and `Σ_B floor(M/B)` updates of all weights a
    repeat. For Shen's network, 15 batch sizes and M = 1024 a repeat is 2,908 steps.

    Valid when: always, batch normalisation included (running statistics move along), except for batches too small for
    the model. Mind when reading: the sum is an average over steps, so the distance travelled is `lr · M/B` times it;
    norms of different layers, models or checkpoints do not compare.

    Source: Shen 2018, with the published code's experiment 1.
    """
    numbers = (*batch_sizes, repeats, samples)
    if not batch_sizes or min(numbers) < 1 or max(batch_sizes) > samples or first_repeat < 0:
        raise UsageError(
            f"batch sizes {list(batch_sizes)}, {repeats} repeats from {first_repeat}, {samples} samples: at least 1 "
            "batch size, repeat and sample, and no batch larger than the samples"
        )
    if workload.precision == "float16":
        return NotApplicable(
            reason="the steps are plain SGD, without the gradient scaler that float16 needs: small gradients would "
            "become zero; measure with precision 'bfloat16' or 'float32'"
        )
    copy = twin(workload, model)
    found = chosen_weight(copy, layer)
    if isinstance(found, NotApplicable):
        return found
    if (reason := _too_small(workload, copy, min(batch_sizes))) is not None:
        return reason
    name, watched = found
    with preserved_random_state(seed):
        trial = workload.batch(torch.randint(workload.examples, (min(_TRIAL, samples),)))
        sgd = DeferredSGD(workload, copy, lr=lr, watched=watched, trial=trial, defer=defer)
        descent = _Descent(workload, copy, sgd)
    norms: list[list[float]] = [[] for _ in batch_sizes]
    seconds: list[float] = []
    numbers = range(first_repeat, first_repeat + repeats)
    for number in numbers:
        started = workload.device.clock()
        with preserved_random_state(seed * _SEEDS_APART + number):
            indices = torch.randint(workload.examples, (samples,))
            for into, batch_size in zip(norms, batch_sizes, strict=True):
                scaled = descent.sum_over(indices, batch_size).mul_(batch_size / samples)
                into.append(float(square_norm(scaled)) ** 0.5)
                if on_sum is not None:
                    on_sum(batch_size, scaled)
        seconds.append(workload.device.clock() - started)
    descent.release()
    return SequentialNorms(
        layer=name,
        samples=samples,
        lr=lr,
        seed=seed,
        batch_sizes=tuple(batch_sizes),
        repeats=tuple(numbers),
        norms=tuple(map(tuple, norms)),
        seconds=tuple(seconds),
    )


class _Descent:
    """SGD over the same samples again and again, each time from the same weights."""

    def __init__(self, workload: Workload, model: nn.Module, sgd: DeferredSGD) -> None:
        self._workload, self._model, self._sgd = workload, model, sgd
        self._start = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def sum_over(self, indices: Tensor, batch_size: int) -> Tensor:
        """The watched layer's gradients over whole batches of the indices, added up."""
        self._model.load_state_dict(self._start)
        for batch in indices.split(batch_size):
            if len(batch) == batch_size:
                self._sgd.step(self._workload.batch(batch))
        return self._sgd.finish()

    def release(self) -> None:
        """Leave the model as it was made, so that nothing keeps it in memory."""
        self._sgd.release()


def _too_small(workload: Workload, model: nn.Module, batch_size: int) -> NotApplicable | None:
    """Why a model whose examples depend on their batch refuses the smallest one."""
    if coupled(workload, model) is None:
        return None
    try:
        with preserved_random_state(0):
            workload.loss(model, workload.batch(torch.arange(batch_size)))
    except TaskError as error:
        return NotApplicable(reason=f"a batch of {batch_size} cannot be trained on: {error}; leave the size out")
    return None


def _spread(norms: Sequence[float], batch_size: int, steps: int, reference: float) -> NormSpread:
    mean = intervals.mean(norms, unit="loss per weight", within=NOT_NEGATIVE)
    sd = intervals.standard_deviation(norms).value
    value = fmean(norms)
    return NormSpread(
        batch_size=batch_size,
        steps=steps,
        norm=mean,
        sd=sd,
        relative_error=sd / math.sqrt(len(norms)) / value if sd is not None and value > 0 else None,
        rescaled_sd=sd * reference / value if sd is not None and value > 0 else None,
    )
