"""Makes the runs and measurements that all statements are decided by: most important first, each kept as it is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ...errors import OutOfTime, TaskError
from ...hardware.random_state import preserved_random_state
from ...hardware.step_rounds import measure_rounds
from ...probes.activation_drift import ActivationDrift
from ...probes.averaging import measure_averaging
from ...probes.base import Observer
from ...probes.competition import measure_competition
from ...probes.distance import DistanceFromInit
from ...probes.downhill import measure_downhill
from ...probes.gradient_histogram import Histogram, symmetric_limit
from ...probes.gradient_statistics import measure_gradients
from ...probes.hessian import measure_curvature
from ...probes.robustness import measure_robustness
from ...probes.sequential_gradients import measure_sequential_gradients
from ...probes.sharpness import measure_box_sharpness
from ...store.not_applicable import NotApplicable
from ...store.runs import StoredRun
from ...tasks.batch_norm import Where, has_batch_norm, normalised
from ...tasks.variants import same_initial_weights, with_few_examples
from ...tasks.workload import Workload
from ...training.attempts import Trials
from ...training.counted_run import count_run
from ..engine import MEASURED, Laboratory
from ..records import Arm, Length
from ..studies.batch_norm.measure import measured_definition
from ..summary import row_of, summarise
from .plan import (
    FEW,
    FIXED,
    LONG,
    NORM,
    ClaimsPlan,
    competition_note,
    counts,
    norm_variant,
    order_variant,
    robustness_note,
    sharpness_note,
)
from .results import RATES
from .rounds import Part
from .trial_runs import follow_advice

__all__ = ["ClaimsLaboratory"]

_AVERAGED = 64
_LOOKED_AT = 256
"""Examples that activations are looked at with."""
_TIMED = (1, 10, 100, 1000)
"""Beside the batch sizes of the plan; the texts name them."""
_ROUNDS_S, _SHARE_FOR_ROUNDS = 6.0, 0.25
"""Seconds of timed steps, and of the time that is left."""
_SUM_SIZES_FROM = 8
"""The small steps of the sum over the same examples."""
_SUM_EXAMPLES = 512
_BINS = 501
_CHECKPOINT_EPOCHS = 2.0


class ClaimsLaboratory:
    """Everything that is measured on one task.

    Args:
        laboratory: makes runs, and keeps them and notes.
        plan: how many of what; it may be made anew, `rounds` says when.
    """

    def __init__(self, laboratory: Laboratory, plan: ClaimsPlan) -> None:
        self._laboratory, self.plan = laboratory, plan

    @property
    def parts(self) -> tuple[Part, ...]:
        """Everything, what most statements need first; whatever is there already is not made again."""
        return (
            Part("the grid of batch sizes and learning rates", self._grid, "grid"),
            Part("step times", lambda _: self._timing(), once=True),
            Part("counting a run", lambda _: self._counters(), once=True),
            Part("gradients", lambda _: self._gradients(), once=True),
            Part("equally many steps", self._fixed_steps, "fixed steps"),
            Part("long runs", self._long, "long"),
            Part("batch normalisation", self._norm, "norm"),
            Part("little data", self._few_examples, "few examples"),
            Part("trial and error", self._trials, "trials"),
            Part("sharpness", self._sharpness, late=True),
            Part("orders of the data", self._orders, "orders"),
            Part("disturbed inputs", self._robustness),
        )

    def first_run(self, batch_size: int, lr: float) -> StoredRun | None:
        """One run of the grid, with the first seed."""
        arm = Arm(batch_size=batch_size, lr=lr, length=self._epochs)
        observers = self._observers(arm, self._laboratory.workload)
        return self._laboratory.run(arm, self.plan.seeds[0], observers=observers)

    # --- runs -----------------------------------------------------------------------------------------------------

    def _grid(self, seeds: Sequence[int]) -> None:
        plan = self.plan
        sizes = tuple(reversed(plan.batch_sizes))
        arms = [Arm(batch_size=b, lr=lr, length=self._epochs) for lr in plan.inside_out for b in sizes]
        self._laboratory.run_all(arms, seeds=seeds, observers=self._observers)

    def _fixed_steps(self, seeds: Sequence[int]) -> None:
        lr, steps = self._one_rate(), self.plan.fixed_steps(self._laboratory.examples)
        length = Length(unit="steps", amount=steps)
        arms = [Arm(batch_size=b, lr=lr, length=length, variant=FIXED) for b in self.plan.batch_sizes]
        self._laboratory.run_all(arms, seeds=seeds, observers=self._observers)

    def _long(self, seeds: Sequence[int]) -> None:
        length = Length(unit="epochs", amount=self.plan.long_epochs)
        lr = self._one_rate()
        arms = [Arm(batch_size=b, lr=lr, length=length, variant=LONG) for b in dict.fromkeys(self.plan.long_sizes)]
        self._laboratory.run_all(arms, seeds=seeds)

    def _few_examples(self, seeds: Sequence[int]) -> None:
        laboratory, plan = self._laboratory, self.plan
        few = plan.few(laboratory.examples)
        length = Length(unit="epochs", amount=plan.few_epochs)
        arms = [
            Arm(batch_size=b, lr=lr, length=length, variant=FEW)
            for lr in plan.lrs
            for b in plan.few_sizes(laboratory.examples)
        ]
        tasks: dict[int, Workload] = {}

        def task(arm: Arm, seed: int) -> Workload:
            if seed not in tasks:
                tasks[seed] = laboratory.changed(**with_few_examples(laboratory.workload, few, seed))
            return tasks[seed]

        laboratory.run_all(arms, seeds=seeds, workload=task)

    def _norm(self, seeds: Sequence[int]) -> None:
        configurations: tuple[Where, ...] = ("before", "after")
        if has_batch_norm(self._fresh()):
            self._once("has-norm", lambda: True)
            configurations = ("none", *configurations)
        for where in configurations:
            task = self._configured(where)
            if task is None:
                return
            arms = [
                Arm(batch_size=b, lr=lr, length=self._epochs, variant=norm_variant(where))
                for lr in self.plan.lrs
                for b in self.plan.norm_sizes
            ]
            how: dict[str, Any] = {"workload": lambda arm, seed, task=task: task, "observers": self._observers}
            self._laboratory.run_all(arms, seeds=seeds, **how)
            if where == "before":
                size = min(_LOOKED_AT, task.examples)
                self._once("norm-check", lambda task=task, size=size: measured_definition(task, task.model(0), size))

    def _orders(self, seeds: Sequence[int]) -> None:
        laboratory, plan = self._laboratory, self.plan
        for where in ("none", "before"):
            task = self._configured(where)
            lr = self._rate(plan.middle, self._without if where == "none" else norm_variant(where))
            if task is None or lr is None:
                return
            length = Length(unit="epochs", amount=plan.epochs / 2)
            arm = Arm(batch_size=plan.middle, lr=lr, length=length, variant=order_variant(where))
            same = laboratory.changed(model=same_initial_weights(task.made_model, plan.seeds[0]))
            for order in (plan.seeds[0] + i for s in seeds for i in plan.orders_of(s)):
                laboratory.run(arm, order, workload=same)

    def _trials(self, seeds: Sequence[int]) -> None:
        follow_advice(self._laboratory, self.plan, self._one_rate(), seeds)

    # --- measurements ---------------------------------------------------------------------------------------------

    def _counters(self) -> None:
        plan, lr = self.plan, self._one_rate()

        def counted() -> dict[str, Any]:
            ready = self._laboratory.workload
            sizes = [b for b in (1, plan.middle, plan.largest) if b >= plan.least_batch_size]
            found = {str(b): count_run(ready, batch_size=b, epochs=1, lr=lr) for b in sizes}
            if plan.middle % 2 == 0 and plan.middle // 2 >= plan.least_batch_size:
                found["accumulated"] = count_run(ready, batch_size=plan.middle, epochs=1, lr=lr, accumulate=2)
            return found

        self._once("counters", counted)
        parts = 4
        size = min(_AVERAGED, self._laboratory.examples // parts * parts)
        if size:
            how = {"batch_size": size, "parts": parts}
            self._once("averaging", lambda: measure_averaging(self._laboratory.workload, self._fresh(), **how))

    def _timing(self) -> None:
        most = self._laboratory.examples
        sizes = sorted({*self.plan.batch_sizes, *(b for b in _TIMED if self.plan.least_batch_size <= b <= most)})
        budget_s = min(_ROUNDS_S, _SHARE_FOR_ROUNDS * self._laboratory.deadline.left_s)
        self._once("timing", lambda: measure_rounds(self._laboratory.workload, sizes, budget_s=budget_s))

    def _gradients(self) -> None:
        checkpoint = self._checkpoint()
        if checkpoint is None:
            return
        model, lr = checkpoint
        ready, plan = self._laboratory.workload, self.plan
        sizes = sorted({*plan.batch_sizes, *(b for b in _TIMED if b >= plan.least_batch_size)})
        self._once("gradients", lambda: measure_gradients(ready, model, batch_sizes=sizes, repeats=60))
        self._once("competition", lambda: measure_competition(ready, model, lr=lr, pairs=200))
        for size in (plan.smallest, plan.largest):
            if 2 * size <= ready.examples:
                self._once(
                    competition_note(size),
                    lambda size=size: measure_competition(ready, model, lr=lr, batch_size=size, pairs=60),
                )
        edge = self._rate(plan.largest) or lr  # a learning rate at which steps on few examples are not all safe
        self._once("downhill", lambda: measure_downhill(ready, model, batch_sizes=sizes, lr=edge, repeats=100))
        self._once("sums", lambda: _sums(ready, model, lr))

    def _sharpness(self, seeds: Sequence[int]) -> None:
        """Measure sharpness where the smallest and the largest batch end, at one learning rate and each at its best."""
        plan = self.plan
        one = self._one_rate()
        best = {b: self._rate(b) for b in (plan.smallest, plan.largest)}
        settings = {(b, lr) for b in best for lr in (one, best[b]) if lr is not None}
        for b, lr in sorted(settings):
            for seed in seeds:
                if self._laboratory.late:
                    self._laboratory.cut_off = True
                    return
                self._sharpness_of(Arm(batch_size=b, lr=lr, length=self._epochs), seed)

    def _sharpness_of(self, arm: Arm, seed: int) -> None:
        name = sharpness_note(arm.batch_size, arm.lr, seed)
        laboratory = self._laboratory
        if laboratory.read_note(name) is not None:
            return
        run = laboratory.run(arm, seed, observers=self._observers(arm, laboratory.workload), keep=("last",))
        if run is None or run.result is None or run.result.status.value == "diverged":
            return
        model = laboratory.model(laboratory.weights(run, "last"))
        box: dict[str, Any] = {"random_starts": 1, "examples": 1000, "seed": seed}
        ready = laboratory.workload
        parts: dict[str, Callable[[], Any]] = {
            "keskar": lambda: measure_box_sharpness(ready, model, eps=(5e-4, 1e-3), **box),
            "relative": lambda: measure_box_sharpness(ready, model, neighbourhood="relative", eps=(1e-2,), **box),
            "curvature": lambda: measure_curvature(ready, model, vectors=10, examples=1000, seed=seed),
        }
        self._once(
            name,
            lambda: {"run": run.id, **{part: measure() for part, measure in parts.items()}},
            lambda why: {"run": run.id, **dict.fromkeys(parts, why)},
        )

    def _robustness(self, seeds: Sequence[int]) -> None:
        plan = self.plan
        for where in ("none", "before"):
            variant = self._without if where == "none" else norm_variant(where)
            lr = self._rate(plan.middle, variant)
            task = self._configured(where) if variant else self._laboratory.workload
            if lr is None or task is None:
                return
            arm = Arm(batch_size=plan.middle, lr=lr, length=self._epochs, variant=variant)
            for seed in seeds:
                run = self._laboratory.run(
                    arm, seed, workload=task, observers=self._observers(arm, task), keep=("last",)
                )
                if run is None:
                    return
                name = robustness_note(where, seed)
                self._once(
                    name,
                    lambda r=run, t=task: self._disturbed(r, t),
                    lambda why, r=run: {"run": r.id, "found": why},
                )

    def _disturbed(self, run: StoredRun, task: Workload) -> Any:
        model = self._laboratory.model(self._laboratory.weights(run, "last"), task)
        return {"run": run.id, "found": measure_robustness(task, model)}

    # --- parts ----------------------------------------------------------------------------------------------------

    @property
    def _without(self) -> str:
        """The variant that has no batch normalisation."""
        return norm_variant("none") if self._laboratory.read_note("has-norm") else ""

    def _observers(self, _arm: Arm, task: Workload) -> Sequence[Observer]:
        looked_at = torch.randperm(task.examples, generator=torch.Generator().manual_seed(0))[:_LOOKED_AT]
        return DistanceFromInit(), ActivationDrift(task, task.batch(looked_at.sort().values))

    @property
    def _epochs(self) -> Length:
        return Length(unit="epochs", amount=self.plan.epochs)

    def _one_rate(self) -> float:
        """The learning rate that is best for the smallest batch size."""
        return self._rate(self.plan.smallest) or self.plan.lrs[0]

    def _rate(self, batch_size: int, variant: str = "") -> float | None:
        """The best learning rate, chosen once, when the first seeds are made: what rests on it must not change it."""
        laboratory = self._laboratory
        chosen: dict[str, dict[str, float]] = laboratory.read_note(RATES) or {}
        if variant not in chosen:
            runs = [run for run in laboratory.store.runs() if counts(self.plan, run, laboratory.examples)]
            rows = [row_of(run, laboratory.target, laboratory.examples_of(run)) for run in runs if run.result]
            summary = summarise(rows, laboratory.target)
            chosen[variant] = {str(s.batch_size): s.lr for s in summary if s.best_lr and s.variant == variant}
            laboratory.note(RATES, chosen)
        return chosen[variant].get(str(batch_size))

    def _checkpoint(self) -> tuple[nn.Module, float] | None:
        """A model of the middle batch size at its best learning rate after two epochs."""
        lr = self._rate(self.plan.middle)
        if lr is None:
            return None
        arm = Arm(batch_size=self.plan.middle, lr=lr, length=self._epochs)
        laboratory = self._laboratory
        when = min(_CHECKPOINT_EPOCHS, self.plan.epochs)
        observers = self._observers(arm, laboratory.workload)
        run = laboratory.run(arm, self.plan.seeds[0], observers=observers, keep=(when,))
        if run is None:
            return None
        if laboratory.read_note("checkpoint") is None:
            laboratory.note("checkpoint", {"run": run.id, "epoch": when})
        return laboratory.model(laboratory.weights(run, when)), lr

    def _configured(self, where: Where) -> Workload | None:
        """The task with its model's batch normalisation configured; `None`, and a note, where that cannot be."""
        try:
            found = normalised(self._laboratory.workload, where)
        except TaskError as error:
            found = NotApplicable(reason=str(error))
        if isinstance(found, NotApplicable):
            self._once(NORM, lambda: found)
            return None
        return self._laboratory.changed(model=found)

    def _fresh(self) -> nn.Module:
        with preserved_random_state(self.plan.seeds[0]):
            return self._laboratory.workload.model(self.plan.seeds[0])

    def _once(
        self, name: str, measure: Callable[[], Any], refused: Callable[[NotApplicable], Any] = lambda why: why
    ) -> None:
        """Measure and keep something, unless it is there; `refused` makes the record of why it is not measured."""
        if self._laboratory.read_note(name) is not None:
            return
        if self._laboratory.late:
            self._laboratory.cut_off = True
            return
        found = self._tried(name, measure)
        if found is not None:
            self._laboratory.note(name, refused(found) if isinstance(found, NotApplicable) else found)

    def _tried(self, name: str, measure: Callable[[], Any]) -> Any:
        """What is measured, or why it is not; `None`: there was no time."""
        laboratory, what = self._laboratory, f"the measurement {name}"
        trials = Trials(laboratory.store, laboratory.device)
        if refused := trials.refusal(what, kept=f"{MEASURED}{name}.json"):
            return NotApplicable(reason=str(refused))
        try:
            with trials.of(what), laboratory.workload.limited(laboratory.deadline):
                return measure()
        except OutOfTime:
            laboratory.cut_off = True
            return None
        except TaskError as error:  # a task that one measurement does not suit
            return NotApplicable(reason=str(error))


def _sums(ready: Workload, model: nn.Module, lr: float) -> Any:
    """The sum of the last layer's gradients over the same examples, and the histograms of its entries."""
    largest = min(_SUM_EXAMPLES, ready.examples)
    sizes = [b for b in (2, _SUM_SIZES_FROM, largest) if b <= largest]
    first: list[torch.Tensor] = []
    how: dict[str, Any] = {"batch_sizes": sizes, "lr": lr, "samples": largest}
    found = measure_sequential_gradients(
        ready, model, **how, repeats=1, on_sum=lambda size, values: first.append(values.clone())
    )
    limit = symmetric_limit(first)
    if isinstance(found, NotApplicable) or limit is None:
        return found if isinstance(found, NotApplicable) else NotApplicable(reason="the gradient is zero")
    mark = float(np.quantile(first[-1].abs().cpu().numpy(), 0.99))
    pooled = {size: Histogram.empty(limit=limit, bins=_BINS) for size in sizes}
    beyond: dict[str, list[int]] = {str(size): [] for size in sizes}

    def add(size: int, values: torch.Tensor) -> None:
        pooled[size] = pooled[size].with_values(values)
        beyond[str(size)].append(int((values.abs() >= mark).sum()))

    found = measure_sequential_gradients(ready, model, **how, repeats=20, first_repeat=1, on_sum=add)
    counts = {str(b): {"limit": limit, "counts": h.counts} for b, h in pooled.items()}
    return {"norms": found, "histograms": counts, "beyond": beyond, "mark": mark}
