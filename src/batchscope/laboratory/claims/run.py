"""From a task to the verdict on every statement, kept in a results folder; what is run is planned from the budget."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ...hardware.device import Device, pick
from ...hardware.random_state import preserved_random_state
from ...report.page import draw
from ...store.files import write_text
from ...store.question import asked_of
from ...store.runs import Store
from ...tasks.loading import LoadedTask, as_loaded
from ...tasks.preflight.check import Preflight
from ...tasks.protocol import Task
from ...tasks.workload import Workload
from ...training.limits import Deadline
from ...training.lr_range import measure_rate_range
from ...training.prepare import Prepared, Wanted, check_task, prepare, workload_of
from ...training.progress import Prediction, Progress, Silent
from ..engine import Laboratory
from ..prepare import metric_of, prepare_study
from ..records import Arm, Length, NamedStudy, StudyQuestion
from ..study import account
from .decide import Claims, decide
from .files import claims_json
from .measure import ClaimsLaboratory
from .page.page import claims_contents
from .plan import PART_OF_BUDGET, ClaimsPlan, plan_for, rates_below

__all__ = ["ClaimsQuestion", "claims", "predict", "question_of"]

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
        progress: hears what happens.

    Returns:
        The verdicts. What the budget cut off is undecided, and says so; the same call goes on where it ended.

    Raises:
        TaskError: the task fails the preflight.
        UsageError: the numbers that were fixed make no sense for the task.
        TargetError: the metric is not there.
        StoreError: the folder cannot be used.
    """
    loaded, device, progress = as_loaded(task), device or pick(), progress or Silent()
    deadline = Deadline.after(question.budget_s)
    with preserved_random_state(question.seed), Store(out, question_of(loaded, question, device)) as store:
        workload = workload_of(loaded, device)
        plan = store.read_note(_PLAN, ClaimsPlan)
        if plan is None:
            plan, _ = _planned(workload, question, progress)
            store.note(_PLAN, plan)
        named, asked = _as_study(plan, question)
        prepared = prepare_study(workload, asked, named, budget_s=question.budget_s, progress=progress, store=store)
        how: dict[str, Any] = {"store": store, "progress": progress, "deadline": deadline}
        expected = plan.runs(workload.examples)
        laboratory = Laboratory.begin(loaded, workload, asked, prepared, **how, expected=expected)
        progress.predicted(_forecast(plan, prepared.measured, workload, question))
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
        plan, prepared = _planned(workload, question, progress or Silent())
        return _forecast(plan, prepared, workload, question)


def question_of(loaded: LoadedTask, question: ClaimsQuestion, device: Device) -> dict[str, Any]:
    """Everything that makes the verdicts others; a results folder holds one set. More budget only goes on."""
    asked = {name: value for name, value in vars(question).items() if name != "budget_s"}
    return asked_of("claims", loaded.identity(str(device.torch_device)), **asked)


def _planned(workload: Workload, question: ClaimsQuestion, progress: Progress) -> tuple[ClaimsPlan, Prepared]:
    """Learning rates from range tests, then the largest plan that fits into the budget, with what was fixed."""
    progress.stage("planning what to run")
    preflight = _checked(workload, question)
    smallest = preflight.smallest_micro_batch_size
    sizes = _tried(workload, smallest)
    wanted = Wanted(budget_s=question.budget_s, batch_sizes=tuple(sizes), memory=False, timing_s=_TIMING_S)
    prepared = prepare(workload, wanted, preflight=preflight)
    plan = plan_for(
        workload.examples,
        lrs=question.lrs or rates_below(_ceiling(workload, sizes[-1], question.seed)),
        seed=question.seed,
        seconds_to_use=PART_OF_BUDGET * question.budget_s,
        step_s=prepared.step_time.of_batch,
        evaluation_s=prepared.timing.evaluation_s,
        smallest=smallest,
        batch_sizes=tuple(sorted(question.batch_sizes)),
        seeds=question.seeds,
        epochs=question.epochs,
    )
    return plan, prepared


def _checked(workload: Workload, question: ClaimsQuestion) -> Preflight:
    """Refuse numbers that make no sense, before anything is timed."""
    fixed = ClaimsPlan(
        batch_sizes=question.batch_sizes or (1, 2),
        lrs=question.lrs or (0.1, 1.0),
        seeds=tuple(range(2 if question.seeds is None else max(0, question.seeds))),
        epochs=1.0 if question.epochs is None else question.epochs,
    )
    _as_study(fixed, question)
    preflight = check_task(workload, Wanted(budget_s=question.budget_s, batch_sizes=question.batch_sizes))
    metric_of(question.metric, preflight)
    return preflight


def _tried(workload: Workload, smallest: int) -> list[int]:
    """Batch sizes whose steps are timed for the plan."""
    most = max(smallest, workload.examples // 2)
    return [b for b in _TRIED if smallest <= b <= most] or [most]


def _ceiling(workload: Workload, batch_size: int, seed: int) -> float:
    """The learning rate at which training breaks, the median of several range tests."""
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


def _forecast(plan: ClaimsPlan, prepared: Prepared, workload: Workload, question: ClaimsQuestion) -> Prediction:
    seconds = plan.seconds(workload.examples, prepared.step_time.of_batch, prepared.timing.evaluation_s)
    return Prediction(
        seconds=seconds,
        low=seconds / 1.5,
        high=2 * seconds,
        budget_s=question.budget_s,
        what="claims",
        assumption=f"{len(plan.batch_sizes)} batch sizes, {len(plan.lrs)} learning rates, {len(plan.seeds)} seeds, "
        f"{plan.epochs:g} epochs, and what follows from them, at the speed that was just measured",
    )
