"""The gradient noise scale of a task along a short run: the library function behind `batchscope noise`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..errors import OutOfTime, TaskError, UsageError
from ..fits.noise_scale import NoiseBlock, estimate, trace
from ..hardware.random_state import preserved_random_state
from ..probes.noise_scale import NoiseScale
from ..store.aims import watched_metric
from ..store.quantities import whole_number
from ..store.records import Estimate, Metric, Row, RunConfig, RunStatus, Target
from ..tasks.preflight.check import check
from ..tasks.workload import Workload
from .limits import Deadline
from .loop import train
from .lr_range import measure_rate_range

__all__ = ["NoiseReport", "default_batch_size", "measure_noise"]

_BATCH_SIZE = 64
_STEPS = 400
_READINGS = 100
_FEWEST_STEPS = 5
"""Of a run that says anything."""
_SHARE_FOR_RATES = 0.3
"""Of the time that is left, for the range test."""


@dataclass(frozen=True, kw_only=True)
class NoiseReport:
    """What a run says about its gradient noise, and the run's circumstances, without which the number means little."""

    task: str
    gradient_noise_scale: Estimate
    """Over the whole run, weighted by |G|²; see `fits.noise_scale`."""
    trace: tuple[NoiseBlock, ...]
    """Along the run, in stretches."""
    lr: float
    lr_source: str
    """Whether the learning rate was given, or how it was chosen."""
    batch_size: int
    groups: int
    """Micro-batch groups of a measured step."""
    status: RunStatus
    steps: int
    examples: int
    device_seconds: float
    """Seconds in training steps of this run; the choice of the learning rate is not in it."""
    notes: tuple[str, ...]


def measure_noise(
    workload: Workload,
    *,
    lr: float | None = None,
    batch_size: int | None = None,
    steps: int = _STEPS,
    target: Target | None = None,
    budget_s: float | None = None,
    seed: int = 0,
    groups: int = 2,
    deadline: Deadline | None = None,
    on_row: Callable[[Row], None] | None = None,
) -> NoiseReport:
    """Train a short run at one learning rate and batch size, and measure the gradient noise scale along it.

    Args:
        workload: the task on its device; it is checked first.
        lr: the learning rate; without one, a twelfth of the ceiling that a range test finds.
        batch_size: examples a step; default 64, less on a small data set.
        steps: optimizer steps at most.
        target: ends the run once it is reached.
        budget_s: wall-clock seconds; looked at after every step.
        seed: of the weights and of the order of the examples.
        groups: micro-batches aimed at in a measured step.
        deadline: of the whole command; default: the budget from now on.
        on_row: receives the run's rows as they are made.

    Returns:
        The report. A run that diverges or runs out of time is reported with what it measured until then.

    Raises:
        TaskError: the task breaks a rule, or its examples are not independent of one another (BatchNorm, negatives from
            the same batch), so that the statistics of micro-batches are not those of examples.
        UsageError: the batch cannot be cut into equal groups, or a number makes no sense.
        OutOfTime: the budget ended before the run, or at its first steps.

    Cost: `steps` training steps and `groups - 1` more passes over a micro-batch in about a hundred of them; without a
    learning rate, a range test of 10 to 20 steps before.
    """
    if budget_s is not None and not budget_s > 0:
        raise UsageError(f"the budget is {budget_s} seconds; it must be positive")
    clock = workload.device.wall_clock
    deadline = deadline or Deadline.after(math.inf if budget_s is None else budget_s, clock=clock)
    with deadline.spending("checking the task"):
        found = check(workload, target=target, lr=lr, until=deadline)
    if not found.independent:
        raise TaskError(
            f"{workload.name} has no gradient noise scale: {found.coupling}; put GroupNorm or LayerNorm in place of "
            "batch normalisation to measure it, or use `batchscope find`, which compares batch sizes without it"
        )
    steps = whole_number(steps, "--steps")
    batch_size = None if batch_size is None else whole_number(batch_size, "--batch-size")
    size = default_batch_size(workload.largest_batch()) if batch_size is None else batch_size
    probe = NoiseScale(groups=groups, every=max(1, steps // _READINGS))
    cut = _checked_groups(probe, size, workload.largest_batch(size))
    source = "given"
    if lr is None:
        deadline.require()
        share = deadline.share(_SHARE_FOR_RATES)
        with deadline.spending("the range test of the learning rate"):
            test = measure_rate_range(workload, batch_size=size, micro_batch_size=size, seed=seed, until=share)
        lr, source = test.pilot_lr, f"from a range test of {test.steps} steps up to {test.ceiling_lr:.3g}"
    watched = watched_metric(found.metrics)
    config = _configuration(
        workload, lr=lr, batch_size=size, steps=steps, target=target, metric=watched, seed=seed, groups=cut
    )
    rows: list[Row] = []

    def take(row: Row) -> None:
        rows.append(row)
        if on_row is not None:
            on_row(row)

    deadline.require(found.evaluation_s)
    ends = deadline.before(found.evaluation_s)
    result = train(workload, config, stop_rules=[ends], late=lambda: ends.passed, probes=[probe], on_row=take)
    if result.status is RunStatus.OUT_OF_TIME and result.steps < _FEWEST_STEPS:
        raise OutOfTime(needs_s=result.device_seconds / max(1, result.steps) * steps)
    whole = estimate(rows, examples=workload.examples_in_epoch)
    return NoiseReport(
        task=workload.name,
        gradient_noise_scale=whole,
        trace=trace(rows, examples=workload.examples_in_epoch),
        lr=lr,
        lr_source=source,
        batch_size=size,
        groups=cut,
        status=result.status,
        steps=result.steps,
        examples=result.examples,
        device_seconds=result.device_seconds,
        notes=(*found.notes, *_notes(workload, config, whole, result.status)),
    )


def default_batch_size(examples: int) -> int:
    """64, or the largest power of two that is at most a quarter of the data set; 2 at least."""
    return max(2, min(_BATCH_SIZE, 2 ** int(math.log2(max(1, examples // 4)))))


def _configuration(
    workload: Workload,
    *,
    lr: float,
    batch_size: int,
    steps: int,
    target: Target | None,
    metric: Metric,
    seed: int,
    groups: int,
) -> RunConfig:
    return RunConfig(
        task=workload.name,
        settings=workload.settings,
        batch_size=batch_size,
        micro_batch_size=batch_size,
        lr=lr,
        seed=seed,
        target=target,
        metric=metric,
        max_steps=steps,
        device=str(workload.device.torch_device),
        purpose="noise",
        noise_scale_groups=groups,
    )


def _checked_groups(probe: NoiseScale, batch_size: int, examples: int) -> int:
    if batch_size < 2:
        raise UsageError(f"--batch-size is {batch_size}; the noise scale is measured within a batch of 2 or more")
    if batch_size > examples:
        raise UsageError(
            f"--batch-size is {batch_size}, and the training set has {examples} examples; give at most that"
        )
    groups = probe.groups(0, batch_size, 1)
    if not groups:
        raise UsageError(
            f"a batch of {batch_size} examples cannot be cut into a few equal groups; choose an even batch size, "
            f"{batch_size - 1} for example"
        )
    return groups


def _notes(workload: Workload, config: RunConfig, whole: Estimate, status: RunStatus) -> list[str]:
    notes = [
        f"the noise scale belongs to a run at learning rate {config.lr:.3g} and batch size {config.batch_size}: it "
        "rises with batch size ÷ learning rate, and as training goes on",
        "the noise scale is a hint at the critical batch size, right to an order of magnitude at best (McCandlish et "
        "al. 2018)",
    ]
    with preserved_random_state(config.seed):
        optimizer = workload.optimizer(workload.model(config.seed), config.lr)
    if not isinstance(optimizer, torch.optim.SGD):
        notes.append(
            f"the optimizer is {type(optimizer).__name__}: this noise scale weighs raw gradients, not its steps; under "
            "Adam it was found orders of magnitude below the critical batch size (Merrill et al. 2025)"
        )
    if workload.before_update is not None:
        notes.append("it weighs the gradients of the loss, before before_update(model) changes them (clipping)")
    if whole.high is None:
        notes.append(_open(whole))
    if status not in (RunStatus.REACHED, RunStatus.OUT_OF_STEPS):
        notes.append(f"the run {status.meaning}")
    return notes


def _open(whole: Estimate) -> str:
    if whole.low is None:
        return f"{whole.n} readings are too few for an interval; allow more steps"
    return (
        f"noise hid the gradient: the noise scale is at least {whole.low:.3g} examples, and has no upper bound; more "
        "steps or a larger batch would give one"
    )
