"""The training loop, for one run.

It trains a fresh model at one configuration until the target is reached or a stop rule ends it, evaluates on a
geometric grid of steps, and returns a result for every way to end: a diverged run is a result, not an exception.
A stop is a pause as long as the `Training` lives: it can go on, and comes to where it would have come in one go. No
loader worker waits for that where others can take its place at little cost (`Workload.workers_return`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..hardware.device import lack_of_memory_named
from ..hardware.random_state import RandomState, preserved_random_state
from ..probes.base import Observer, Probe
from ..store.aims import aim_of
from ..store.records import Row, RunConfig, RunResult, RunStatus
from ..tasks.protocol import Batch
from ..tasks.update import Update
from ..tasks.user_code import dead_worker_named
from ..tasks.workload import Workload
from .checked_evaluation import CheckedEvaluations
from .checkpoint import Checkpoint, state_of
from .divergence import LossWatch, set_schedule
from .evaluation_grid import next_evaluation
from .replay import ended, result_of
from .step_clock import StepClock
from .stopping import History, StopRule

__all__ = ["Training", "train"]

_DATA_SEED_OFFSET = 1_000_003
"""The data order and the weights are drawn from different seeds."""


def train(
    workload: Workload,
    config: RunConfig,
    *,
    stop_rules: Sequence[StopRule] = (),
    probes: Sequence[Probe] = (),
    observers: Sequence[Observer] = (),
    on_row: Callable[[Row], None] | None = None,
    late: Callable[[], bool] = lambda: False,
) -> RunResult:
    """Train one run.

    Args:
        workload: the task on its device.
        config: everything that decides the run's course.
        stop_rules: asked after each evaluation, in order; the first that answers ends the run.
        probes: measured inside the run's steps, from their gradients.
        observers: measured from the weights, after updates and at evaluations.
        on_row: receives every evaluation and every probe's row, as it is made.
        late: asked after each step: whether the next evaluation is to come now.

    Returns:
        The result; `steps_to_target` is interpolated in log steps. The hash of the rows is the store's to fill in.

    Raises:
        OutOfMemory: a step did not fit.

    The caller's random state is left as it was. Cost: `config.max_steps` training steps at most, and an evaluation at
    each step of `evaluation_grid`.
    """
    training = Training(workload, config, probes=probes, observers=observers, on_row=on_row)
    with closing(training):  # also where a rule pauses it
        return training.advance(stop_rules, late=late)


class Training:
    """A run in progress.

    Args and errors as for `train`; one that `goes_on` from a checkpoint of its course has no observers, and makes the
    steps that it would have made without a stop. The model is made, and evaluated once, before this returns,
    unless another run of the workload began with the same weights.

    Attributes:
        model: as it stands.
        config: everything that decides the run's course.
        steps: made so far.
    """

    def __init__(
        self,
        workload: Workload,
        config: RunConfig,
        *,
        probes: Sequence[Probe] = (),
        observers: Sequence[Observer] = (),
        on_row: Callable[[Row], None] | None = None,
        goes_on: Checkpoint | None = None,
    ) -> None:
        self.workload, self.config, self.probes, self.observers = workload, config, probes, observers
        self._on_row = on_row or (lambda row: None)
        with preserved_random_state(config.seed), workload.device.using_threads(config.num_threads):
            self.model = workload.model(config.seed)
            self._update = Update(workload, self.model, config.lr, config.optimizer_changes)
            self._evaluations = CheckedEvaluations(workload, config)
            first = self._evaluations.at_start(self.model, self._update.averaged) if goes_on is None else {}
            self._random = RandomState.capture() if goes_on is None else goes_on.put_into(self.model, self._update)
        self._clock = StepClock(workload.device)
        self._history = History(target=aim_of(config, first)) if goes_on is None else goes_on.history(config)
        for observer in observers:
            observer.begin(self.model, self._update.optimizer)
        if goes_on is None:
            self._record(0, None, first)
        else:
            self._clock.go_on(goes_on.evaluations[-1])
            self._evaluations.go_on(goes_on.evaluations)
        self.steps = goes_on.step if goes_on else 0
        self._parts = _Parts(config=config, probes=probes)
        self._batches: Generator[list[Batch]] | None = None
        self._watch = LossWatch(workload, config, self._data_seed, self._parts, self._clock)
        self._due = self._next_evaluation(self.steps)
        self._moved: list[tuple[Any, Any, torch.device]] = []

    @property
    def _data_seed(self) -> int:
        return self.config.seed + _DATA_SEED_OFFSET

    @property
    def judged(self) -> nn.Module:
        """The model whose metric the run is judged by: the averaged one, where that metric is of its weights."""
        averaged = self._update.averaged
        if averaged is not None and self.workload.judges_averaged(self._history.target.metric):
            return averaged
        return self.model

    def advance(
        self,
        stop_rules: Sequence[StopRule] = (),
        on_row: Callable[[Row], None] | None = None,
        late: Callable[[], bool] = lambda: False,
    ) -> RunResult:
        """Train until something ends the run, or pauses it.

        Args:
            stop_rules: asked after each evaluation, in order; the first that answers ends this call.
            on_row: receives the rows from here on, instead of the one given before.
            late: asked after each step: whether the next evaluation is to come now, wherever the run is.

        Returns:
            The result so far.

        Raises:
            OutOfMemory: a step did not fit.
            TaskError: the task failed in the middle, or a loader worker died or hangs.
        """
        self._on_row = on_row or self._on_row
        status = None
        try:
            with (
                preserved_random_state(self.config.seed),
                self.workload.device.using_threads(self.config.num_threads),
                lack_of_memory_named(self.workload.device, self.config.micro_batch_size),
                dead_worker_named(),
            ):
                self._random.restore()
                result = self._until_stopped(stop_rules, late)
                self._random = RandomState.capture()
            status = result.status
        finally:
            if status is not RunStatus.PAUSED or self.workload.workers_return:
                self.close()
        return result

    @property
    def loads(self) -> bool:
        """Whether loader workers of the run wait for it to go on."""
        return self._batches is not None and self.workload.loader_workers > 0

    def close(self) -> None:
        """End the workers that load for the run; others load from there on, if it goes on all the same."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None

    def aim(self, config: RunConfig) -> None:
        """Go on as another configuration of the same course: another end, other rules."""
        if config == self.config:
            return
        before, self.config = self._history, config
        self._history = History(target=aim_of(config, before.metrics[0]))
        for step, loss, metrics in zip(before.steps, before.train_losses, before.metrics, strict=True):
            self._history.add(step, loss, metrics)

    def state(self) -> dict[str, Any]:
        """All that another process needs to go on from here, tensors on the host; the evaluations are in the rows."""
        return state_of(self.steps, self.model, self._update, self._random)

    def to_host(self) -> None:
        """Leave the device's memory to other runs; on the host it stays as it is."""
        if self.workload.device.torch_device.type == "cpu":
            return
        self.model.to("cpu")
        if self._update.averaged is not None:
            self._update.averaged.to("cpu")
        for state in self._update.optimizer.state.values():
            for key, value in state.items():
                if isinstance(value, torch.Tensor) and value.device.type != "cpu":
                    self._moved.append((state, key, value.device))
                    state[key] = value.to("cpu")

    def to_device(self) -> None:
        """Return to the device after `to_host`."""
        self.model.to(self.workload.device.torch_device)
        if self._update.averaged is not None:
            self._update.averaged.to(self.workload.device.torch_device)
        for state, key, device in self._moved:
            state[key] = state[key].to(device)
        self._moved = []

    def _until_stopped(self, stop_rules: Sequence[StopRule], late: Callable[[], bool]) -> RunResult:
        config, device = self.config, self.workload.device
        loss_sum, loss_steps = torch.zeros((), device=device.torch_device), 0
        if self._batches is None:
            self._batches = self.workload.micro_batches(config.batch_size, self._parts, self._data_seed, self.steps)
        self._clock.begin()
        for micro_batches in self._batches:
            with self._watch.step(self.steps, micro_batches):
                loss = self._step(self.steps, micro_batches)
            loss_sum += loss
            self._watch.see(self.steps, micro_batches, loss)
            self._clock.step(plain=not self._parts.reading(self.steps))
            self.steps, loss_steps = self.steps + 1, loss_steps + 1
            step = self.steps
            if step < self._due and step < config.max_steps and not late():
                continue
            self._clock.end()
            metrics = self._evaluations.evaluate(self.model, step, self._update.averaged)
            self._due = self._next_evaluation(step)
            train_loss, metric = float(loss_sum) / loss_steps, self._history.target.metric
            self._watch.at_evaluation(step, train_loss, metric, metrics.get(metric, math.nan), self.judged)
            self._record(step, train_loss, metrics)
            if (status := ended(self._history, config.max_steps, stop_rules)) is not None:
                seconds = self._clock.seconds
                return result_of(self._history, status, batch_size=config.batch_size, device_seconds=seconds)
            loss_sum, loss_steps = torch.zeros_like(loss_sum), 0
            self._clock.begin()
        raise AssertionError("the stream of batches is endless")

    def _step(self, step: int, micro_batches: list[Batch]) -> torch.Tensor:
        set_schedule(self.workload, self.config, self._update, step)
        probes = self._parts.reading(step)
        parameters = [p for p in self.model.parameters() if p.requires_grad]

        def read(share: float, scale: float) -> None:
            for probe in probes:
                probe.after_micro_batch(parameters, share, scale)

        self._update.clear()
        loss = self._update.gradients(micro_batches, read if probes else None)
        for probe in probes:
            self._keep(probe.after_step(step, self.config.batch_size))
        self._update.apply()
        for observer in self.observers:
            self._keep(observer.after_update(step + 1))
        return loss

    def _keep(self, row: Row | None) -> None:
        if row is not None:
            self._on_row(row)

    def _next_evaluation(self, step: int) -> int:
        return next_evaluation(self.config, step, self._evaluations.made, self.workload.examples_in_epoch)

    def _record(self, step: int, train_loss: float | None, metrics: Mapping[str, float]) -> None:
        self._history.add(step, train_loss, metrics)
        self._on_row(
            {
                "kind": "evaluation",
                "step": step,
                "examples": step * self.config.batch_size,
                **self._clock.members(),
                "evaluation_seconds": self._evaluations.seconds,
                "train_loss": train_loss,
                "metrics": metrics,
            }
        )
        for observer in self.observers:
            self._keep(observer.at_evaluation(step))


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """Micro-batches of each step of a run. It is asked by the loader, and holds nothing of the training itself."""

    config: RunConfig
    probes: Sequence[Probe]

    def __call__(self, step: int) -> int:
        """As many as the configuration has, or as the probe that wants most."""
        return max([self._configured, *(self._groups(probe, step) for probe in self.probes)])

    def reading(self, step: int) -> list[Probe]:
        """The probes that read in a step."""
        return [probe for probe in self.probes if self._groups(probe, step)]

    @property
    def _configured(self) -> int:
        return self.config.grad_accum_steps * self.config.world_size

    def _groups(self, probe: Probe, step: int) -> int:
        return probe.groups(step, self.config.batch_size, self._configured)
