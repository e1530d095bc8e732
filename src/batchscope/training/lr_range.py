"""Between which learning rates to look: a range test of a dozen steps, beside what the optimizer's class tells.

The learning rate is doubled every step, from one that moves the weights by a ten-thousandth of their norm, until the
loss has clearly left the range of its start, which is where training *breaks*, or has fallen and *falls no longer*:
its smoothed value has had no new least one over a factor of 16, in which training breaks where it does at all. The
second end is that of losses with a bound and of normalised outputs. Batches of fewer than 32 examples are taken
together, and what the test says is scaled to the batch size asked for as the prior of a search has it. A loss far above
the others may be that of a few dear examples: training has broken only if the loss of the first batch, computed again,
is higher than it was.

Where training breaks, the best learning rate lies a dozen times below: 4 to 60 times on the tasks of `benchmarks/`.
Where the loss only falls no longer, it lies where half of the fall was made, give or take a factor of 3. The class of
an optimizer that normalises the gradient says the same in another way (`lr_prior`), and the two are weighed by how far
each is known to be off. So does SGD on a model with normalisation layers, which hide that a learning rate is too high:
where the test ends above that prior. A parameter group whose learning rate does not follow the one asked for keeps it,
and says nothing. What comes of it places the first run and the prior of the best learning rate, and decides
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
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ..errors import TaskError
from ..hardware.device import lack_of_memory_named
from ..hardware.random_state import preserved_random_state
from ..hardware.time_limit import NO_LIMIT, TimeLimit
from ..store.records import RateRange
from ..tasks.culprits import Drawn, refuse_batch, refuse_gradient_of, step_named
from ..tasks.protocol import Batch
from ..tasks.update import Update, groups_that_follow
from ..tasks.workload import Workload
from .lr_prior import LrPrior, has_normalisation, lr_ratio, normalises, prior_of

__all__ = ["measure_rate_range"]

_GROWTH = 2.0
_FIRST_MOVE = 1e-4
_MOST_STEPS = 22
_FEWEST_EXAMPLES = 32
"""In a step: the losses of smaller batches scatter too much to tell anything."""
_ROSE, _ROSE_WITHIN_LAYERS = 2.0, 1.2
"""Times the loss of the start that is far above it; less on models with normalisation layers, which it stays near."""
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


def measure_rate_range(
    workload: Workload, *, batch_size: int, micro_batch_size: int, seed: int = 0, until: TimeLimit = NO_LIMIT
) -> RateRange:
    """Double the learning rate until training breaks, or its loss falls no longer.

    Args:
        workload: the task on its device; a fresh model is trained and thrown away.
        batch_size: examples a step.
        micro_batch_size: how many of them fit at once; divides `batch_size`. A step of more examples is made of
            more of them.
        seed: of the weights and the order of the data. The caller's random state is left as it was.
        until: no step is begun that is expected to end after it, but for the first of each part of the test.

    Returns:
        The learning rates, the losses that they met, the ceiling, whether the optimizer normalises, and the best
        learning rate as it is expected after that.

    Raises:
        OutOfMemory: a step did not fit.
        TaskError: the loss failed, or is no number for another reason than the learning rate.

    Cost: 10 to 25 training steps, counted in `steps`.
    """
    with preserved_random_state(seed), lack_of_memory_named(workload.device, micro_batch_size):
        tested = _tested_batch_size(workload, batch_size, micro_batch_size)
        with closing(workload.micro_batches(tested, tested // micro_batch_size, seed)) as batches:
            first = next(batches)
            drawn = _Batches(workload=workload, batch_size=tested, seed=seed, first=first, following=batches)
            lr, prior, steps = _beginning(drawn)
            rose = _ROSE_WITHIN_LAYERS if prior.hides_the_edge else _ROSE
            climb = _climb(drawn, lr, rose, until)
            if climb.broke is not None and climb.broke <= _TOO_SOON:
                steps += climb.steps
                climb = _climb(drawn, lr / _LOWER, rose, until)
    expected_lr, factor = _expected(climb, prior)
    ratio, off = lr_ratio(tested, batch_size, normalised=prior.normalised)
    found: dict[str, Any] = dict(
        batch_size=batch_size,
        ceiling_lr=climb.lrs[-1 if climb.broke is None else climb.broke],
        broke=climb.broke is not None,
        normalised=prior.normalised,
        lrs=tuple(climb.lrs),
        losses=tuple(climb.losses),
        steps=steps + climb.steps,
        expected_lr=ratio * expected_lr,
        expected_factor=math.exp(math.hypot(math.log(factor), math.log(off))),
        tested_batch_size=tested,
        cut_short=climb.cut_short,
    )
    try:
        return RateRange(**found)
    except ValueError as error:
        raise TaskError(
            f"the range test of the learning rate tells nothing: {error}; check the scale of the loss and of the "
            "weights, and that a step of optimizer(params, lr) at a learning rate of 1e-6 leaves the weights finite"
        ) from error


def _tested_batch_size(workload: Workload, batch_size: int, micro_batch_size: int) -> int:
    """The batch size itself, or where it is small as many of its micro-batches as make losses that tell something."""
    most = max(batch_size, min(workload.largest_batch(), _FEWEST_EXAMPLES + micro_batch_size - 1))
    return max(batch_size, most // micro_batch_size * micro_batch_size)


@dataclass(kw_only=True)
class _Climb:
    """The learning rates of one climb and the losses that they met.

    Attributes:
        lrs: one a step.
        losses: before the step at each.
        broke: the step at which training broke, if it did.
        checks: passes over the first batch beside those steps.
        cut_short: whether the time ended first.
    """

    lrs: list[float] = field(default_factory=list[float])
    losses: list[float] = field(default_factory=list[float])
    broke: int | None = None
    checks: int = 0
    cut_short: bool = False

    @property
    def steps(self) -> int:
        """What it cost."""
        return len(self.lrs) + self.checks


@dataclass(frozen=True, kw_only=True)
class _StepBatch:
    """A batch of a test, and at which step it comes: its examples are numbered only where they are asked for."""

    micro_batches: list[Batch]
    step: int = 0


@dataclass(kw_only=True)
class _Batches:
    """The batches of one test, each with its place in the order of the examples.

    Attributes:
        workload: the task.
        batch_size: of each.
        seed: of their order, and of the weights.
        first: the first one.
        following: those after it.
        step: number of those after the first that were drawn.
    """

    workload: Workload
    batch_size: int
    seed: int
    first: list[Batch]
    following: Iterator[list[Batch]]
    step: int = 0

    def next(self) -> _StepBatch:
        """The next one."""
        self.step += 1
        return _StepBatch(micro_batches=next(self.following), step=self.step)

    def _drawn(self, batch: _StepBatch) -> Drawn:
        """A batch with the indices of its examples, for which the whole order of the data is drawn again."""
        indices = self.workload.indices_of(self.batch_size, self.seed, batch.step)
        return Drawn(micro_batches=batch.micro_batches, indices=indices)

    def loss(self, update: Update, batch: _StepBatch, before: _StepBatch | None = None) -> float:
        """The loss of a batch, its gradient added.

        Raises:
            TaskError: it failed, or is no number because of this batch or the gradient of the one before.
        """
        where = f"the range test at batch size {self.batch_size}"
        with step_named(self.workload, lambda: self._drawn(batch), seed=self.seed, where=lambda: where):
            loss = float(update.gradients(batch.micro_batches))
        if not math.isfinite(loss):
            refuse_batch(self.workload, self._drawn(batch), seed=self.seed, where=where)
            if before is not None:
                refuse_gradient_of(self.workload, self._drawn(before), seed=self.seed, where=where)
        return loss


def _climb(drawn: _Batches, lr: float, rose: float, until: TimeLimit) -> _Climb:
    workload = drawn.workload
    model = workload.model(drawn.seed)
    update = Update(workload, model, lr)
    follows = _follows(workload, model, update.optimizer, lr)
    climb = _Climb()
    batch, before = _StepBatch(micro_batches=drawn.first), None
    began = until.now
    while climb.steps < _MOST_STEPS:
        each_s = (until.now - began) / max(1, climb.steps)
        climb.cut_short = bool(climb.lrs) and (until.passed or each_s > until.left_s)
        if climb.cut_short:
            break
        growth = _GROWTH ** len(climb.lrs)
        update.set_factor(growth, only=follows)
        climb.losses.append(drawn.loss(update, batch, before))
        climb.lrs.append(growth * lr)
        climb.broke = _suspect(climb.losses, rose)
        if climb.broke is not None and math.isfinite(climb.losses[climb.broke]):
            update.clear()
            climb.checks += 1
            if not _has_risen(climb.losses, rose, float(update.gradients(drawn.first))):
                climb.broke = None
        if climb.broke is not None or _falls_no_longer(climb.losses):
            break
        update.apply()
        update.clear()
        batch, before = drawn.next(), batch
    return climb


def _suspect(losses: Sequence[float], rose: float) -> int | None:
    """Step at which training seems to have broken; `None`: it does not seem so.

    Its loss is beyond numbers, or far above the first ones and all that came after, like the next: of a batch with a
    few dear examples alone the loss is far above as well.
    """
    if not math.isfinite(losses[-1]):
        return len(losses) - 1
    at = len(losses) - _IN_A_ROW
    if at < _BEFORE:
        return None
    most = max(_far(losses, rose), *losses[:at])
    return at if min(losses[at:]) > most else None


def _far(losses: Sequence[float], rose: float) -> float:
    """What is far above the first losses."""
    start = losses[:_BEFORE]
    mean = statistics.fmean(start)
    return mean + max(max(start) - min(start), (rose - 1) * abs(mean))


def _has_risen(losses: Sequence[float], rose: float, again: float) -> bool:
    """Whether the loss of the first batch is half as far above its start: no other examples are then to blame."""
    half = 0.5 * (_far(losses, rose) - statistics.fmean(losses[:_BEFORE]))
    return not again - losses[0] <= half


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


def _expected(climb: _Climb, prior: LrPrior) -> tuple[float, float]:
    """The best learning rate, and the factor within which it is known, by the test and by the optimizer's class."""
    fall = _fall(climb.losses)
    told: list[tuple[float, float]] = []
    if climb.broke is not None:
        told.append((climb.lrs[climb.broke] / _CEILING_ABOVE_BEST, _CEILING_FACTOR))
    elif fall is not None:
        told.append((climb.lrs[fall[0]], _FALL_FACTOR))
    if prior.normalised or not told or (prior.hides_the_edge and prior.lr < told[0][0]):
        told.append((prior.lr, prior.factor))
    weights = [math.log(factor) ** -2 for _, factor in told]
    mean = sum(w * math.log(lr) for w, (lr, _) in zip(weights, told, strict=True)) / sum(weights)
    return math.exp(mean), math.exp(sum(weights) ** -0.5)


def _beginning(drawn: _Batches) -> tuple[float, LrPrior, int]:
    """Where the test begins, the prior of the optimizer, and the number of steps that it took to find out."""
    lr, steps = _TRIAL_LR, 1
    first = _first_move(drawn, lr, 1.0)
    while first.size < _LOST_IN_ROUNDING and steps < _MOST_TRIALS:
        lr, steps = _TRIAL_LR_GROWTH * lr, steps + 1
        first = _first_move(drawn, lr, 1.0)
    if (normalised := normalises(first.optimizer)) is None:
        scaled = _first_move(drawn, lr, _SCALE)
        normalised, steps = scaled.size < math.sqrt(_SCALE) * first.size, steps + 1
    layers = has_normalisation(first.model)
    groups = [group for group, follows in zip(first.optimizer.param_groups, first.follows, strict=True) if follows]
    prior = prior_of(
        first.optimizer, lr, batch_size=drawn.batch_size, normalised=normalised, groups=groups, layers_normalise=layers
    )
    return lr * _FIRST_MOVE / max(first.size, 1e-12), prior, steps


@dataclass(frozen=True, kw_only=True)
class _Move:
    """A first step: ‖update‖ ÷ ‖weights‖ of the groups that follow the learning rate, and what made it."""

    size: float
    model: nn.Module
    optimizer: Optimizer
    follows: list[bool]


def _first_move(drawn: _Batches, lr: float, scale: float) -> _Move:
    """A first step, the gradient multiplied by `scale`."""
    workload = drawn.workload
    model = workload.model(drawn.seed)
    update = Update(workload, model, lr)
    follows = _follows(workload, model, update.optimizer, lr)
    groups = zip(update.optimizer.param_groups, follows, strict=True)
    moving = [p for group, follow in groups if follow for p in group["params"]]
    before = [_exact(p).clone() for p in moving]
    update.optimizer.register_step_pre_hook(partial(_multiply, scale))
    drawn.loss(update, _StepBatch(micro_batches=drawn.first))
    update.apply()
    moved = [_exact(p) - b for p, b in zip(moving, before, strict=True)]
    size = _norm(moved) / max(_norm(before), 1e-12)
    return _Move(size=size, model=model, optimizer=update.optimizer, follows=follows)


def _follows(workload: Workload, model: nn.Module, optimizer: Optimizer, lr: float) -> list[bool]:
    """Which parameter groups of an optimizer that was made for a learning rate follow it."""
    halved = workload.optimizer(model, 0.5 * lr)
    full, half = ([float(group["lr"]) for group in each.param_groups] for each in (optimizer, halved))
    return groups_that_follow(full, half)


def _multiply(scale: float, optimizer: Optimizer, *_: Any) -> None:
    """Multiply the gradients that an optimizer is about to use."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is not None:
                p.grad.mul_(scale)


def _exact(weights: torch.Tensor) -> torch.Tensor:
    """Weights in double precision, complex ones too."""
    return weights.detach().to(torch.complex128 if weights.is_complex() else torch.float64)


def _norm(tensors: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float(torch.linalg.vector_norm(t)) ** 2 for t in tensors))
