"""A study from question to answer, kept in a results folder; its runs are made in the `laboratory`."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..hardware.device import Device, pick
from ..hardware.environment import environment_of
from ..hardware.random_state import preserved_random_state
from ..report.page import draw
from ..store.codec import encode
from ..store.files import write_text
from ..store.records import SCHEMA
from ..store.runs import Store, StoredRun
from ..tasks.loading import LoadedTask, as_loaded
from ..tasks.protocol import Task
from ..tasks.workload import Workload
from ..training.progress import Prediction, Progress, Silent
from .conclusions import findings_of
from .engine import Laboratory
from .files import study_json
from .page.page import study_contents
from .prepare import StudyPrepared, prediction_of, prepare_study
from .records import NamedStudy, Study, StudyQuestion
from .summary import row_of, summarise

__all__ = ["SWEEP", "account", "asked_of", "predict", "study", "workload_of"]

SWEEP = NamedStudy(
    name="sweep",
    summary="every batch size at every rate, for every seed",
    source="",
    question=StudyQuestion(batch_sizes=(8, 32, 128), lrs=(0.01, 0.1)),
)
"""What `batchscope study TASK` does."""


def study(
    task: LoadedTask | Task,
    question: StudyQuestion,
    *,
    out: Path | str,
    named: NamedStudy = SWEEP,
    device: Device | None = None,
    budget_s: float = 600.0,
    progress: Progress | None = None,
) -> Study:
    """Carry out a study.

    Args:
        task: from `load_task`, or any object with the methods of a task.
        question: batch sizes, rates, seeds, length.
        out: results folder; holds `study.json`, `report.html` and all runs when this returns.
        named: what is done with them; default: every batch size at every rate.
        device: where runs are made; default: the accelerator if there is one.
        budget_s: seconds from now after which no training goes on; the same call goes on where it ended.
        progress: told what happens.

    Returns:
        What was found; `complete` says whether the budget was enough.

    Raises:
        TaskError: the task fails the preflight.
        UsageError: a batch size is larger than the training set, or does not fit into memory.
        TargetError: the metric is not there.
        StoreError: the folder cannot be used.
    """
    loaded, device, told = as_loaded(task), device or pick(), progress or Silent()
    started = time.monotonic()
    with preserved_random_state(question.seeds[0]), Store(out, asked_of(loaded, question, device, named)) as store:
        workload = workload_of(loaded, device)
        prepared = prepare_study(workload, question, named, told, store)
        laboratory = Laboratory(
            loaded=loaded,
            workload=workload,
            question=question,
            target=prepared.target,
            store=store,
            progress=told,
            step_time=prepared.step_time,
            arms=prepared.arms,
            deadline=started + budget_s,
        )
        told.predicted(prediction_of(prepared, question, workload.examples, budget_s, laboratory))
        named.measure_all(laboratory)
        found, runs = account(laboratory, named, prepared)
        store.note("study", study_json(found))
        write_text(Path(out) / "report.html", draw(study_contents(found, runs, named.sections(found, runs))))
    return found


def predict(
    loaded: LoadedTask,
    question: StudyQuestion,
    *,
    named: NamedStudy = SWEEP,
    device: Device | None = None,
    budget_s: float = 600.0,
    progress: Progress | None = None,
) -> Prediction:
    """How long `study` would take; steps are timed, and nothing is stored. Arguments and errors as there."""
    with preserved_random_state(question.seeds[0]):
        workload = workload_of(loaded, device or pick())
        prepared = prepare_study(workload, question, named, progress or Silent(), None)
    return prediction_of(prepared, question, workload.examples, budget_s)


def asked_of(loaded: LoadedTask, question: StudyQuestion, device: Device, named: NamedStudy = SWEEP) -> dict[str, Any]:
    """Everything that makes a study another one; a results folder holds one."""
    return {
        "schema": SCHEMA,
        "command": "study",
        "study": named.name,
        "task": loaded.name,
        "settings": loaded.settings,
        "source_sha256": loaded.source_sha256,
        "device": str(device.torch_device),
        **encode(question),
    }


def workload_of(loaded: LoadedTask, device: Device) -> Workload:
    """A task as it was loaded, on its device."""
    return Workload(loaded.task, name=loaded.name, settings=loaded.settings, device=device)


def account(laboratory: Laboratory, named: NamedStudy, prepared: StudyPrepared) -> tuple[Study, tuple[StoredRun, ...]]:
    """Rows, summary and findings of all finished runs, and those runs."""
    runs = tuple(run for run in laboratory.store.runs() if run.result is not None)
    memory = dict(prepared.memory_bytes)
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
        "environment": environment_of(laboratory.device),
        "measurements": laboratory.measurements(),
        "notes": prepared.notes,
    }
    bare = Study(**members, findings=())
    return replace(bare, findings=(*named.conclude(bare, runs), *findings_of(bare))), runs
