"""From a task to the verdict on every statement, kept in a results folder; what is run is planned from the budget."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ...errors import UsageError
from ...fits.step_time import StepTime, fit_step_time
from ...hardware.device import Device, pick
from ...hardware.random_state import preserved_random_state
from ...hardware.step_times import measure_step_times
from ...report.page import draw
from ...store.codec import encode
from ...store.files import write_text
from ...store.records import SCHEMA
from ...store.runs import Store
from ...tasks.loading import LoadedTask, as_loaded
from ...tasks.preflight.check import check
from ...tasks.protocol import Task
from ...tasks.workload import Workload
from ...training.lr_range import measure_rate_range
from ...training.progress import Prediction, Progress, Silent
from ..engine import Laboratory
from ..prepare import metric_of, prepare_study
from ..records import Arm, Length, NamedStudy, StudyQuestion
from ..study import account, workload_of
from .decide import Claims, decide
from .files import claims_json
from .measure import ClaimsLaboratory
from .page.page import claims_contents
from .plan import PART_OF_BUDGET, ClaimsPlan, plan_for, rates_below

__all__ = ["ClaimsQuestion", "asked_of", "claims", "predict"]

_TRIED = (8, 64, 512)
"""Batch sizes whose steps are timed for the plan."""
_TIMING_S = 2.0
_CEILINGS = 3
_SEED_OFFSET = 11
_PLAN = "claims-plan"


@dataclass(frozen=True, kw_only=True)
class ClaimsQuestion:
    """What a user fixes of the plan; what is empty or `None` follows from the task and the budget."""

    seed: int = 0
    """The first of the seeds."""
    batch_sizes: tuple[int, ...] = ()
    lrs: tuple[float, ...] = ()
    seeds: int | None = None
    epochs: float | None = None
    metric: str | None = None
    memory_limit: int | None = None
    budget_s: float = 600.0
    """What the plan is made to fit into."""


def claims(
    task: LoadedTask | Task,
    question: ClaimsQuestion,
    *,
    out: Path | str,
    device: Device | None = None,
    progress: Progress | None = None,
) -> Claims:
    """Decide every statement of the four texts on a task.

    Args:
        task: from `load_task`, or any object with the methods of a task.
        question: seed, budget, and what of the plan is fixed.
        out: results folder; holds `claims.json`, `report.html` and all runs when this returns.
        device: where runs are made; default: the accelerator if there is one.
        progress: told what happens.

    Returns:
        The verdicts. What the budget cut off is undecided, and says so; the same call goes on where it ended.

    Raises:
        TaskError: the task fails the preflight.
        UsageError: the numbers that were fixed make no sense for the task.
        TargetError: the metric is not there.
        StoreError: the folder cannot be used.
    """
    loaded, device, told = as_loaded(task), device or pick(), progress or Silent()
    deadline = time.monotonic() + question.budget_s
    with preserved_random_state(question.seed), Store(out, asked_of(loaded, question, device)) as store:
        workload = workload_of(loaded, device)
        plan = store.noted(_PLAN, ClaimsPlan)
        if plan is None:
            plan = _planned(workload, question, told)
            store.note(_PLAN, plan)
        named, asked = _as_study(plan, question)
        prepared = prepare_study(workload, asked, named, told, store)
        laboratory = Laboratory(
            loaded=loaded,
            workload=workload,
            question=asked,
            target=prepared.target,
            store=store,
            progress=told,
            step_time=prepared.step_time,
            arms=prepared.arms,
            deadline=deadline,
            expected=plan.runs(workload.examples),
        )
        told.predicted(_prediction(plan, prepared.step_time, prepared.evaluation_s, workload, question))
        if laboratory.read_note("capacity") is None:
            laboratory.note("capacity", {"free_bytes": device.free_bytes(), "device": device.name})
        ClaimsLaboratory(laboratory, plan).measure_all()
        study, runs = account(laboratory, named, prepared)
        found = decide(study, runs, plan)
        store.note("claims", claims_json(found, plan))
        write_text(Path(out) / "report.html", draw(claims_contents(found, runs, plan)))
    return found


def predict(
    loaded: LoadedTask, question: ClaimsQuestion, *, device: Device | None = None, progress: Progress | None = None
) -> Prediction:
    """How long `claims` would take; steps are timed, and nothing is stored. Arguments and errors as there."""
    with preserved_random_state(question.seed):
        workload = workload_of(loaded, device or pick())
        told = progress or Silent()
        plan = _planned(workload, question, told)
        step_time, evaluation_s = _times(workload, _tried(workload, plan.least_batch_size))
        return _prediction(plan, step_time, evaluation_s, workload, question)


def asked_of(loaded: LoadedTask, question: ClaimsQuestion, device: Device) -> dict[str, Any]:
    """Everything that makes the verdicts others; a results folder holds one set. More budget only goes on."""
    asked = {name: value for name, value in encode(question).items() if name != "budget_s"}
    return {
        "schema": SCHEMA,
        "command": "claims",
        "task": loaded.name,
        "settings": loaded.settings,
        "source_sha256": loaded.source_sha256,
        "device": str(device.torch_device),
        **asked,
    }


def _planned(workload: Workload, question: ClaimsQuestion, told: Progress) -> ClaimsPlan:
    """Rates from range tests, then the largest plan that fits into the budget, with what was fixed."""
    told.stage("planning what to run")
    least = _checked(workload, question)
    sizes = _tried(workload, least)
    step_time, evaluation_s = _times(workload, sizes)
    return plan_for(
        workload.examples,
        lrs=question.lrs or rates_below(_ceiling(workload, sizes[-1], question.seed)),
        seed=question.seed,
        seconds_to_use=PART_OF_BUDGET * question.budget_s,
        step_s=step_time.of_batch,
        evaluation_s=evaluation_s,
        smallest=least,
        batch_sizes=tuple(sorted(question.batch_sizes)),
        seeds=question.seeds,
        epochs=question.epochs,
    )


def _checked(workload: Workload, question: ClaimsQuestion) -> int:
    """Refuse numbers that make no sense, before anything is timed; the fewest examples that the model trains on."""
    fixed = ClaimsPlan(
        batch_sizes=question.batch_sizes or (1, 2),
        lrs=question.lrs or (0.1, 1.0),
        seeds=tuple(range(2 if question.seeds is None else max(0, question.seeds))),
        epochs=1.0 if question.epochs is None else question.epochs,
    )
    _as_study(fixed, question)
    if (most := max(fixed.batch_sizes)) > workload.examples:
        raise UsageError(
            f"a batch size of {most} is larger than the training set of {workload.examples} examples; "
            f"give --batch-sizes of at most {workload.examples}"
        )
    preflight = check(workload)
    metric_of(question.metric, preflight)
    least = preflight.smallest_micro_batch_size
    if question.batch_sizes and min(question.batch_sizes) < least:
        raise UsageError(
            f"a batch of {min(question.batch_sizes)} example cannot be trained on by this model (batch normalisation); "
            f"give --batch-sizes of at least {least}"
        )
    return least


def _tried(workload: Workload, least: int) -> list[int]:
    most = max(least, workload.examples // 2)
    return [b for b in _TRIED if least <= b <= most] or [most]


def _times(workload: Workload, sizes: Sequence[int]) -> tuple[StepTime, float]:
    """Step-time model of this machine, and the seconds of an evaluation."""
    readings = measure_step_times(workload, sizes, budget_s=_TIMING_S).readings
    step_time = fit_step_time([(r.micro_batch_size, r.step_time_s) for r in readings if r.step_time_s is not None])
    model, device = workload.model(0), workload.device
    workload.evaluate(model)
    started = device.clock()
    workload.evaluate(model)
    return step_time, device.clock() - started


def _ceiling(workload: Workload, batch_size: int, seed: int) -> float:
    """The rate at which training breaks, the median of several range tests."""
    return median(
        measure_rate_range(
            workload, batch_size=batch_size, micro_batch_size=batch_size, seed=seed + _SEED_OFFSET + i
        ).ceiling_lr
        for i in range(_CEILINGS)
    )


def _as_study(plan: ClaimsPlan, question: ClaimsQuestion) -> tuple[NamedStudy, StudyQuestion]:
    """The grid as a study, which has its rows, summary and page."""
    asked = StudyQuestion(
        batch_sizes=plan.batch_sizes,
        lrs=plan.lrs,
        seeds=plan.seeds,
        length=Length(unit="epochs", amount=plan.epochs),
        metric=question.metric,
        memory_limit=question.memory_limit,
    )

    def arms(asked: StudyQuestion, examples: int) -> list[Arm]:
        del examples
        return [Arm(batch_size=b, lr=lr, length=asked.length) for lr in asked.lrs for b in asked.batch_sizes]

    return NamedStudy(name="claims", summary="", source="", question=asked, arms=arms), asked


def _prediction(
    plan: ClaimsPlan, step_time: StepTime, evaluation_s: float, workload: Workload, question: ClaimsQuestion
) -> Prediction:
    seconds = plan.seconds(workload.examples, step_time.of_batch, evaluation_s)
    budget = question.budget_s
    return Prediction(
        seconds=min(seconds, budget),
        low=min(seconds / 1.5, budget),
        high=min(2 * seconds, budget),
        budget_s=budget,
        assumption=f"{len(plan.batch_sizes)} batch sizes, {len(plan.lrs)} learning rates, {len(plan.seeds)} seeds, "
        f"{plan.epochs:g} epochs, and what follows from them, at the speed that was just measured",
    )
