"""The runner: makes a run, stores it as it goes, and leaves the folder so that any interruption can be gone on from.

A run's rows are on the disk as they come, its kept weights before its result, its result after them, its checkpoint
last. Whatever raises in the middle leaves the run unfinished, to be made again from its seed. A paused run is a result
too; its training stays in memory, so that it can go on from there. Where it is gone (another process, too many of
them, a run that had come to its end), it goes on from its checkpoint; where there is none, the run is made again from
its seed when it is wanted, and comes to the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from ..hardware.device import lack_of_memory_named
from ..probes.base import Observer, Probe
from ..probes.kept_weights import Keep, KeptWeights
from ..probes.noise_scale import probes_of
from ..store.records import Row, RunConfig, RunResult, RunStatus
from ..store.runs import RunWriter, Store, StoredRun, run_id
from ..tasks.workload import Workload
from .attempts import Trials
from .checkpoint import Checkpoint, Checkpoints
from .limits import Deadline
from .loop import Training
from .memory_growth import MemoryGrowth
from .progress import Heartbeat, Progress
from .stopping import StepLimitRule, StopRule
from .weights import save_weights, weights_file

__all__ = ["Runner"]

_MOST_PAUSED = 8
_MOST_LOADING = 2
"""Paused runs whose loader workers wait: those of a stream, which others would have to read again up to there."""


@dataclass(kw_only=True)
class _Begun:
    """A training in memory, the weights that are kept of it, and what is seen of its memory."""

    training: Training
    kept: KeptWeights
    growth: MemoryGrowth


@dataclass(kw_only=True)
class Runner:
    """Makes runs and keeps them.

    Attributes:
        workload: the task on its device.
        store: where runs are kept.
        progress: hears of each run that begins, and its rows.
        deadline: when nothing more is begun.
        at_deadline: what becomes of a run that the deadline meets: `end` evaluates it once more and ends it, as a
            result (`out-of-time`); `cut` cuts it between two steps, and it stays unfinished.
        checkpoints: of the folder; `None`: none are written or read.
    """

    workload: Workload
    store: Store
    progress: Progress
    deadline: Deadline
    at_deadline: Literal["end", "cut"]
    checkpoints: Checkpoints | None = None
    _paused: dict[str, _Begun] = field(default_factory=dict[str, _Begun])

    def make(
        self,
        config: RunConfig,
        why: str,
        left: str = "",
        *,
        rules: Sequence[StopRule] = (),
        pauses: Sequence[StopRule] = (),
        probes: Sequence[Probe] = (),
        observers: Sequence[Observer] = (),
        keep: Sequence[Keep] = (),
        workload: Workload | None = None,
        deadline: Deadline | None = None,
        on_row: Callable[[Row], None] | None = None,
        at_end: Callable[[nn.Module, RunResult], None] | None = None,
        expected_steps: float | None = None,
        stored: StoredRun | None = None,
    ) -> StoredRun:
        """Train a run and keep it; one that is paused in memory goes on, one that is finished is made anew.

        Args:
            config: of the run.
            why: for whoever watches.
            left: what is left after it, for whoever watches.
            rules: that end it, besides the deadline.
            pauses: rules that are asked before the deadline.
            probes: beside those of the configuration; like observers, of a run that begins.
            observers: made for this run alone.
            keep: when its weights are kept.
            workload: the task, where it is not the runner's.
            deadline: an earlier one than the runner's.
            on_row: receives the rows as they are made.
            at_end: receives the model by which a run that is not paused is judged, before its result is written.
            expected_steps: step at which it is expected to end, for whoever watches.
            stored: the run of the same course that goes on; from memory, from its checkpoint, or from its seed.

        Raises:
            CutOff: the deadline cut it; the run is left unfinished, as after each of the following.
            OutOfMemory: a step did not fit, or killed an earlier process.
            TaskError: the task failed in the middle, or its memory grows without end.
            StoreError: the disk refuses.
        """
        self.progress.run_started(config, why, left, expected_steps)
        task, limit = workload or self.workload, deadline or self.deadline
        begun = self._paused.pop(stored.id if stored else run_id(config), None)
        goes_on = self._checkpoint(stored, task, config) if stored and begun is None else None
        writer = self._writer(config, stored, goes_on, in_memory=begun is not None)
        kept = begun.kept if begun else KeptWeights(keep, config, task.examples_in_epoch)

        def take(row: Row) -> None:
            writer.append(row)
            kept.see(row)
            self.progress.row(row)
            if on_row is not None:
                on_row(row)

        try:
            with (
                Trials(self.store, task.device).of_run(writer.id, config, begun and begun.growth) as growth,
                lack_of_memory_named(task.device, config.micro_batch_size),
            ):
                if begun is None:
                    measured = [*probes_of(config), *probes]
                    beat = Heartbeat(self.progress)
                    watching = [*([kept] if keep else []), *observers, *self._cut(limit, config), growth, beat]
                    watch: dict[str, Any] = {"probes": measured, "observers": watching, "on_row": take}
                    training = Training(task, config, **watch, goes_on=goes_on)
                    begun = _Begun(training=training, kept=kept, growth=growth)
                begun.training.aim(config)
                begun.training.to_device()
                ends = [limit] if self.at_deadline == "end" else []
                late = (lambda: limit.passed) if ends else (lambda: False)
                result = begun.training.advance([*pauses, *ends, *rules], take, late)
            if result.status is not RunStatus.PAUSED:
                self._save(writer.id, kept)
                if at_end is not None:
                    at_end(begun.training.judged, result)
            run = writer.finish(result)
            if self.checkpoints is not None:
                self.checkpoints.save(run, begun.training.state)
        except BaseException:
            writer.close()
            if begun is not None:
                begun.training.close()
            raise
        if result.status is RunStatus.PAUSED:
            self._wait(run.id, begun)
        return run

    def train_again(
        self,
        run: StoredRun,
        keep: Sequence[Keep],
        *,
        steps: int,
        why: str = "for its weights",
        rules: Sequence[StopRule] = (),
        probes: Sequence[Probe] = (),
        workload: Workload | None = None,
        deadline: Deadline | None = None,
        at_end: Callable[[nn.Module], None] | None = None,
    ) -> dict[Keep, dict[str, Any]]:
        """Train a finished run once more up to a step for weights that were not kept, and touch nothing of it.

        Args:
            run: a finished one, which follows from its configuration.
            keep: the moments.
            steps: where it ends.
            why: for whoever watches.
            rules: that it had.
            probes: that it had, beside those of its configuration.
            workload: the task, where it is not the runner's.
            deadline: after which it is cut; `None`: it goes on to its end.
            at_end: receives the model by which the run is judged, after that step.

        Returns:
            A `state_dict` for each moment that came.

        Raises:
            CutOff: the deadline cut it.
        """
        self.progress.run_started(run.config, why, "", float(steps))
        task = workload or self.workload
        kept = KeptWeights(keep, run.config, task.examples_in_epoch)
        measured = [*probes_of(run.config), *probes]
        cut = [deadline.between_steps(run.config.max_steps)] if deadline else []
        watching = [kept, *cut, Heartbeat(self.progress)]
        with (
            Trials(self.store, task.device).of("a run that is trained once more", run=run.id),
            lack_of_memory_named(task.device, run.config.micro_batch_size),
        ):
            training = Training(task, run.config, probes=measured, observers=watching, on_row=kept.see)
            with closing(training):
                training.advance([*rules, StepLimitRule(steps=steps)], late=lambda: training.steps == steps)
                if at_end is not None:
                    at_end(training.judged)
        return kept.states

    def _cut(self, deadline: Deadline, config: RunConfig) -> list[Observer]:
        return [deadline.between_steps(config.max_steps)] if self.at_deadline == "cut" else []

    def _save(self, name: str, kept: KeptWeights) -> None:
        for when, state in kept.states.items():
            save_weights(state, weights_file(self.store.folder(name), when))

    def _checkpoint(self, stored: StoredRun, task: Workload, config: RunConfig) -> Checkpoint | None:
        """Where a stored run can go on; `None` where it must begin again."""
        if self.checkpoints is None or stored.result is None:
            return None
        found = self.checkpoints.load(stored)
        if found is not None and not found.fits(task, config):
            return None
        return found

    def _writer(
        self, config: RunConfig, stored: StoredRun | None, goes_on: Checkpoint | None, *, in_memory: bool
    ) -> RunWriter:
        name = stored.id if stored else run_id(config)
        if in_memory:
            return self.store.go_on(config, name)
        if goes_on is not None:
            return self.store.go_on(config, name, len(goes_on.rows))
        if stored.result is not None if stored else self.store.finished(config) is not None:
            self.store.reopen(config, name)
        return self.store.start(config, name)

    def _wait(self, name: str, begun: _Begun) -> None:
        """Keep the training of a paused run; the oldest is let go when there are too many."""
        begun.training.to_host()
        self._paused[name] = begun
        while len(self._paused) > _MOST_PAUSED:
            self._paused.pop(next(iter(self._paused))).training.close()
        loading = [each.training for each in self._paused.values() if each.training.loads]
        for training in loading[:-_MOST_LOADING]:
            training.close()

    def close(self) -> None:
        """Let go of all paused trainings; the workers that load for them end."""
        while self._paused:
            self._paused.popitem()[1].training.close()
