"""Batch normalisation: none, in front of the activation functions, after them, in ghost batches; at each batch size.

The default network is the perceptron of three hidden layers of 100 units with which Ioffe and Szegedy (2015, section
4.1) show their method on MNIST, with Shen's ReLU, initialisation and optimizer; on `--set hidden=1024 --set depth=2` it
is Shen's own. Every variant is trained at every batch size and learning rate for equally many epochs. Then, at the
learning rate that is best for each: runs from one start in many orders of the examples; what disturbed inputs do; how
far the distributions of what layers receive drift, and how much a step below changes a layer's gradient; and what a
batch of one does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...records import Arm, Length, NamedStudy, StudyQuestion, SummaryRow, grid, note_name
from ...summary import row_of, summarise
from .conclusions import conclude
from .effects import AFTER, BEFORE, NONE, NORMALISED, ghost, middle_of, one_example, ordered
from .sections import SETTINGS, sections

if TYPE_CHECKING:
    from ....store.runs import StoredRun
    from ....tasks.batch_norm import Where
    from ....tasks.workload import Workload
    from ...engine import Laboratory

__all__ = ["STUDY"]

_ORDERS = 10
"""Of the examples, unless `--repeats` says it."""
_EARLY = 1.0
"""Epochs after which the covariate shift is measured for the first time."""
_MOST_SINGLE_STEPS = 5000
"""On batches of one example."""


def arms(question: StudyQuestion, examples: int) -> Sequence[Arm]:
    """The grid of every variant; those that are made again with their weights kept, and the runs in other orders.

    The learning rates of the latter are chosen on the way: the middle one stands for them.
    """
    lr = sorted(question.lrs)[(len(question.lrs) - 1) // 2]
    again = [_arm(question, variant, size, lr) for variant in (NONE, BEFORE) for size in question.batch_sizes]
    order = _arm(question, ordered(NONE), middle_of(question.batch_sizes), lr)
    return *_grid(question), *again, *[order] * math.ceil(2 * _orders(question) / len(question.seeds))


def _grid(question: StudyQuestion) -> list[Arm]:
    return [
        _arm(question, variant, size, lr)
        for variant in (NONE, BEFORE, AFTER, *_ghosts(question))
        for size in sorted(question.batch_sizes)
        for lr in question.lrs
        if variant not in _ghosts(question) or size >= 2 * _smallest_ghost(question)
    ]


def _ghosts(question: StudyQuestion) -> list[str]:
    smallest = _smallest_ghost(question)
    return [ghost(smallest)] if max(question.batch_sizes) >= 2 * smallest else []


def _smallest_ghost(question: StudyQuestion) -> int:
    """The smallest batch size that can be normalised by itself."""
    return min((size for size in question.batch_sizes if size > 1), default=max(question.batch_sizes) + 1)


def _orders(question: StudyQuestion) -> int:
    return question.repeats or _ORDERS


def _arm(question: StudyQuestion, variant: str, batch_size: int, lr: float) -> Arm:
    return Arm(batch_size=batch_size, lr=lr, length=question.length, **question.course, variant=variant)


def measure_all(laboratory: Laboratory) -> None:
    """The runs and measurements, or the task as it came where normalisation cannot be configured."""
    from ....store.not_applicable import NotApplicable
    from ....tasks.batch_norm import normalised

    question = laboratory.question
    tasks: dict[str, Workload] = {}
    places: dict[str, Where] = {NONE: "none", BEFORE: "before", AFTER: "after"}
    for variant, where in places.items():
        found = normalised(laboratory.workload, where)
        if isinstance(found, NotApplicable):
            laboratory.note(NORMALISED, found)
            laboratory.run_all(grid(question, laboratory.examples))
            return
        tasks[variant] = laboratory.changed(model=found)
    for variant in _ghosts(question):
        found = normalised(laboratory.workload, "before", ghost=_smallest_ghost(question))
        assert not isinstance(found, NotApplicable)
        tasks[variant] = laboratory.changed(model=found)
    _Trials(laboratory, tasks).make()


@dataclass
class _Trials:
    """All that is done with the variants of one task."""

    laboratory: Laboratory
    tasks: dict[str, Workload]
    _refused: dict[str, str] = field(default_factory=dict)
    """Variants that cannot be trained on one example, with the reason."""
    _watched: dict[str, Any] = field(default_factory=dict)
    _grid_summary: tuple[SummaryRow, ...] = ()

    def make(self) -> None:
        """Everything in its order; each part needs those before it."""
        self._try_one_example()
        self._run_grid()
        for part in (self._orders, self._checkpoints, self._one_example):
            if self.laboratory.cut_off or self.laboratory.late:
                self.laboratory.cut_off = True
                return
            part()

    def _run_grid(self) -> None:
        arms = [a for a in _grid(self.laboratory.question) if a.batch_size > 1 or a.variant not in self._refused]
        laboratory = self.laboratory
        runs = laboratory.run_all(
            arms,
            workload=lambda arm, seed: self.tasks[arm.variant],
            observers=lambda arm, task: self._looks(arm.variant),
        )
        rows = [row_of(run, laboratory.target, laboratory.examples_of(run)) for run in runs]
        self._grid_summary = summarise(rows, laboratory.target)

    def _looks(self, variant: str) -> list[Any]:
        """Observers of the layers' inputs."""
        from ....probes.activation_drift import ActivationDrift
        from .measure import examples_to_watch

        if not self._watched:
            self._watched["batch"] = examples_to_watch(self.laboratory.workload)
        return [ActivationDrift(self.tasks[variant], self._watched["batch"])]

    def _orders(self) -> None:
        """Runs from the same weights with many orders of the examples."""
        from ....tasks.variants import same_initial_weights

        question = self.laboratory.question
        middle = middle_of(question.batch_sizes)
        for variant in (NONE, BEFORE):
            best = self._best(variant, middle)
            if best is None:
                continue
            task = self.laboratory.changed(
                model=same_initial_weights(self.tasks[variant].made_model, question.seeds[0])
            )
            arm = _arm(question, ordered(variant), middle, best.lr)
            for order in range(_orders(question)):
                self.laboratory.run(arm, question.seeds[0] + order, workload=task)

    def _checkpoints(self) -> None:
        """Kept weights of the best learning rates: disturbed inputs, shift of gradients, the definition."""
        question = self.laboratory.question
        one_lr = self._one_rate()
        for seed in question.seeds:
            for size in sorted(question.batch_sizes):
                for variant in (NONE, BEFORE):
                    best = self._best(variant, size)
                    if best is None:
                        continue
                    arm = _arm(question, variant, size, best.lr)
                    run = self.laboratory.run(
                        arm,
                        seed,
                        workload=self.tasks[variant],
                        observers=self._looks(variant),
                        keep=(_EARLY, "best"),
                    )
                    if run is None:
                        return
                    self._measure(run, variant, one_lr)

    def _measure(self, run: StoredRun, variant: str, one_lr: float | None) -> None:
        from .measure import measured_definition, measured_robustness, measured_shift

        laboratory, task = self.laboratory, self.tasks[variant]
        size, lr = run.config.batch_size, run.config.lr

        def model(when: Any) -> Any:
            return laboratory.model(laboratory.weights(run, when), task)

        moments: dict[str, Any] = {"best": "best"}
        if run.result is not None and (run.result.steps + 0.5) * size >= _EARLY * task.examples:
            moments["early"] = _EARLY
        self._measure_once(note_name("robustness", run.id), lambda: measured_robustness(task, model("best")))
        for name, when in moments.items():
            self._measure_once(
                note_name("shift", f"{name}-{run.id}"),
                lambda w=when: measured_shift(task, model(w), batch_size=size, lr=lr),
            )
        if variant == NONE and one_lr is not None and "early" in moments:
            self._measure_once(
                note_name("shift", f"one-rate-{run.id}"),
                lambda: measured_shift(task, model(_EARLY), batch_size=size, lr=one_lr),
            )
        if variant == BEFORE and size > 1:
            self._measure_once(
                "definition", lambda: {"run": run.id, "layers": measured_definition(task, model("best"), size)}
            )

    def _try_one_example(self) -> None:
        from .measure import refusal

        for variant in (NONE, BEFORE, AFTER):
            if (reason := refusal(self.tasks[variant], 1)) is not None:
                self._refused[variant] = reason
        self._measure_once("refused", lambda: self._refused)

    def _one_example(self) -> None:
        """Runs with batches of one example, where they can be trained on and the grid has none."""
        question = self.laboratory.question
        one_lr, smallest = self._one_rate(), min(question.batch_sizes)
        if self._refused or smallest == 1 or one_lr is None:
            return
        steps = question.length.steps(self.laboratory.examples, smallest) or _MOST_SINGLE_STEPS
        length = Length(unit="steps", amount=min(steps, _MOST_SINGLE_STEPS))
        for seed in question.seeds:
            for variant in (NONE, BEFORE):
                arm = Arm(batch_size=1, lr=one_lr / smallest, length=length, variant=one_example(variant))
                self.laboratory.run(arm, seed, workload=self.tasks[variant])

    def _best(self, variant: str, batch_size: int) -> SummaryRow | None:
        """The arm at the best learning rate."""
        return next((arm for arm in self._grid_summary if arm.best_lr and arm.key[:2] == (variant, batch_size)), None)

    def _one_rate(self) -> float | None:
        """The best without normalisation at the smallest batch size."""
        best = self._best(NONE, min(self.laboratory.question.batch_sizes))
        return best.lr if best else None

    def _measure_once(self, name: str, measure: Callable[[], Any]) -> None:
        if self.laboratory.read_note(name) is not None:
            return
        if self.laboratory.late:
            self.laboratory.cut_off = True
            return
        self.laboratory.note(name, measure())


STUDY = NamedStudy(
    name="batch_norm",
    summary="with and without batch normalisation, before and after the activation, in ghost batches, by batch size",
    source="Ioffe and Szegedy 2015; Santurkar et al. 2018; Hoffer et al. 2017, ghost batches",
    question=StudyQuestion(
        batch_sizes=(16, 128, 512), lrs=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0), length=Length(unit="epochs", amount=15)
    ),
    quick={
        "batch_sizes": (256, 512),
        "lrs": (0.1, 1.0),
        "seeds": (0, 1),
        "length": Length(unit="epochs", amount=2),
        "repeats": 5,
    },
    settings=SETTINGS,
    array_settings={**SETTINGS, "evaluate_at_most": 10_000},
    arms=arms,
    measure_all=measure_all,
    conclude=conclude,
    sections=sections,
)
