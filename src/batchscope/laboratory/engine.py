"""Where the runs of a study are made: what a named study is given to work with.

Every run is made once and kept; a repeated command reads it. A run that the budget cuts off is left unfinished, and is
made again from its seed when the command is repeated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import nn

from ..errors import OutOfMemory, OutOfTime, UsageError
from ..fits.step_time import StepTime
from ..hardware.device import Device
from ..probes.base import Observer, Probe
from ..probes.kept_weights import Keep
from ..probes.train_part import TrainPart
from ..store.not_applicable import NotApplicable
from ..store.records import RunConfig, Target
from ..store.runs import Store, StoredRun
from ..tasks.loading import LoadedTask
from ..tasks.members import MEMBERS
from ..tasks.workload import Workload
from ..training.limits import CutOff, Deadline, SecondsRule
from ..training.progress import Progress
from ..training.runner import Runner
from ..training.weights import are_whole, load_weights, save_weights, weights_file
from ..wording import about
from .configuration import rules_of, run_config
from .outlook import Outlook, Standing
from .pace import RunTime, run_time
from .prepare import StudyPrepared, most_at_once
from .records import EXAMPLES_OF_RUN, TRAIN_PART, Arm, StudyQuestion

__all__ = ["MEASURED", "Keep", "Laboratory"]

MEASURED = "measured-"
"""How the files of measurements begin."""
_TASK_MEMBERS = (*(member.name for member in MEMBERS), "metrics_on")
_MOST_PARTS = 4


@dataclass(kw_only=True)
class Laboratory:
    """Makes the runs of one study.

    Attributes:
        loaded: the task, as it was loaded.
        runner: makes runs and keeps them.
        question: what is asked.
        target: the metric that choices are made by, with a value that no run reaches.
        step_time: step-time model of this machine.
        arms: what the study says that it will train.
        expected: how many runs there will be at most, where it is more than the arms over the seeds.
        cut_off: whether a run that was asked for could not be made in time.
        times: of the runs that were made, not read.
        outlook: says whether what is left fits into the budget; `None`: whoever plans the runs knows.
        evaluation_s: seconds of an evaluation: with fewer left, nothing is begun.
        part: training examples of the task as it came, where they are loaded already; or why they are not to be.
    """

    loaded: LoadedTask
    runner: Runner
    question: StudyQuestion
    target: Target
    step_time: StepTime
    arms: Sequence[Arm]
    expected: int | None = None
    cut_off: bool = False
    times: list[RunTime] = field(default_factory=list[RunTime])
    outlook: Outlook | None = None
    evaluation_s: float = 0.0
    part: TrainPart | NotApplicable | None = None
    _standing: Standing = field(init=False)
    _parts: dict[Workload, TrainPart | None] = field(default_factory=dict[Workload, TrainPart | None])

    def __post_init__(self) -> None:
        self._standing = Standing(self.target)

    @classmethod
    def begin(
        cls,
        loaded: LoadedTask,
        workload: Workload,
        question: StudyQuestion,
        prepared: StudyPrepared,
        *,
        store: Store,
        progress: Progress,
        deadline: Deadline,
        expected: int | None = None,
        outlook: Outlook | None = None,
    ) -> Laboratory:
        """A laboratory with what was measured before; a run that the deadline cuts off stays unfinished."""
        return cls(
            loaded=loaded,
            runner=Runner(workload=workload, store=store, progress=progress, deadline=deadline, at_deadline="cut"),
            question=question,
            target=prepared.target,
            step_time=prepared.step_time,
            arms=prepared.arms,
            expected=expected,
            outlook=outlook,
            evaluation_s=prepared.evaluation_s,
            part=prepared.part,
        )

    @property
    def workload(self) -> Workload:
        """The task on its device."""
        return self.runner.workload

    @property
    def store(self) -> Store:
        """The results folder that holds runs and notes."""
        return self.runner.store

    @property
    def progress(self) -> Progress:
        """The listener that hears what happens."""
        return self.runner.progress

    @property
    def deadline(self) -> Deadline:
        """When the budget is used up."""
        return self.runner.deadline

    @property
    def examples(self) -> int:
        """Training examples of the task as it came."""
        return self.workload.epoch

    @property
    def device(self) -> Device:
        """The device that runs are made on."""
        return self.workload.device

    @property
    def planned(self) -> int:
        """How many runs the study will make, at most."""
        return self.expected or len(self.arms) * len(self.question.seeds)

    @property
    def late(self) -> bool:
        """Whether the budget is used up, so that nothing more should be begun."""
        return self.deadline.left_s <= self.evaluation_s

    def run_all(
        self,
        arms: Iterable[Arm] | None = None,
        *,
        seeds: Sequence[int] | None = None,
        workload: Callable[[Arm, int], Workload] | None = None,
        observers: Callable[[Arm, Workload], Sequence[Observer]] | None = None,
        probes: Callable[[Arm, Workload], Sequence[Probe]] | None = None,
        keep: Sequence[Keep] = (),
    ) -> tuple[StoredRun, ...]:
        """Every arm for every seed, seed by seed, so that a budget that ends early leaves whole grids.

        Args:
            arms: what to train; default: `arms`.
            seeds: default: all of the question.
            workload: of an arm and a seed, where it is not the task as it came.
            observers: made afresh for each run.
            probes: made afresh for each run.
            keep: when the weights of each run are kept.

        Returns:
            The finished runs, in that order; without those for which no time was left.
        """
        found: list[StoredRun | None] = []
        chosen = tuple(self.arms if arms is None else arms)
        for seed in self.question.seeds if seeds is None else seeds:
            for arm in chosen:
                task = workload(arm, seed) if workload else self.workload
                found.append(
                    self.run(
                        arm,
                        seed,
                        workload=task,
                        observers=observers(arm, task) if observers and not self.late else (),
                        probes=probes(arm, task) if probes and not self.late else (),
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
            probes: of this run alone; what they see is stored with it.
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
        if run is None:
            begins = not self.late and (not self.outlook or self.outlook.begins(seed, self.deadline.left_s))
            run = self._make(arm, config, task, observers, probes, keep) if begins else None
        elif self._has_weights(arm, run, task, probes, keep):
            self._standing.add(run)
            if self.outlook:
                self.outlook.read(arm, seed)
        else:
            run = None
        self.cut_off |= run is None
        return run

    def _has_weights(
        self, arm: Arm, run: StoredRun, workload: Workload, probes: Sequence[Probe], keep: Sequence[Keep]
    ) -> bool:
        """Whether a finished run's weights are there; it is trained once more for those that were not kept, in time."""
        if all(self._kept(run, when, workload.epoch) for when in keep):
            return True
        if self.late or run.result is None:
            return False
        try:
            states = self.runner.train_again(
                run,
                keep,
                steps=run.result.steps,
                why=", ".join(filter(None, (arm.variant, "for its weights"))),
                rules=rules_of(arm, workload.epoch),
                probes=probes,
                workload=workload,
                deadline=self.deadline,
            )
        except CutOff:
            return False
        for when, state in states.items():
            save_weights(state, self._weights_file(run.id, when))
        return True

    def made(self, arm: Arm, seed: int) -> bool:
        """Whether the run of an arm is finished, on the task as it came."""
        return self.store.finished(self.config(arm, seed)) is not None

    def examples_of(self, run: StoredRun) -> int:
        """Number of training examples of a run; a study may have changed the training set."""
        return int(run.config.settings.get(EXAMPLES_OF_RUN, self.examples))

    def config(self, arm: Arm, seed: int, workload: Workload | None = None) -> RunConfig:
        """Everything that decides the course of an arm's run.

        Raises:
            UsageError: the batch is larger than the training set, or the schedule does not fit the run's length.
        """
        task = workload or self.workload
        how: dict[str, Any] = {"examples": self.examples, "target": self.target, "step_time": self.step_time}
        return run_config(arm, seed, task, **how)

    def changed(self, **members: Any) -> Workload:
        """The task with members exchanged: `optimizer=`, `model=`, `loss=`, `train_data=`, ...

        The arm of a run with it must have a `variant` of its own. A task's sampler orders its own training data, and is
        left out where these are exchanged.
        """
        own = {name: getattr(self.loaded.task, name) for name in _TASK_MEMBERS if hasattr(self.loaded.task, name)}
        if "train_data" in members:
            own.pop("sampler", None)
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
        return load_weights(self._weights_file(run.id, when))

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
        self.store.note_data(f"{MEASURED}{name}", data)
        return self.read_note(name)

    def read_note(self, name: str) -> Any:
        """A measurement kept by `note`; `None`: there is none."""
        return self.store.read_data(f"{MEASURED}{name}")

    def measurements(self) -> dict[str, Any]:
        """All measurements, by name."""
        names = sorted(path.stem.removeprefix(MEASURED) for path in self.store.root.glob(f"{MEASURED}*.json"))
        found = {name: self.read_note(name) for name in names}
        return {name: data for name, data in found.items() if data is not None}

    def _make(
        self,
        arm: Arm,
        config: RunConfig,
        workload: Workload,
        observers: Sequence[Observer],
        probes: Sequence[Probe],
        keep: Sequence[Keep],
    ) -> StoredRun | None:
        spent, left = SecondsRule(limit=_seconds(arm)), self.deadline.left_s
        try:
            with workload.limited(self.deadline):
                part = self._train_part(workload)
            run = self.runner.make(
                config,
                ", ".join(filter(None, (arm.variant, f"seed {config.seed}"))),
                f"{self._standing.progress(self.planned)}, at most {about(self.deadline.left_s)} left",
                rules=[*rules_of(arm, workload.epoch), spent],
                probes=probes,
                observers=[*([part] if part else []), *observers],
                keep=keep,
                workload=workload,
                on_row=spent.see,
            )
        except (CutOff, OutOfTime):
            return None
        except OutOfMemory as error:
            if error.micro_batch_size is None:
                raise
            raise UsageError(f"{error}; leave batch sizes from {config.batch_size} on out of --batch-sizes") from error
        self.times.append(run_time(run, left - self.deadline.left_s))
        self.progress.run_finished(run, self._standing.add(run))
        if self.outlook is not None and (said := self.outlook.made(arm, self.times[-1], self.deadline.left_s)):
            self.progress.stage(said)
        return run

    def _train_part(self, workload: Workload) -> TrainPart | None:
        """What evaluates runs on this workload's training data; `None` where its loss refuses."""
        if workload not in self._parts:
            while len(self._parts) > _MOST_PARTS:
                del self._parts[next(iter(self._parts))]
            loaded = self.part if workload is self.workload else None
            part = loaded or TrainPart(workload, chunk=most_at_once(self.question))
            why = part if isinstance(part, NotApplicable) else part.why_not()
            self._parts[workload] = part if isinstance(part, TrainPart) and why is None else None
            if why is not None:
                self.note(TRAIN_PART, why)
        return self._parts[workload]

    def _kept(self, run: StoredRun, when: Keep, examples: int) -> bool:
        """Whether the weights are there, or the run ended before that moment."""
        made = (run.result.steps + 0.5) * run.config.batch_size if run.result else 0.0
        came = isinstance(when, str) or made >= when * examples
        return not came or are_whole(self._weights_file(run.id, when))

    def _weights_file(self, run: str, when: Keep) -> Path:
        return weights_file(self.store.folder(run), when)


def _seconds(arm: Arm) -> float:
    return arm.length.amount if arm.length.unit == "seconds" else math.inf
