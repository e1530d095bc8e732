"""From a task to the verdict on every statement, kept in a results folder; what is run is planned from the budget."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ...hardware.device import Device, pick, within_memory_of
from ...hardware.random_state import preserved_random_state
from ...probes.train_part import TrainPart
from ...report.page import draw
from ...store.files import write_text
from ...store.quantities import checked_members, whole_number
from ...store.question import asked_of
from ...store.runs import Store
from ...tasks.loading import LoadedTask, as_loaded
from ...tasks.preflight.check import Preflight
from ...tasks.protocol import Task
from ...tasks.workload import Workload
from ...training.attempts import Trials
from ...training.limits import Deadline, deadline_of, named_out_of_time
from ...training.lr_range import measure_rate_range
from ...training.prepare import Wanted, check_task, prepare, workload_of
from ...training.progress import Prediction, Progress, Silent
from ...training.unwritten import ANSWER, PAGE, Hears, if_possible, logged
from ..engine import Laboratory
from ..pace import pace_of
from ..prepare import limit_before_runs, metric_asked, metric_of, prepare_study
from ..records import MOST_SEEDS, Arm, Length, NamedStudy, StudyQuestion
from ..study import account
from .costs import runs_of, seconds_of
from .decide import Claims, decide
from .files import claims_from, claims_json
from .measure import ClaimsLaboratory
from .page.page import claims_contents
from .plan import ClaimsPlan, counts, first_choices, largest_plan, rates_below
from .planning import Fixed, Planned, Planning
from .rounds import PLAN, Rounds

__all__ = ["ClaimsQuestion", "claims", "predict", "question_of"]

_TRIED = (8, 64, 512)
"""Batch sizes whose steps are timed for the plan."""
_TIMING_S = 2.0
_CEILINGS = 3
_SHARE_FOR_CEILING = 0.3
"""Of the time that is left, for range tests."""
_SEED_OFFSET = 11
_PART_OF_BUDGET = 0.6
"""Of the budget that the first plan is made to fill: step times drift, and probes and pages come on top."""


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

    def __post_init__(self) -> None:
        if self.seeds is not None:
            object.__setattr__(self, "seeds", whole_number(self.seeds, "--seeds", most=MOST_SEEDS))
        whole = {"memory_limit": "--memory-limit"}
        checked_members(self, whole=whole, finite={"epochs": "--epochs", "budget_s": "--budget"})


def claims(
    task: LoadedTask | Task,
    question: ClaimsQuestion,
    *,
    out: Path | str,
    device: Device | None = None,
    started: float | None = None,
    progress: Progress | None = None,
    page: bool = True,
    unwritten: Hears = logged,
) -> Claims:
    """Decide every statement of the four texts on a task.

    Args:
        task: from `load_task`, or any object with the methods of a task.
        question: seed, budget, and what of the plan is fixed.
        out: results folder; holds `claims.json`, `report.html` and all runs when this returns.
        device: where runs are made; default: the accelerator if there is one.
        started: when the command began, on the device's wall clock; default: now.
        progress: hears what happens.
        page: whether `report.html` is written.
        unwritten: hears what could not be written once there was an answer: `claims.json`, the page. The answer is
            returned all the same.

    Returns:
        The verdicts. What the budget cut off is undecided, and says so; the same call goes on where it ended.

    Raises:
        TaskError: the task fails the preflight.
        UsageError: the numbers that were fixed make no sense for the task.
        TargetError: the metric is not there.
        StoreError: the folder cannot be used.
        OutOfMemory: something does not fit into memory.
        OutOfTime: the budget ended before runs could be planned.
    """
    with within_memory_of(device):
        loaded, device, progress = as_loaded(task), device or pick(), progress or Silent()
        budget_s = question.budget_s
        deadline = deadline_of(device, budget_s, started)
        with (
            named_out_of_time(deadline, budget_s),
            preserved_random_state(question.seed),
            Store(out, question_of(loaded, question, device)) as store,
        ):
            if store.recovered:
                progress.stage(store.recovered)
            until = limit_before_runs(store, deadline)
            workload = workload_of(loaded, device, until)
            planning = store.read_note(PLAN, Planning)
            if planning is None:
                with Trials(store, device).of("what is measured before the plan"):
                    planning = _planned(workload, question, progress, deadline)
                store.note(PLAN, planning)
            named, asked = _as_study(planning.plan, question)
            how: dict[str, Any] = {"store": store, "progress": progress}
            prepared = prepare_study(workload, asked, named, budget_s=budget_s, until=until, **how)
            store.check_late_files(loaded.late_files(store.late_files))
            how["deadline"] = deadline
            laboratory = Laboratory.begin(loaded, workload, asked, prepared, **how, expected=planning.last.runs)
            progress.predicted(_forecast(planning.last, question, deadline))
            if laboratory.read_note("capacity") is None:
                laboratory.note("capacity", {"free_bytes": device.free_bytes(), "device": device.name})
            measures = ClaimsLaboratory(laboratory, planning.plan)
            plan = Rounds(laboratory, measures, planning, _fixed(question), budget_s).go()
            store.check_late_files(loaded.late_files())
            study, runs = account(laboratory, named, prepared, lambda run: counts(plan, run, workload.epoch))
            found = decide(study, runs, plan)
            with if_possible(unwritten, ANSWER):
                store.answer("claims", claims_json(found, plan), claims_from)
            if page:
                with if_possible(unwritten, PAGE):
                    write_text(Path(out) / "report.html", draw(claims_contents(found, runs, plan)))
        return found


def predict(
    loaded: LoadedTask,
    question: ClaimsQuestion,
    *,
    device: Device | None = None,
    started: float | None = None,
    progress: Progress | None = None,
) -> Prediction:
    """How long `claims` would take; steps are timed, and nothing is stored. Arguments and errors as there."""
    with within_memory_of(device), preserved_random_state(question.seed):
        device = device or pick()
        deadline = deadline_of(device, question.budget_s, started)
        with named_out_of_time(deadline, question.budget_s):
            workload = workload_of(loaded, device, deadline)
            planned = _planned(workload, question, progress or Silent(), deadline).last
        return _forecast(planned, question, deadline)


def question_of(loaded: LoadedTask, question: ClaimsQuestion, device: Device) -> dict[str, Any]:
    """Everything that makes the verdicts others; a results folder holds one set. More budget only goes on."""
    asked = {name: value for name, value in vars(question).items() if name != "budget_s"}
    return asked_of("claims", loaded.identity(str(device.torch_device)), **asked)


def _planned(workload: Workload, question: ClaimsQuestion, progress: Progress, until: Deadline) -> Planning:
    """Learning rates from range tests, then the largest plan that fits into the budget, with what was fixed.

    Raises:
        OutOfTime: the time ended before they were measured.
    """
    progress.stage("planning what to run")
    preflight = _checked(workload, question, until)
    smallest, examples = preflight.smallest_micro_batch_size, workload.epoch
    sizes = _tried(workload, smallest)
    wanted = Wanted(budget_s=question.budget_s, batch_sizes=tuple(sizes), memory=False, timing_s=_TIMING_S, until=until)
    with until.spending("evaluating on training data"), workload.limited(until):
        part = TrainPart(workload, chunk=sizes[-1])
        at_evaluation = part.measure if part.why_not() is None else None
    prepared = prepare(workload, wanted, preflight=preflight, at_evaluation=at_evaluation)
    before = prepared.step_time.of_batch
    pace = pace_of([], before, prepared.timing.evaluation_s)
    lrs = question.lrs or rates_below(_ceiling(workload, sizes[-1], question.seed, until))
    choices = first_choices(
        examples,
        lrs=lrs,
        seed=question.seed,
        smallest=smallest,
        batch_sizes=tuple(sorted(question.batch_sizes)),
        seeds=question.seeds,
        epochs=question.epochs,
        fixed_lrs=bool(question.lrs),
    )

    def cost(plan: ClaimsPlan) -> float:
        return seconds_of(plan, examples, pace, before)

    plan = largest_plan(choices, cost, _PART_OF_BUDGET * question.budget_s)
    first = Planned(
        moment="before the first run",
        plan=plan,
        runs=runs_of(plan, examples),
        seconds=cost(plan),
        left_s=question.budget_s,
        budget_s=question.budget_s,
        pace=pace,
    )
    return Planning(lrs=tuple(lrs), plans=(first,))


def _fixed(question: ClaimsQuestion) -> Fixed:
    return Fixed(batch_sizes=question.batch_sizes, lrs=question.lrs, seeds=question.seeds, epochs=question.epochs)


def _checked(workload: Workload, question: ClaimsQuestion, until: Deadline) -> Preflight:
    """Refuse numbers that make no sense, before anything is timed."""
    fixed = ClaimsPlan(
        batch_sizes=question.batch_sizes or (1, 2),
        lrs=question.lrs or (0.1, 1.0),
        seeds=tuple(range(question.seeds or 2)),
        epochs=1.0 if question.epochs is None else question.epochs,
    )
    _as_study(fixed, question)
    asked = metric_asked(question.metric)
    wanted = Wanted(budget_s=question.budget_s, batch_sizes=question.batch_sizes, metric=asked, until=until)
    preflight = check_task(workload, wanted)
    metric_of(question.metric, preflight)
    return preflight


def _tried(workload: Workload, smallest: int) -> list[int]:
    """Batch sizes whose steps are timed for the plan."""
    most = max(smallest, workload.epoch // 2)
    return [b for b in _TRIED if smallest <= b <= most] or [most]


def _ceiling(workload: Workload, batch_size: int, seed: int, until: Deadline) -> float:
    """The highest learning rate worth a run, the median of several range tests, of fewer where time lacks.

    Raises:
        OutOfTime: no time is left for the first.
    """
    until.require()
    share, found = until.share(_SHARE_FOR_CEILING), list[float]()
    how: dict[str, Any] = {"batch_size": batch_size, "micro_batch_size": batch_size, "until": share}
    with until.spending("range tests of the learning rate"):
        for i in range(_CEILINGS):
            if found and share.passed:
                break
            found.append(measure_rate_range(workload, seed=seed + _SEED_OFFSET + i, **how).highest_lr)
    return median(found)


def _as_study(plan: ClaimsPlan, question: ClaimsQuestion) -> tuple[NamedStudy, StudyQuestion]:
    """The grid as a study, which has its rows, summary and page."""
    asked = StudyQuestion(
        batch_sizes=plan.batch_sizes,
        lrs=plan.lrs,
        seeds=plan.seeds,
        length=Length(unit="epochs", amount=plan.epochs),
        schedule="constant",
        metric=question.metric,
        memory_limit=question.memory_limit,
    )

    def arms(asked: StudyQuestion, examples: int) -> list[Arm]:
        del examples
        return [Arm(batch_size=b, lr=lr, length=asked.length) for lr in asked.lrs for b in asked.batch_sizes]

    return NamedStudy(name="claims", summary="", source="", question=asked, arms=arms), asked


def _forecast(planned: Planned, question: ClaimsQuestion, deadline: Deadline) -> Prediction:
    plan, seconds = planned.plan, planned.seconds
    predicted = Prediction(
        seconds=seconds,
        low=seconds / 1.5,
        high=2 * seconds,
        budget_s=question.budget_s,
        what="claims",
        assumption=f"{len(plan.batch_sizes)} batch sizes, {len(plan.lrs)} learning rates, {len(plan.seeds)} seeds, "
        f"{plan.epochs:g} epochs, and what follows from them, at the speed that was just measured",
    )
    return predicted.after(question.budget_s - deadline.left_s)
