"""Between which learning rates to look: a range test of a dozen steps.

The learning rate is doubled every step, from one that moves the weights by a ten-thousandth of their norm, until the
loss has clearly left the range of its start. The learning rate at which that happens is a ceiling: on the tasks of
`benchmarks/` the best one lies 4 to 60 times below it. It places the prior of the best one and decides nothing (Smith
2017 proposes the test as an answer; the spread of its answers over seeds is the reason not to).

Beside it, one step shows whether the optimizer normalises the gradient: if a loss eight times as large gives the same
update, the best learning rate is expected to grow with the square root of the batch size, else in proportion (Malladi
et al. 2022).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from contextlib import closing

import torch

from ..hardware.device import lack_of_memory_named
from ..hardware.random_state import preserved_random_state
from ..store.records import RateRange
from ..tasks.protocol import Batch
from ..tasks.update import Update
from ..tasks.workload import Workload

__all__ = ["measure_rate_range"]

_GROWTH = 2.0
_FIRST_MOVE = 1e-4
_MOST_STEPS = 64
_ROSE = 2.0
_TRIAL_LR = 1e-6
_SCALE = 8.0


def measure_rate_range(workload: Workload, *, batch_size: int, micro_batch_size: int, seed: int = 0) -> RateRange:
    """Double the learning rate until training breaks.

    Args:
        workload: the task on its device; a fresh model is trained and thrown away.
        batch_size: examples a step.
        micro_batch_size: how many of them fit at once; divides `batch_size`.
        seed: of the weights and the order of the data. The caller's random state is left as it was.

    Returns:
        The learning rates, the losses that they met, the ceiling, and whether the optimizer normalises.

    Raises:
        OutOfMemory: a step did not fit.

    Cost: 10 to 20 training steps, counted in `steps`.
    """
    with preserved_random_state(seed), lack_of_memory_named(workload.device, micro_batch_size):
        parts = batch_size // micro_batch_size
        with closing(workload.micro_batches(batch_size, parts, seed)) as batches:
            first = next(batches)
            plain, scaled = (_first_move(workload, first, seed, scale) for scale in (1.0, _SCALE))
            lr = _TRIAL_LR * _FIRST_MOVE / max(plain, 1e-12)
            lrs, losses = _climb(workload, first, batches, lr, seed)
    return RateRange(
        batch_size=batch_size,
        ceiling_lr=lrs[-1],
        broke=_broke(losses),
        normalised=scaled < math.sqrt(_SCALE) * plain,
        lrs=tuple(lrs),
        losses=tuple(losses),
        steps=len(lrs) + 2,
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
        if _broke(losses):
            break
        update.apply()
        update.clear()
        micro_batches = next(batches)
    return lrs, losses


def _broke(losses: list[float]) -> bool:
    """Whether the last loss is beyond numbers, or far above the first ones."""
    start = losses[:3]
    most = statistics.fmean(start) + max(max(start) - min(start), (_ROSE - 1) * abs(statistics.fmean(start)))
    return not math.isfinite(losses[-1]) or (len(losses) > 3 and losses[-1] > most)


def _first_move(workload: Workload, micro_batches: list[Batch], seed: int, scale: float) -> float:
    """‖update‖ ÷ ‖weights‖ of a first step at learning rate 1e-6, the loss multiplied by `scale`."""
    model = workload.model(seed)
    update = Update(workload, model, _TRIAL_LR)
    before = [p.detach().double().clone() for p in model.parameters()]
    update.gradients(micro_batches, scale=scale)
    update.apply()
    moved = [p.detach().double() - b for p, b in zip(model.parameters(), before, strict=True)]
    return _norm(moved) / max(_norm(before), 1e-12)


def _norm(tensors: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float((t**2).sum()) for t in tensors))
