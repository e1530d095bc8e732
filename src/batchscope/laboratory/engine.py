"""Where the runs of a study are made: what a named study is given to work with.

Every run is made once and kept; a repeated command reads it. A run that the budget cuts off is left unfinished, and is
made again from its seed when the command is repeated.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import nn

from ..errors import OutOfMemory, UsageError
from ..fits.step_time import StepTime
from ..hardware.device import Device, lack_of_memory_named
from ..probes.base import Observer, Probe
from ..probes.kept_weights import Keep, KeptWeights
from ..probes.train_part import TrainPart
from ..store.files import explained, read_json
from ..store.records import Row, RunConfig, RunStatus, Target
from ..store.runs import Store, StoredRun
from ..tasks.loading import LoadedTask
from ..tasks.workload import Workload
from ..training.limits import CutOff, Deadline, SecondsRule
from ..training.loop import Training
from ..training.progress import Progress
from ..training.stopping import PatienceRule, RoseRule, StepLimitRule
from .records import EXAMPLES_OF_RUN, TRAIN_PART, Arm, StudyQuestion

__all__ = ["Keep", "Laboratory"]

_MEASURED = "measured-"
_EVALUATIONS = 30
"""Of a run whose length is given in steps or seconds, unless an epoch is shorter."""
_ENDLESS = 10**9
_TASK_MEMBERS = ("model", "train_data", "loss", "optimizer", "evaluate", "batch_size", "collate", "metrics_on")
_MOST_PARTS = 4


@dataclass
class Laboratory:
    """Makes the runs of one study.

    Attributes:
        loaded: the task, as it was loaded.
        workload: the task on its device.
        question: what is asked.
        target: the metric that choices are made by, with a value that no run reaches.
        store: where runs are kept.
        progress: told what happens.
        step_time: step-time model of this machine.
        arms: what the study said it would train.
        deadline: when the budget is used up, on the monotonic clock.
    """

    loaded: LoadedTask
    workload: Workload
    question: StudyQuestion
    target: Target
    store: Store
    progress: Progress
    step_time: StepTime
    arms: Sequence[Arm]
    deadline: float
    expected: int | None = None
    """How many runs there will be at most, where it is more than the arms over the seeds."""
    cut_off: bool = False
    """Whether a run that was asked for could not be made in time."""
    _done: int = 0
    _best: tuple[float, str] | None = None
    _parts: dict[Workload, TrainPart | None] = field(default_factory=dict)

    @property
    def examples(self) -> int:
        """Training examples of the task as it came."""
        return self.workload.examples

    @property
    def device(self) -> Device:
        """Where runs are made."""
        return self.workload.device

    @property
    def planned(self) -> int:
        """How many runs the study said it would make, at most."""
        return self.expected or len(self.arms) * len(self.question.seeds)

    @property
    def late(self) -> bool:
        """Whether the budget is used up, so that nothing more should be begun."""
        return time.monotonic() >= self.deadline

    def run_all(
        self,
        arms: Iterable[Arm] | None = None,
        *,
        workload: Callable[[Arm, int], Workload] | None = None,
        observers: Callable[[Arm, Workload], Sequence[Observer]] | None = None,
        probes: Callable[[Arm, Workload], Sequence[Probe]] | None = None,
        keep: Sequence[Keep] = (),
    ) -> tuple[StoredRun, ...]:
        """Every arm for every seed, seed by seed, so that a budget that ends early leaves whole grids.

        Args:
            arms: what to train; default: what the study said it would.
            workload: of an arm and a seed, where it is not the task as it came.
            observers: made afresh for each run.
            probes: likewise.
            keep: when the weights of each run are kept.

        Returns:
            The finished runs, in that order; without those for which no time was left.
        """
        found: list[StoredRun | None] = []
        chosen = tuple(self.arms if arms is None else arms)
        for seed in self.question.seeds:
            for arm in chosen:
                task = workload(arm, seed) if workload else self.workload
                found.append(
                    self.run(
                        arm,
                        seed,
                        workload=task,
                        observers=observers(arm, task) if observers else (),
                        probes=probes(arm, task) if probes else (),
                        keep=keep,
                    )
                )
        return tuple(run for run in found if run is not None)

    def run(
        self,
        arm: Arm,
        seed: int,
        *,
        workload: Workload | None = None,
        observers: Sequence[Observer] = (),
        probes: Sequence[Probe] = (),
        keep: Sequence[Keep] = (),
    ) -> StoredRun | None:
        """One run: made, or read where it is finished.

        Args:
            arm: what to train.
            seed: of the weights and of the order of the examples.
            workload: the task, where it is not as it came; the arm's `variant` must name the difference.
            observers: of this run alone; their rows are stored with it.
            probes: likewise.
            keep: when its weights are kept, for `weights`.

        Returns:
            The finished run; `None`: no time was left for it.

        Raises:
            UsageError: a step does not fit into memory, or the batch is larger than the training set.
            TaskError: the task failed in the middle.
            StoreError: the disk refuses.
        """
        task = workload or self.workload
        config = self.config(arm, seed, task)
        run = self.store.finished(config)
        if run is not None and (
            all(self._kept(run, when, task.examples) for when in keep) or self._keep_again(arm, run, task, keep)
        ):
            self._best_with(run)
            self._done += 1
            return run
        if run is not None or self.late:
            self.cut_off = True
            return None
        run = self._make(arm, config, task, observers, probes, keep)
        self.cut_off |= run is None
        return run

    def _keep_again(self, arm: Arm, run: StoredRun, workload: Workload, keep: Sequence[Keep]) -> bool:
        """Train a finished run once more for weights that were not kept, and touch nothing else of it.

        Returns:
            Whether there was time.
        """
        if self.late or run.result is None:
            return False
        kept = KeptWeights(keep, run.config, workload.examples)
        watching = [kept, Deadline(self.deadline, run.config)]
        self.progress.run_started(run.config, ", ".join(filter(None, (arm.variant, "for its weights"))), "")
        try:
            training = Training(workload, run.config, observers=watching, on_row=kept.see)
            training.advance([RoseRule(), StepLimitRule(steps=run.result.steps), *_patience(arm, workload.examples)])
        except CutOff:
            return False
        self._save(run.id, kept)
        return True

    def made(self, arm: Arm, seed: int) -> bool:
        """Whether the run of an arm is finished, on the task as it came."""
        return self.store.finished(self.config(arm, seed)) is not None

    def examples_of(self, run: StoredRun) -> int:
        """In the training set of a run, which a study may have changed."""
        return int(run.config.settings.get(EXAMPLES_OF_RUN, self.examples))

    def config(self, arm: Arm, seed: int, workload: Workload | None = None) -> RunConfig:
        """Everything that decides the course of an arm's run.

        Raises:
            UsageError: the batch is larger than the training set, or a decaying schedule has no end.
        """
        task = workload or self.workload
        if arm.batch_size > task.examples:
            raise UsageError(
                f"a batch size of {arm.batch_size} is larger than the training set of {task.examples} examples; "
                f"give batch sizes of at most {task.examples}"
            )
        steps, length = arm.length.steps(task.examples, arm.batch_size), arm.length
        if arm.schedule != "constant" and length.unit in ("seconds", "until-stopped"):
            raise UsageError(f"a {arm.schedule} schedule decays over a known number of steps; give --epochs or --steps")
        settings = {**task.settings, **({"variant": arm.variant} if arm.variant else {})}
        if task.examples != self.examples:
            settings[EXAMPLES_OF_RUN] = task.examples
        if length.unit in ("seconds", "until-stopped"):
            settings["until"] = str(length)
        return RunConfig(
            task=task.name,
            settings=settings,
            batch_size=arm.batch_size,
            micro_batch_size=arm.batch_size,
            lr=arm.lr,
            optimizer_changes=arm.optimizer_changes,
            schedule=arm.schedule,
            warmup_steps=arm.warmup_steps,
            seed=seed,
            target=self.target,
            max_steps=steps or _ENDLESS,
            evaluation_epochs=self._spacing(arm, task.examples),
            device=str(self.device.torch_device),
            purpose="study",
        )

    def changed(self, **members: Any) -> Workload:
        """The task with members exchanged: `optimizer=`, `model=`, `loss=`, `train_data=`, ...

        The arm of a run with it must have a `variant` of its own.
        """
        own = {name: getattr(self.loaded.task, name) for name in _TASK_MEMBERS if hasattr(self.loaded.task, name)}
        task: Any = SimpleNamespace(**{**own, **members})
        return Workload(task, name=self.loaded.name, settings=self.loaded.settings, device=self.device)

    def starting_from(self, weights: Mapping[str, Any]) -> Workload:
        """The task, whose runs begin at these weights; the optimizer begins afresh.

        The arm of a run with it must have a `variant` of its own, which says whose weights they are.
        """
        make = self.loaded.task.model

        def model() -> nn.Module:
            fresh = make()
            fresh.load_state_dict(weights)
            return fresh

        return self.changed(model=model)

    def weights(self, run: StoredRun, when: Keep) -> dict[str, Any]:
        """The `state_dict` that was kept of a run, on the CPU.

        Raises:
            StoreError: it cannot be read.
        """
        path = self._weights_file(run.id, when)
        with explained(path):
            return cast(dict[str, Any], torch.load(path, map_location="cpu", weights_only=True))

    def model(self, weights: Mapping[str, Any], workload: Workload | None = None) -> nn.Module:
        """A model of the task with these weights, on the device, in training mode."""
        model = (workload or self.workload).model(0)
        model.load_state_dict(weights)
        return model

    def note(self, name: str, data: Any) -> Any:
        """Keep a measurement of the study's own, in JSON types; it becomes `study.measurements[name]`.

        Returns:
            What will be read back: NaN and infinities are `None`.
        """
        self.store.note(f"{_MEASURED}{name}", data)
        return self.read_note(name)

    def read_note(self, name: str) -> Any:
        """A measurement kept by `note`; `None`: there is none."""
        path = self.store.root / f"{_MEASURED}{name}.json"
        return read_json(path) if path.exists() else None

    def measurements(self) -> dict[str, Any]:
        """All measurements, by name."""
        names = sorted(path.stem.removeprefix(_MEASURED) for path in self.store.root.glob(f"{_MEASURED}*.json"))
        return {name: self.read_note(name) for name in names}

    def _spacing(self, arm: Arm, examples: int) -> float:
        """Epochs from one evaluation to the next: one, or a thirtieth of a run that is shorter than thirty."""
        length = arm.length
        if length.unit in ("epochs", "until-stopped"):
            return 1.0
        steps = length.amount if length.unit == "steps" else length.amount / self.step_time.of_batch(arm.batch_size)
        return min(1.0, float(f"{max(1.0, steps / _EVALUATIONS) * arm.batch_size / examples:.3g}"))

    def _make(
        self,
        arm: Arm,
        config: RunConfig,
        workload: Workload,
        observers: Sequence[Observer],
        probes: Sequence[Probe],
        keep: Sequence[Keep],
    ) -> StoredRun | None:
        left = (
            f"{self._done} of {self.planned} runs done, at most {max(0.0, self.deadline - time.monotonic()):.0f} s left"
        )
        self.progress.run_started(config, ", ".join(filter(None, (arm.variant, f"seed {config.seed}"))), left)
        writer = self.store.start(config)
        kept, spent = KeptWeights(keep, config, workload.examples), SecondsRule(limit=_seconds(arm))

        def on_row(row: Row) -> None:
            writer.append(row)
            spent.see(row)
            kept.see(row)
            self.progress.row(row)

        part = self._train_part(workload)
        watching = [*([part] if part else []), *([kept] if keep else []), *observers, Deadline(self.deadline, config)]
        try:
            with lack_of_memory_named(self.device, config.micro_batch_size):
                training = Training(workload, config, probes=probes, observers=watching, on_row=on_row)
                result = training.advance([RoseRule(), spent, *_patience(arm, workload.examples)])
        except CutOff:
            writer.close()
            return None
        except OutOfMemory as error:
            writer.close()
            raise UsageError(f"{error}; leave batch sizes from {config.batch_size} on out of --batch-sizes") from error
        except BaseException:
            writer.close()
            raise
        self._save(writer.id, kept)
        run = writer.finish(result)
        self._done += 1
        self.progress.run_finished(run, self._best_with(run))
        return run

    def _train_part(self, workload: Workload) -> TrainPart | None:
        """What evaluates runs on this workload's training data; `None` where its loss refuses."""
        if workload not in self._parts:
            while len(self._parts) > _MOST_PARTS:
                del self._parts[next(iter(self._parts))]
            part = TrainPart(workload, chunk=min(1000, max(self.question.batch_sizes)))
            why = part.why_not()
            self._parts[workload] = part if why is None else None
            if why is not None:
                self.note(TRAIN_PART, why)
        return self._parts[workload]

    def _best_with(self, run: StoredRun) -> str:
        """The best run so far, in words."""
        value = run.result.best.get(self.target.metric) if run.result else None
        if value is not None and math.isfinite(value) and run.result and run.result.status is not RunStatus.DIVERGED:
            sign = 1.0 if self.target.mode == "min" else -1.0
            if self._best is None or sign * value < sign * self._best[0]:
                self._best = value, f"batch size {run.config.batch_size}, rate {run.config.lr:g}"
        return f"{self.target.metric} {self._best[0]:.4g} at {self._best[1]}" if self._best else ""

    def _save(self, run: str, kept: KeptWeights) -> None:
        for when, state in kept.states.items():
            path = self._weights_file(run, when)
            with explained(path):
                torch.save(state, path)

    def _kept(self, run: StoredRun, when: Keep, examples: int) -> bool:
        """Whether the weights are there, or the run ended before that moment."""
        made = (run.result.steps + 0.5) * run.config.batch_size if run.result else 0.0
        came = isinstance(when, str) or made >= when * examples
        return not came or self._weights_file(run.id, when).exists()

    def _weights_file(self, run: str, when: Keep) -> Path:
        name = when if isinstance(when, str) else f"epoch-{when:g}"
        return self.store.folder(run) / f"weights-{name}.pt"


def _seconds(arm: Arm) -> float:
    return arm.length.amount if arm.length.unit == "seconds" else math.inf


def _patience(arm: Arm, examples: int) -> list[PatienceRule]:
    patience = arm.length.patience
    return [PatienceRule(patience=patience, steps_per_epoch=examples / arm.batch_size)] if patience else []
