"""A study from question to answer, kept in a results folder; its runs are made in the laboratory (`engine`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..hardware.device import Device, pick, within_memory_of
from ..hardware.environment import environment_of
from ..hardware.random_state import preserved_random_state
from ..report.page import draw
from ..store.files import write_text
from ..store.question import asked_of
from ..store.runs import Store, StoredRun
from ..tasks.loading import LoadedTask, as_loaded
from ..tasks.protocol import Task
from ..training.attempts import Trials
from ..training.limits import deadline_of, named_out_of_time, out_of_time_in_words
from ..training.prepare import workload_of
from ..training.progress import Prediction, Progress, Silent
from ..training.unwritten import ANSWER, PAGE, Hears, if_possible, logged
from ..wording import number, plural
from .conclusions import findings_of
from .configuration import with_schedule
from .engine import Laboratory
from .files import study_from, study_json
from .pace import budget_for
from .page.page import study_contents
from .prepare import StudyPrepared, forecast_of, limit_before_runs, outlook_of, prepare_study
from .records import NamedStudy, Study, StudyQuestion
from .summary import row_of, summarise

__all__ = ["OWN_GRID", "account", "predict", "question_of", "study"]

OWN_GRID = NamedStudy(
    name="sweep",
    summary="every batch size at every learning rate, for every seed",
    source="",
    question=StudyQuestion(batch_sizes=(8, 32, 128), lrs=(0.01, 0.1)),
)
"""What `batchscope study TASK` does."""


def study(
    task: LoadedTask | Task,
    question: StudyQuestion,
    *,
    out: Path | str,
    named: NamedStudy = OWN_GRID,
    device: Device | None = None,
    budget_s: float = 600.0,
    drops_seeds: bool = False,
    started: float | None = None,
    progress: Progress | None = None,
    page: bool = True,
    unwritten: Hears = logged,
) -> Study:
    """Make the runs and measurements of a study, and conclude.

    Args:
        task: from `load_task`, or any object with the methods of a task.
        question: batch sizes, learning rates, seeds, length.
        out: results folder; holds `study.json`, `report.html` and all runs when this returns.
        named: what is done with them; default: every batch size at every learning rate.
        device: where runs are made; default: the accelerator if there is one.
        budget_s: seconds after which nothing is measured or trained any more; the same call goes on where it ended.
        drops_seeds: whether a seed that does not fit into the budget any more is not begun; the seeds are nobody's
            choice then.
        started: when the command began, on the device's wall clock; default: now.
        progress: hears what happens.
        page: whether `report.html` is written.
        unwritten: hears what could not be written once there was an answer: `study.json`, the page. The answer is
            returned all the same.

    Returns:
        What was found; `complete` says whether the budget was enough.

    Raises:
        TaskError: the task fails the preflight.
        UsageError: a batch size is larger than the training set, or does not fit into memory, or the schedule cannot be
            that of the task's runs.
        TargetError: the metric is not there.
        StoreError: the folder cannot be used.
        OutOfMemory: something does not fit into memory, or killed a process before any run was finished.
        OutOfTime: the budget ended before it was known what a step and an evaluation take; not in a folder with runs.
    """
    with within_memory_of(device):
        loaded, device, progress = as_loaded(task), device or pick(), progress or Silent()
        question, deadline = with_schedule(question, loaded.task), deadline_of(device, budget_s, started)
        with (
            named_out_of_time(deadline, budget_s),
            preserved_random_state(question.seeds[0]),
            Store(out, question_of(loaded, question, device, named)) as store,
        ):
            if store.recovered:
                progress.stage(store.recovered)
            until = limit_before_runs(store, deadline)
            workload = workload_of(loaded, device, until)
            how: dict[str, Any] = {"store": store, "progress": progress}
            prepared = prepare_study(workload, question, named, budget_s=budget_s, until=until, **how)
            store.check_late_files(loaded.late_files(store.late_files))
            how["deadline"] = deadline
            outlook = outlook_of(prepared, question, workload.epoch, budget_s, drops_seeds=drops_seeds)
            laboratory = Laboratory.begin(loaded, workload, question, prepared, **how, outlook=outlook)
            predicted = forecast_of(prepared, question, workload.epoch, budget_s, laboratory.made)
            progress.predicted(predicted := predicted.after(budget_s - deadline.left_s))
            trials, what = Trials(store, device), f"a measurement of the study {named.name} beside its runs"
            if (refused := trials.refusal(what)) is None:
                with trials.of(what):  # each of its runs is announced by itself
                    named.measure_all(laboratory)
            store.check_late_files(loaded.late_files())
            found, runs = account(laboratory, named, prepared)
            if refused is not None:  # what was made before is the answer
                if not runs:
                    raise refused
                why = f"nothing more is run or measured: {refused}"
                found = replace(found, complete=False, notes=(*found.notes, why))
            if laboratory.cut_off and not runs:
                would_do = budget_for(max(2 * budget_s, predicted.seconds))
                said = out_of_time_in_words(deadline, budget_s, would_do=would_do)
                found = replace(found, notes=(*found.notes, said))
            with if_possible(unwritten, ANSWER):
                store.answer("study", study_json(found), study_from)
            if page:
                with if_possible(unwritten, PAGE):
                    sections = named.sections(found, runs)
                    write_text(Path(out) / "report.html", draw(study_contents(found, runs, sections)))
        return found


def predict(
    loaded: LoadedTask,
    question: StudyQuestion,
    *,
    named: NamedStudy = OWN_GRID,
    device: Device | None = None,
    budget_s: float = 600.0,
    started: float | None = None,
    progress: Progress | None = None,
) -> Prediction:
    """How long `study` would take; steps are timed, and nothing is stored. Arguments and errors as there."""
    with within_memory_of(device):
        question, device = with_schedule(question, loaded.task), device or pick()
        deadline = deadline_of(device, budget_s, started)
        with preserved_random_state(question.seeds[0]), named_out_of_time(deadline, budget_s):
            workload = workload_of(loaded, device, deadline)
            how: dict[str, Any] = {"until": deadline, "progress": progress or Silent()}
            prepared = prepare_study(workload, question, named, budget_s=budget_s, **how)
        predicted = forecast_of(prepared, question, workload.epoch, budget_s)
        return predicted.after(budget_s - deadline.left_s)


def question_of(
    loaded: LoadedTask, question: StudyQuestion, device: Device, named: NamedStudy = OWN_GRID
) -> dict[str, Any]:
    """Everything that makes a study another one; a results folder holds one."""
    asked = vars(with_schedule(question, loaded.task))
    return asked_of("study", loaded.identity(str(device.torch_device)), study=named.name, **asked)


def account(
    laboratory: Laboratory,
    named: NamedStudy,
    prepared: StudyPrepared,
    counts: Callable[[StoredRun], bool] = lambda run: True,
) -> tuple[Study, tuple[StoredRun, ...]]:
    """Rows, summary and findings of all finished runs that count, and those runs."""
    runs = tuple(run for run in laboratory.store.runs() if run.result is not None and counts(run))
    memory = prepared.memory_bytes
    rows = tuple(
        row_of(run, prepared.target, laboratory.examples_of(run), memory.get(run.config.batch_size)) for run in runs
    )
    members: dict[str, Any] = {
        "study": named.name,
        "task": laboratory.loaded.name,
        "rows": rows,
        "summary": summarise(rows, prepared.target),
        "question": laboratory.question,
        "metric": prepared.target.metric,
        "larger_is_better": prepared.target.mode == "max",
        "examples": laboratory.examples,
        "planned": laboratory.planned,
        "complete": not laboratory.cut_off,
        "quick": named.is_quick(laboratory.question),
        "needed_s": laboratory.outlook.needed_s if laboratory.cut_off and laboratory.outlook else None,
        "environment": environment_of(laboratory.device),
        "measurements": laboratory.measurements(),
        "notes": prepared.notes,
    }
    bare = Study(**members, findings=())
    if bare.all_diverged:
        bare = replace(bare, notes=(*bare.notes, _without_a_sound_run(bare)))
    return replace(bare, findings=(*named.conclude(bare, runs), *findings_of(bare))), runs


def _without_a_sound_run(study: Study) -> str:
    """What is said where all runs diverged, so that nothing can rest on them."""
    lrs = [row.lr for row in study.rows]
    tried = (
        f"learning rates from {number(min(lrs))} to {number(max(lrs))}"
        if len({*lrs}) > 1
        else f"learning rate {number(lrs[0])}"
    )
    return (
        f"nothing can be said: {plural(len(lrs), 'run')} at {tried}, and each diverged; give lower --lrs, or look at "
        "the data and at evaluate(model) where the loss is no number from the first step"
    )
