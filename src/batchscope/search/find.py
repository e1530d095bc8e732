"""A search from question to answer, kept in a results folder; how it goes is the business of `searching`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..hardware.device import Device, pick
from ..hardware.random_state import preserved_random_state
from ..report import build
from ..store.files import write_text
from ..store.question import asked_of
from ..store.records import HardwareProfile, Plan
from ..store.runs import Store
from ..tasks.loading import LoadedTask, as_loaded
from ..tasks.protocol import Task
from ..tasks.workload import Workload
from ..training.prepare import prediction_of, prepare
from ..training.progress import Prediction, Progress, Silent
from .follow import TYPICAL_RUNS, require
from .question import Question
from .stages import Search

__all__ = ["find", "predict", "question_of"]

_ANY_TARGET = Question()


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
) -> Plan:
    """Answer which batch size, rate and number of steps reach the target soonest.

    Args:
        task: from `load_task`, or any object with the methods of a task.
        question: what is asked; by default time to a target that a first run shows to be within reach.
        out: results folder; holds `plan.json`, `report.html` and all runs when this returns.
        device: where the search runs; default: the accelerator if there is one.
        profile: of the hardware that the answer is for; default: this machine, which is then measured.
        budget_s: seconds on this machine's clock after which no training goes on.
        progress: told what happens.
        keep_model: where the trained model of the recipe goes, a `state_dict`; `None`: nowhere. It is that of the run
            that stands behind the recipe, which reached the target: training need not be repeated.

    Returns:
        The plan. A refusal is a plan too: `plan.status` says so, and `plan.recipe` is `None`.

    Raises:
        TaskError: the task fails the preflight.
        TargetError: the target cannot be used with this task, or is met before training.
        StoreError: the folder cannot be used.
        UsageError: the search that the question names needs a package that is not installed.
    """
    loaded, device = as_loaded(task), device or pick()
    asked = question_of(loaded, question, device, profile)
    with preserved_random_state(question.seed), Store(out, asked) as store:
        workload = Workload(loaded.task, name=loaded.name, settings=loaded.settings, device=device)
        search = Search.begin(workload, question, store, profile, budget_s, progress or Silent())
        search.runner.keep_models = keep_model is not None
        plan = search.answer()
        if keep_model is not None and plan.recipe is not None:
            search.hand_over_model(plan.recipe, keep_model)
        search.runner.end()
        store.note("plan", plan)
        write_text(Path(out) / "report.html", build(plan, store.runs()))
    return plan


def predict(
    loaded: LoadedTask,
    question: Question,
    *,
    device: Device | None = None,
    profile: HardwareProfile | None = None,
    budget_s: float = 600.0,
    progress: Progress | None = None,
) -> Prediction:
    """How long `find` would take; the hardware is measured, and nothing is stored. Arguments and errors as there."""
    require(question.search)
    with preserved_random_state(question.seed):
        workload = Workload(loaded.task, name=loaded.name, settings=loaded.settings, device=device or pick())
        prepared = prepare(workload, question, profile=profile, budget_s=budget_s, progress=progress)
    return prediction_of(prepared, budget_s, TYPICAL_RUNS[question.search])


def question_of(
    loaded: LoadedTask, question: Question, device: Device, profile: HardwareProfile | None
) -> dict[str, Any]:
    """Everything that makes a search another one; a results folder answers one question."""
    return asked_of("find", loaded.identity(str(device.torch_device)), profile=profile, **vars(question))
