"""The training loop, for one run.

It trains a fresh model at one configuration until the target is reached or a stop rule ends it, evaluates on a
geometric grid of steps, and returns a result for every way to end: a diverged run is a result, not an exception.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from .device import lack_of_memory_named
from .probes.base import Probe
from .records import Row, RunConfig, RunResult, RunStatus
from .stopping import History, StopRule, without_end
from .task import Batch
from .workload import Workload, preserved_random_state

__all__ = ["train"]

_DATA_SEED_OFFSET = 1_000_003
"""The data order and the weights are drawn from different seeds."""


def train(
    workload: Workload,
    config: RunConfig,
    *,
    stop_rules: Sequence[StopRule] = (),
    probes: Sequence[Probe] = (),
    on_row: Callable[[Row], None] | None = None,
) -> RunResult:
    """Train one run.

    Args:
        workload: the task on its device.
        config: everything that decides the run's course.
        stop_rules: asked after each evaluation, in order; the first that answers ends the run.
        probes: measured inside the run.
        on_row: receives every evaluation and every probe's row, as it is made.

    Returns:
        The result; `steps_to_target` is interpolated in log steps. The hash of the rows is the store's to fill in.

    Raises:
        OutOfMemory: a step did not fit.

    The caller's random state is left as it was. Cost: `config.max_steps` training steps at most, and an evaluation each
    time the number of steps has grown by `config.evaluation_growth`.
    """
    with preserved_random_state(config.seed):
        run = _Run.prepare(workload, config, on_row or (lambda row: None), probes)
        with lack_of_memory_named(workload.device, config.micro_batch_size):
            return run.until_stopped(stop_rules)


@dataclass
class _Run:
    workload: Workload
    config: RunConfig
    on_row: Callable[[Row], None]
    probes: Sequence[Probe]
    model: nn.Module
    optimizer: Optimizer
    base_lrs: list[float]
    history: History
    device_seconds: float = 0.0

    @classmethod
    def prepare(
        cls, workload: Workload, config: RunConfig, on_row: Callable[[Row], None], probes: Sequence[Probe]
    ) -> _Run:
        model = workload.model(config.seed)
        optimizer = workload.optimizer(model, config.lr, config.optimizer_changes)
        base_lrs = [float(group["lr"]) for group in optimizer.param_groups]
        first = workload.evaluate(model)
        history = History(target=config.target or without_end(sorted(first)))
        run = cls(workload, config, on_row, probes, model, optimizer, base_lrs, history)
        run._record(0, None, first)
        return run

    def until_stopped(self, stop_rules: Sequence[StopRule]) -> RunResult:
        config, device = self.config, self.workload.device
        batches = self.workload.micro_batches(config.batch_size, self._parts, config.seed + _DATA_SEED_OFFSET)
        due, step = 1, 0
        loss_sum, loss_steps = torch.zeros((), device=device.torch_device), 0
        started = device.clock()
        for micro_batches in batches:
            loss_sum += self._step(step, micro_batches)
            step, loss_steps = step + 1, loss_steps + 1
            if step < due and step < config.max_steps:
                continue
            self.device_seconds += device.clock() - started
            train_loss = float(loss_sum) / loss_steps
            self._record(step, train_loss, self.workload.evaluate(self.model))
            if (status := self._ended(step, stop_rules)) is not None:
                return self._result(status, step)
            due = max(step + 1, math.ceil(step * config.evaluation_growth))
            loss_sum, loss_steps = torch.zeros_like(loss_sum), 0
            started = device.clock()
        raise AssertionError("the stream of batches is endless")

    def _step(self, step: int, micro_batches: list[Batch]) -> torch.Tensor:
        config = self.config
        self._schedule(step)
        probes = [probe for probe in self.probes if self._groups(probe, step)]
        loss_sum = torch.zeros((), device=self.workload.device.torch_device)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer.zero_grad(set_to_none=True)
        for batch in micro_batches:
            loss = self.workload.loss(self.model, batch) / len(micro_batches)
            loss.backward()
            loss_sum += loss.detach()
            for probe in probes:
                probe.after_micro_batch(parameters)
        for probe in probes:
            if (row := probe.after_step(step, config.batch_size)) is not None:
                self.on_row(row)
        self.optimizer.step()
        return loss_sum

    def _parts(self, step: int) -> int:
        """Micro-batches of a step: the configuration's, or as many as the probe that wants most."""
        least = self.config.grad_accum_steps * self.config.world_size
        return max([least, *(self._groups(probe, step) for probe in self.probes)])

    def _groups(self, probe: Probe, step: int) -> int:
        config = self.config
        return probe.groups(step, config.batch_size, config.grad_accum_steps * config.world_size)

    def _schedule(self, step: int) -> None:
        config = self.config
        if config.schedule == "constant" and not config.warmup_steps:
            return
        factor = schedule_factor(config.schedule, step, config.max_steps, config.warmup_steps)
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = base * factor

    def _record(self, step: int, train_loss: float | None, metrics: Mapping[str, float]) -> None:
        self.history.add(step, train_loss, metrics)
        self.on_row(
            {
                "kind": "evaluation",
                "step": step,
                "examples": step * self.config.batch_size,
                "device_seconds": self.device_seconds,
                "train_loss": train_loss,
                "metrics": metrics,
            }
        )

    def _ended(self, step: int, stop_rules: Sequence[StopRule]) -> RunStatus | None:
        if self.history.reached:
            return RunStatus.REACHED
        if self.history.diverged:
            return RunStatus.DIVERGED
        for rule in stop_rules:
            if (status := rule(self.history)) is not None:
                return status
        return RunStatus.OUT_OF_STEPS if step >= self.config.max_steps else None

    def _result(self, status: RunStatus, step: int) -> RunResult:
        history = self.history
        return RunResult(
            status=status,
            message=status.meaning,
            steps=step,
            examples=step * self.config.batch_size,
            device_seconds=self.device_seconds,
            steps_to_target=history.steps_to_target,
            first=history.metrics[0],
            last=history.metrics[-1],
            best=history.metrics[history.best_index],
            best_step=history.steps[history.best_index],
        )


def schedule_factor(schedule: str, step: int, total: int, warmup: int = 0) -> float:
    """What the rate is multiplied by in 0-based `step` of `total`: linear warm-up, then constant, or decay to zero.

    >>> [round(schedule_factor("linear", s, 4), 2) for s in range(4)]
    [1.0, 0.75, 0.5, 0.25]
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    if schedule == "linear":
        return 1.0 - progress
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0
