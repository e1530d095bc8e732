"""Between which learning rates to look: a range test of a dozen steps, beside what the optimizer's class tells.

The learning rate is doubled every step, from one that moves the weights by a ten-thousandth of their norm, until the
loss has clearly left the range of its start, which is where training *breaks*, or has fallen and *falls no longer*:
its smoothed value has had no new least one over a factor of 16, in which training breaks where it does at all. The
second end is that of losses with a bound and of normalised outputs.

Where training breaks, the best learning rate lies a dozen times below: 4 to 60 times on the tasks of `benchmarks/`.
Where the loss only falls no longer, it lies where half of the fall was made, give or take a factor of 3. The class of
an optimizer that normalises the gradient says the same in another way (`lr_prior`), and the two are weighed by how far
each is known to be off. What comes of it places the first run and the prior of the best learning rate, and decides
nothing: Smith (2017) proposes the test as an answer, and the tools that people know read it off at the steepest fall
(Lightning), or there and two thirds down the longest fall (fastai's `steep` and `valley`), after a hundred steps; the
spread of such answers over seeds is the reason not to.

Whether the optimizer normalises the gradient is known of torch's own. Of another's one more step shows it: a gradient
eight times as large gives the same update. Then the best learning rate is expected to grow with the square root of the
batch size, else in proportion (Malladi et al. 2022). The gradient is scaled after the task's `before_update`, which may
clip it and so hide its size.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import closing
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
from .lr_prior import LrPrior, normalises, prior_of

__all__ = ["measure_rate_range"]

_GROWTH = 2.0
_FIRST_MOVE = 1e-4
_MOST_STEPS = 22
_ROSE = 2.0
_TRIAL_LR, _TRIAL_LR_GROWTH, _MOST_TRIALS, _LOST_IN_ROUNDING = 1e-6, 1e3, 3, 1e-8
"""Learning rate of a first step to measure, a larger one where it moves the weights by less than they are rounded."""
_SCALE = 8.0
_BEFORE, _IN_A_ROW = 5, 2
"""Losses before the learning rate matters; losses far above them, one after the other, with which training broke."""
_CLEAR, _SMOOTHED, _PATIENCE = 5.0, 3, 4
"""Standard deviations of the losses before that are a clear fall; losses of which the median is taken; steps without a
new least one."""
_TOO_SOON, _LOWER = 5, 1000.0
"""Steps until which training breaks only where the first gradient was small by chance, and how much lower the test
then begins."""
_CEILING_ABOVE_BEST, _CEILING_FACTOR = 12.0, 4.0
_FALL_FACTOR = 3.0


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
        with closing(workload.micro_batches(batch_size, parts, seed)) as batches:
            first = next(batches)
            lr, prior, steps = _beginning(workload, first, batch_size, seed)
            lrs, losses = _climb(workload, first, batches, lr, seed)
            if (at := _break(losses)) is not None and at <= _TOO_SOON:
                steps += len(losses)
                lrs, losses = _climb(workload, first, batches, lr / _LOWER, seed)
    broke = _break(losses)
    expected_lr, factor = _expected(lrs, losses, prior)
    return RateRange(
        batch_size=batch_size,
        ceiling_lr=lrs[-1 if broke is None else broke],
        broke=broke is not None,
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
        if _break(losses) is not None or _falls_no_longer(losses):
            break
        update.apply()
        update.clear()
        micro_batches = next(batches)
    return lrs, losses


def _break(losses: Sequence[float]) -> int | None:
    """Step at which training broke; `None` where it did not.

    Its loss is beyond numbers, or far above the first ones like the next: of a batch with a few dear examples alone the
    loss is far above as well.
    """
    start = losses[:_BEFORE]
    mean = statistics.fmean(start)
    most = mean + max(max(start) - min(start), (_ROSE - 1) * abs(mean))
    far = [not math.isfinite(loss) or (at >= _BEFORE and loss > most) for at, loss in enumerate(losses)]
    ends = [not math.isfinite(loss) or far[at : at + _IN_A_ROW] == [True] * _IN_A_ROW for at, loss in enumerate(losses)]
    return ends.index(True) if True in ends else None


def _falls_no_longer(losses: Sequence[float]) -> bool:
    """Whether the loss has fallen clearly, and its smoothed value has had no new least one for some steps."""
    fall = _fall(losses)
    return fall is not None and len(losses) - 1 - fall[-1] >= _PATIENCE


def _fall(losses: Sequence[float]) -> tuple[int, int] | None:
    """Steps at which the smoothed loss has made half of its fall, and all; `None` where it has not clearly fallen."""
    if len(losses) <= _BEFORE:
        return None
    before = losses[:_BEFORE]
    start = statistics.fmean(before)
    smoothed = {i: statistics.median(losses[i + 1 - _SMOOTHED : i + 1]) for i in range(_SMOOTHED - 1, len(losses))}
    least = min(smoothed, key=lambda i: smoothed[i])
    if not start - smoothed[least] > _CLEAR * statistics.stdev(before):
        return None
    return next(i for i in smoothed if start - smoothed[i] >= 0.5 * (start - smoothed[least])), least


def _expected(lrs: Sequence[float], losses: Sequence[float], prior: LrPrior) -> tuple[float, float]:
    """The best learning rate, and the factor within which it is known, by the test and by the optimizer's class."""
    broke, fall = _break(losses), _fall(losses)
    told: list[tuple[float, float]] = []
    if broke is not None:
        told.append((lrs[broke] / _CEILING_ABOVE_BEST, _CEILING_FACTOR))
    elif fall is not None:
        told.append((lrs[fall[0]], _FALL_FACTOR))
    if prior.normalised or not told:
        told.append((prior.lr, prior.factor))
    weights = [math.log(factor) ** -2 for _, factor in told]
    mean = sum(w * math.log(lr) for w, (lr, _) in zip(weights, told, strict=True)) / sum(weights)
    return math.exp(mean), math.exp(sum(weights) ** -0.5)


def _beginning(
    workload: Workload, micro_batches: list[Batch], batch_size: int, seed: int
) -> tuple[float, LrPrior, int]:
    """Where the test begins, the prior of the optimizer, and the number of steps that it took to find out."""
    lr, steps = _TRIAL_LR, 1
    plain, optimizer = _first_move(workload, micro_batches, seed, lr, 1.0)
    while plain < _LOST_IN_ROUNDING and steps < _MOST_TRIALS:
        lr, steps = _TRIAL_LR_GROWTH * lr, steps + 1
        plain, optimizer = _first_move(workload, micro_batches, seed, lr, 1.0)
    if (normalised := normalises(optimizer)) is None:
        scaled, _ = _first_move(workload, micro_batches, seed, lr, _SCALE)
        normalised, steps = scaled < math.sqrt(_SCALE) * plain, steps + 1
    prior = prior_of(optimizer, lr, batch_size=batch_size, normalised=normalised)
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
