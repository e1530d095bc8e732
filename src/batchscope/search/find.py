"""A search from question to answer, kept in a results folder; its stages are those of `stages`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import OutOfTime, TargetError, UsageError
from ..hardware.device import Device, pick, within_memory_of
from ..hardware.random_state import preserved_random_state
from ..hardware.time_limit import NO_LIMIT, TimeLimit
from ..hardware.training_guess import TrainingGuess
from ..report import build
from ..store.answers import Questions
from ..store.files import write_text
from ..store.question import asked_of
from ..store.records import HardwareProfile, Plan, PlanStatus, SearchCost, Timing
from ..store.runs import Store, StoredRun
from ..tasks.loading import LoadedTask, as_loaded
from ..tasks.preflight.check import Preflight
from ..tasks.preflight.evaluation import judged_by
from ..tasks.program import program_of
from ..tasks.protocol import Task
from ..tasks.step_timeout import watching
from ..tasks.workload import Workload
from ..training.checkpoint import Checkpoints
from ..training.limits import deadline_of, named_out_of_time
from ..training.prepare import Prepared, Wanted, check_task, prepare, with_constant, workload_of
from ..training.progress import Prediction, Progress, Silent
from ..training.unwritten import ANSWER, EARLIER, MODEL, NO_TIME, PAGE, TIME, Hears, if_possible, logged
from ..wording import plural
from .confirmation import resolved
from .earlier import seconds_before, told_of_earlier
from .evaluation_spacing import note_before
from .follow import require
from .forecast import STEPS, STEPS_OF, Pace, forecast
from .horizon import require_room, with_schedule
from .plan import build_plan, with_program
from .question import Question
from .runs import MEASURED_WITHIN, TIMING, SearchRuns, end_s, used_earlier
from .stages import Search, beginning
from .state import SearchState
from .too_late import before_first_run, nothing_measured

__all__ = ["find", "identity_of", "predict"]

_ANY_TARGET = Question()
_NOT_BESIDE = ("seed", "at")
"""Members of a question that are part of the folder's identity, or change no run."""
_TOO_LATE = "too-late"
"""Note of the answer to a question whose budget ended before its first run."""


def find(
    task: LoadedTask | Task,
    question: Question = _ANY_TARGET,
    *,
    out: Path | str,
    device: Device | None = None,
    profile: HardwareProfile | None = None,
    budget_s: float = 600.0,
    progress: Progress | None = None,
    keep_model: Path | None = None,
    started: float | None = None,
    keep_checkpoints: bool | None = None,
    page: bool = True,
    unwritten: Hears = logged,
    step_timeout_s: float | None = None,
) -> Plan:
    """Answer which batch size, learning rate and number of steps reach the target soonest.

    Args:
        task: from `load_task`, or any object with the methods of a task.
        question: what is asked; by default time to a target that a first run shows to be within reach.
        out: results folder; holds `plan.json`, `report.html` and all runs when this returns.
        device: where the search runs; default: the accelerator if there is one.
        profile: of the hardware that the answer is for; default: this machine, which is then measured.
        budget_s: seconds on this machine's clock after which nothing is measured or trained any more, earlier calls
            on the same folder included.
        progress: hears what happens.
        keep_model: where the trained model of the recipe goes, a `state_dict`; `None`: nowhere. It is that of the run
            that stands behind the recipe, which reached the target: training need not be repeated.
        started: when the command began, on the device's wall clock; default: now.
        keep_checkpoints: whether the training state of runs that may go on is kept in the folder, for other commands;
            `None`: while all of them take less than 1 GB, then the newest.
        page: whether `report.html` is written.
        unwritten: hears what could not be written once there was an answer: `plan.json`, the model, the page. The
            answer is returned all the same.
        step_timeout_s: seconds after which a call of the task's code (a step, an evaluation, an example) counts as
            hanging and is interrupted; default: 20 times the longest of its kind, 5 min at least, 30 min for the first.
            Only in the main thread can it be; nothing else of this process's signals is touched.

    Returns:
        The plan. A refusal is a plan too: `plan.status` says so, and `plan.recipe` is `None`.

    Raises:
        TaskError: the task fails the preflight, or a call of its code hangs.
        TargetError: the target cannot be used with this task, or is met before training.
        StoreError: the folder cannot be used.
        UsageError: the search that the question names needs a package that is not installed, or its schedule or
            warm-up cannot be that of the task's runs.
    """
    with within_memory_of(device), watching(step_timeout_s):
        loaded, device, progress = as_loaded(task), device or pick(), progress or Silent()
        question = with_schedule(question, loaded.task)
        started = device.begun(started)
        require(question.search)
        identity = identity_of(loaded, question, device)
        with preserved_random_state(question.seed), Store(out, identity) as store, ExitStack() as at_end:
            if store.recovered:
                progress.stage(store.recovered)
            questions = Questions(store, _beside(question, profile))
            stored, earlier_s = _going_on(store, questions, budget_s, progress)
            keep: dict[str, Any] = {"page": page, "unwritten": unwritten}
            nothing = None if stored or earlier_s < budget_s else questions.read_note(_TOO_LATE, Plan)
            if nothing is not None:
                return _kept(nothing, store, questions, **keep)
            deadline = deadline_of(device, budget_s - earlier_s, started)
            read_again = stored and earlier_s > 0.0  # what was answered once
            until = NO_LIMIT if read_again else deadline.before(end_s(budget_s))
            try:
                with named_out_of_time(deadline, budget_s):
                    workload = workload_of(loaded, device, until)
                    wanted = _wanted(workload, question, profile, budget_s, until)
                    question, prepared = _prepared(workload, question, wanted, store, questions, progress)
            except OutOfTime as error:
                spent_s = deadline.now - deadline.at + budget_s
                plan = nothing_measured(loaded.name, question, device, str(error), spent_s)
                return _too_late(replace(plan, notes=loaded.notes), budget_s, store, questions, **keep)
            store.check_late_files(loaded.late_files(store.late_files))
            if note := note_before(prepared.timing, question.evaluation_share):
                progress.stage(note)
            how: dict[str, Any] = {"deadline": deadline, "budget_s": budget_s, "progress": progress}
            how |= {
                "profile": profile,
                "keep_models": keep_model is not None,
                "checkpoints": _checkpoints(store, keep_checkpoints, progress),
            }
            runs = SearchRuns.begin(workload, store, questions, prepared, **how)
            at_end.callback(runs.runner.close)
            progress.predicted(forecast(question, runs.pace, examples=workload.examples_in_epoch or 0, stored=stored))
            largest = runs.largest_micro_batch_size
            program = program_of(loaded, workload, seed=question.seed, largest_micro_batch=largest)
            search = Search.begin(question, prepared, runs, profile)
            require_room(search.state)
            state = search.run()
            store.check_late_files(loaded.late_files())
            too_late = state.cut_off and not state.finished
            plan = before_first_run(state, runs.pace, deadline) if too_late else build_plan(state)
            if keep_model is not None and plan.recipe is not None and plan.has_model:
                with if_possible(unwritten, MODEL):
                    if not_kept := search.write_model(plan.recipe, keep_model):
                        unwritten(NO_TIME, not_kept)
            ended = runs.end(unwritten)
            unfinished = plan.status is PlanStatus.UNFINISHED  # its message names a budget
            told = (*loaded.notes, *told_of_earlier(state, runs), *(() if unfinished or too_late else ended))
            plan = with_program(plan, program) if plan.recipe is not None else plan
            plan = replace(plan, notes=(*plan.notes, *told), search=_cost(plan, state, runs))
            if too_late:
                with if_possible(unwritten, TIME):
                    questions.note(_TOO_LATE, plan)
            return _kept(plan, store, questions, **keep)


def _cost(plan: Plan, state: SearchState, runs: SearchRuns) -> SearchCost:
    """Cost of the search, without what earlier questions on the folder took."""
    steps_s, evaluations_s = seconds_before(state, runs)
    return replace(
        plan.search,
        seconds=runs.timing.spent_s,
        training_seconds=max(0.0, plan.search.training_seconds - steps_s),
        evaluation_seconds=max(0.0, plan.search.evaluation_seconds - evaluations_s),
    )


def _too_late(plan: Plan, budget_s: float, store: Store, questions: Questions, *, page: bool, unwritten: Hears) -> Plan:
    """Keep the answer of a search whose budget ended before a step was timed, and what it took."""
    spent_s = plan.search.seconds
    spent = Timing(evaluation_s=0.0, budget_s=budget_s, step_s=0.0, spent_s=spent_s, given_s=budget_s)
    with if_possible(unwritten, TIME):
        questions.note(TIMING, spent)
        questions.note(_TOO_LATE, plan)
    return _kept(plan, store, questions, page=page, unwritten=unwritten)


def _kept(plan: Plan, store: Store, questions: Questions, *, page: bool, unwritten: Hears) -> Plan:
    """The answer, written to the folder with its page as far as that is possible."""
    with if_possible(unwritten, ANSWER):
        questions.answer(plan, partial(unwritten, EARLIER))
    if page:
        with if_possible(unwritten, PAGE):
            write_text(store.root / "report.html", build(plan, store.runs()))
    return plan


def predict(
    loaded: LoadedTask,
    question: Question,
    *,
    device: Device | None = None,
    profile: HardwareProfile | None = None,
    budget_s: float = 600.0,
    progress: Progress | None = None,
    started: float | None = None,
) -> Prediction:
    """How long `find` would take; the hardware is measured, and nothing is stored. Arguments and errors as there."""
    with within_memory_of(device):
        device = device or pick()
        started = device.begun(started)
        deadline = deadline_of(device, budget_s, started)
        require(question.search)
        question = with_schedule(question, loaded.task)
        with preserved_random_state(question.seed), named_out_of_time(deadline, budget_s):
            workload = workload_of(loaded, device, deadline)
            wanted = _wanted(workload, question, profile, budget_s, deadline)
            question, preflight = _checked(workload, question, wanted, progress)
            prepared = prepare(workload, wanted, preflight=preflight, progress=progress)
            require_room(beginning(question, prepared, workload, profile))
        pace = Pace(timing=prepared.timing, budget_s=budget_s, spent_s=deadline.now - started)
        return forecast(question, pace, examples=workload.examples_in_epoch or 0)


def _going_on(store: Store, questions: Questions, budget_s: float, progress: Progress) -> tuple[list[StoredRun], float]:
    """The finished runs of a folder and what earlier commands took of the budget, both told to whoever watches."""
    stored = [run for run in store.runs() if run.result is not None]
    timing = questions.read_note(TIMING, Timing)
    earlier_s = timing.spent_s if timing else 0.0
    used = used_earlier(earlier_s, budget_s)
    said = f"going on from what {store.root} holds: {plural(len(stored), 'finished run')}" if stored else ""
    if said or used:
        progress.stage("; ".join(part for part in (said, used) if part))
    return stored, earlier_s


def _prepared(
    workload: Workload, question: Question, wanted: Wanted, store: Store, questions: Questions, progress: Progress
) -> tuple[Question, Prepared]:
    """The question with what its runs are judged by, and what was measured, with an account of the question's own."""
    bench_note = questions.name_for("bench", MEASURED_WITHIN)
    question, preflight = _checked(workload, question, wanted, progress, store)
    how: dict[str, Any] = {"preflight": preflight, "store": store, "bench_note": bench_note}
    prepared = prepare(workload, wanted, progress=progress, **how)
    known, fresh = questions.read_note(TIMING, Timing), _fresh(prepared.timing)
    if known is not None and not known.step_s:  # of a command whose budget ended before a step was timed
        known = replace(fresh, spent_s=known.spent_s, given_s=known.given_s)
    return question, replace(prepared, timing=known or fresh)


def _wanted(
    workload: Workload, question: Question, profile: HardwareProfile | None, budget_s: float, until: TimeLimit
) -> Wanted:
    """What a search must know of the task and the hardware before its first run.

    Raises:
        TargetError: the current batch size is larger than the training set.
        UsageError: a length in epochs is asked for of a stream.
    """
    current, within = question.current, question.within
    if within is not None and within.unit == "epochs" and workload.examples_in_epoch is None:
        raise UsageError(
            f"--within {within} counts in epochs, and train_data() is a stream, which has none; write the length in "
            "steps or as a time, for example --within 5000steps or --within 300s"
        )
    if current is not None and current.batch_size > (most := workload.largest_batch(current.batch_size)):
        raise TargetError(
            f"the current batch size {current.batch_size} is larger than the training set of {most} "
            "examples; give the batch size that is really used"
        )
    return Wanted(
        budget_s=budget_s,
        profile=profile,
        max_batch_size=question.max_batch_size,
        memory_limit=question.memory_limit,
        target=question.target,
        metric=question.metric,
        lr=current.lr if current else None,
        seed=question.seed,
        training=TrainingGuess(batch_size=STEPS_OF, steps=STEPS),
        until=until,
    )


def _checked(
    workload: Workload, question: Question, wanted: Wanted, progress: Progress | None, store: Store | None = None
) -> tuple[Question, Preflight]:
    """The preflight, and the question with what its runs are judged by: asked for before anything is measured.

    Raises:
        TaskError: the task fails the preflight, or has nothing to learn.
        TargetError: the target cannot be used, or there is none and no metric whose direction is known.
    """
    preflight = check_task(workload, wanted, progress, store)
    metric = question.metric if question.target is not None else judged_by(preflight.metrics, question.metric)
    return resolved(question, metric), with_constant(workload, preflight, store, wanted.until)


def identity_of(loaded: LoadedTask, question: Question, device: Device) -> dict[str, Any]:
    """What the runs of a search depend on beside their configurations; a results folder is about one such thing."""
    return asked_of("find", loaded.identity(str(device.torch_device)), seed=question.seed)


def _beside(question: Question, profile: HardwareProfile | None) -> dict[str, Any]:
    """What is asked beyond the folder's identity: another such question reuses the folder's runs."""
    return {"profile": profile, **{name: value for name, value in vars(question).items() if name not in _NOT_BESIDE}}


def _fresh(timing: Timing) -> Timing:
    """What was measured on this machine, with nothing spent: the account of a new question."""
    return replace(timing, spent_s=0.0, given_s=0.0)


def _checkpoints(store: Store, keep: bool | None, progress: Progress) -> Checkpoints:
    limit: dict[str, Any] = {} if keep is None else {"most_bytes": None}
    return Checkpoints(runs=store.root / "runs", keep=keep is not False, **limit, say=progress.stage)
