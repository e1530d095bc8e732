"""Between which learning rates to look: a range test of a dozen steps, beside what the optimizer's class tells.

The learning rate is doubled every step, from one that moves the weights by a ten-thousandth of their norm, until the
loss has clearly left the range of its start, which is where training *breaks*, or has fallen and *falls no longer*:
its smoothed value has been higher than its least one over a range of learning rates in which it would have broken. The
second end is that of losses with a bound, of normalised outputs and weights, of targets that no learning rate spoils.

Where training breaks, the best learning rate lies a dozen times below: 4 to 60 times on the tasks of `benchmarks/`.
Where it only falls no longer, ... The class of an optimizer that normalises the gradient says the same in another way
(`lr_prior`), and the two are weighed by how far each is known to be off. What comes of it places the first run and the
prior of the best learning rate, and decides nothing: Smith (2017) proposes the test as an answer, and the tools that
people know read it off at the steepest fall (Lightning), or there and in the lowest third of the longest fall (fastai's
`steep` and `valley`), after a hundred steps; the spread of such answers over seeds is the reason not to.

Beside it, one step shows whether the optimizer normalises the gradient: if a gradient eight times as large gives the
same update, the best learning rate is expected to grow with the square root of the batch size, else in proportion
(Malladi et al. 2022). The gradient is scaled after the task's `before_update`, which may clip it and so hide its size.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer

from ..hardware.device import lack_of_memory_named
from ..hardware.random_state import preserved_random_state
from ..store.records import RateRange
from ..tasks.protocol import Batch
from ..tasks.update import Update
from ..tasks.workload import Workload
from .lr_prior import LrPrior, prior_of

__all__ = ["measure_rate_range"]

_GROWTH = 2.0
_FIRST_MOVE = 1e-4
_MOST_STEPS = 22
_ROSE = 2.0
_TRIAL_LR, _TRIAL_LR_GROWTH, _MOST_TRIALS, _LOST_IN_ROUNDING = 1e-6, 1e3, 4, 1e-8
"""Learning rate of a first step to measure, a larger one where it moves the weights by less than they are rounded."""
_SCALE = 8.0
_BEFORE, _SMOOTHED, _PATIENCE = 5, 3, 5
"""Losses before the learning rate matters; that are smoothed by their median; steps without a new least value."""
_TOO_SOON, _LOWER = 4, 1000.0
"""Losses within which training breaks only where the first gradient was small by chance, and how much lower the test
then begins."""
_CEILING_ABOVE_BEST, _CEILING_FACTOR = 12.0, 4.0
_LEAST_ABOVE_BEST, _LEAST_FACTOR = 12.0, 5.0


def measure_rate_range(workload: Workload, *, batch_size: int, micro_batch_size: int, seed: int = 0) -> RateRange:
    """Double the learning rate until training breaks, or its loss falls no longer.

    Args:
        workload: the task on its device; a fresh model is trained and thrown away.
        batch_size: examples a step.
        micro_batch_size: how many of them fit at once; divides `batch_size`.
        seed: of the weights and the order of the data. The caller's random state is left as it was.

    Returns:
        The learning rates, the losses that they met, the ceiling, whether the optimizer normalises, and the best
        learning rate as it is expected after that.

    Raises:
        OutOfMemory: a step did not fit.

    Cost: 10 to 24 training steps, counted in `steps`.
    """
    with preserved_random_state(seed), lack_of_memory_named(workload.device, micro_batch_size):
        parts = batch_size // micro_batch_size
        batches = workload.micro_batches(batch_size, parts, seed)
        first = next(batches)
        lr, prior, steps = _beginning(workload, first, seed)
        lrs, losses = _climb(workload, first, batches, lr, seed)
        if _broke(losses) and len(losses) <= _TOO_SOON:
            steps += len(losses)
            lrs, losses = _climb(workload, first, batches, lr / _LOWER, seed)
    expected_lr, factor = _expected(lrs, losses, prior)
    return RateRange(
        batch_size=batch_size,
        ceiling_lr=lrs[-1],
        broke=_broke(losses),
        normalised=prior.normalised,
        lrs=tuple(lrs),
        losses=tuple(losses),
        steps=steps + len(lrs),
        expected_lr=expected_lr,
        expected_factor=factor,
    )


def _climb(
    workload: Workload, first: list[Batch], batches: Iterator[list[Batch]], lr: float, seed: int
) -> tuple[list[float], list[float]]:
    model = workload.model(seed)
    update = Update(workload, model, lr)
    lrs: list[float] = []
    losses: list[float] = []
    micro_batches = first
    for _ in range(_MOST_STEPS):
        update.set_factor(_GROWTH ** len(lrs))
        losses.append(float(update.gradients(micro_batches)))
        lrs.append(lr * _GROWTH ** len(lrs))
        if _broke(losses) or _falls_no_longer(losses):
            break
        update.apply()
        update.clear()
        micro_batches = next(batches)
    return lrs, losses


def _broke(losses: Sequence[float]) -> bool:
    """Whether the last loss is beyond numbers, or far above the first ones."""
    start = losses[:3]
    most = statistics.fmean(start) + max(max(start) - min(start), (_ROSE - 1) * abs(statistics.fmean(start)))
    return not math.isfinite(losses[-1]) or (len(losses) > 3 and losses[-1] > most)


def _falls_no_longer(losses: Sequence[float]) -> bool:
    """Whether the loss has fallen clearly, and its smoothed value has had no new least one for some steps."""
    least = _least(losses)
    return least is not None and len(losses) - 1 - least >= _PATIENCE


def _least(losses: Sequence[float]) -> int | None:
    """Step of the least smoothed loss; `None` where the loss has not clearly fallen to it."""
    if len(losses) <= _BEFORE:
        return None
    start = losses[:_BEFORE]
    smoothed = [statistics.median(losses[i - _SMOOTHED + 1 : i + 1]) for i in range(_SMOOTHED - 1, len(losses))]
    at = min(range(len(smoothed)), key=smoothed.__getitem__)
    fell = statistics.fmean(start) - smoothed[at] > 2.0 * statistics.stdev(start)
    return at + _SMOOTHED - 1 if fell else None


def _expected(lrs: Sequence[float], losses: Sequence[float], prior: LrPrior) -> tuple[float, float]:
    """The best learning rate, and the factor within which it is known, by the test and by the optimizer's class."""
    broke, least = _broke(losses), _least(losses)
    told: list[tuple[float, float]] = []
    if broke:
        told.append((lrs[-1] / _CEILING_ABOVE_BEST, _CEILING_FACTOR))
    elif least is not None:
        told.append((lrs[least] / _LEAST_ABOVE_BEST, _LEAST_FACTOR))
    if prior.normalised or not told:
        told.append((prior.lr, prior.factor))
    weights = [math.log(factor) ** -2 for _, factor in told]
    mean = sum(w * math.log(lr) for w, (lr, _) in zip(weights, told, strict=True)) / sum(weights)
    return math.exp(mean), math.exp(sum(weights) ** -0.5)


def _beginning(workload: Workload, micro_batches: list[Batch], seed: int) -> tuple[float, LrPrior, int]:
    """Where the test begins, the prior of the optimizer, and the number of steps that it took to find out."""
    lr, steps = _TRIAL_LR, 2
    plain, optimizer = _first_move(workload, micro_batches, seed, lr, 1.0)
    while plain < _LOST_IN_ROUNDING and steps < _MOST_TRIALS:
        lr, steps = _TRIAL_LR_GROWTH * lr, steps + 1
        plain, optimizer = _first_move(workload, micro_batches, seed, lr, 1.0)
    scaled, _ = _first_move(workload, micro_batches, seed, lr, _SCALE)
    prior = prior_of(optimizer, lr, normalised=scaled < math.sqrt(_SCALE) * plain)
    return lr * _FIRST_MOVE / max(plain, 1e-12), prior, steps


def _first_move(
    workload: Workload, micro_batches: list[Batch], seed: int, lr: float, scale: float
) -> tuple[float, Optimizer]:
    """‖update‖ ÷ ‖weights‖ of a first step, the gradient multiplied by `scale`, and the optimizer that made it."""
    model = workload.model(seed)
    update = Update(workload, model, lr)
    before = [p.detach().double().clone() for p in model.parameters()]
    update.optimizer.register_step_pre_hook(partial(_multiply, scale))
    update.gradients(micro_batches)
    update.apply()
    moved = [p.detach().double() - b for p, b in zip(model.parameters(), before, strict=True)]
    return _norm(moved) / max(_norm(before), 1e-12), update.optimizer


def _multiply(scale: float, optimizer: Optimizer, *_: Any) -> None:
    """Multiply the gradients that an optimizer is about to use."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is not None:
                p.grad.mul_(scale)


def _norm(tensors: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float((t**2).sum()) for t in tensors))
