"""The answer from measurements that somebody already has: `batchscope fit`."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...errors import TableError
from ...hardware.profile import bench_from_profile
from ...report import build
from ...store.files import file_sha256, write_text
from ...store.question import asked_of
from ...store.records import (
    Alternative,
    Bench,
    Environment,
    HardwareProfile,
    Plan,
    PlanStatus,
    Target,
    Verified,
)
from ...store.runs import Store
from ...store.versions import own_version
from ..plan import build_plan, without_recipe
from ..question import CurrentRecipe, Question
from ..recipe import curves_of, predicted_at, recipe_of
from .measured import drawn, only_what_is_known
from .reading import Table, read_table
from .reasons import evidence_of_table
from .runs import Runs, runs_of
from .state import TableFindings, UntunedFindings

__all__ = ["TARGET", "fit", "question_of"]

TARGET = Target(metric="target_reached", value=1.0, mode="max")
"""Stands for whatever the runs of a table were after."""

_SAME_RATE = 1.05
_NO_LIMIT = 2**30
_NOT_TIMED = ((1, 1.0),)


def fit(
    path: str | Path,
    *,
    examples: int | None = None,
    objective: Literal["time", "examples"] = "time",
    current: CurrentRecipe | int | None = None,
    max_batch_size: int | None = None,
    profile: HardwareProfile | None = None,
    target: Target = TARGET,
    seed: int = 0,
    out: Path | str | None = None,
) -> Plan:
    """Answer which batch size reaches the target soonest, from measurements that somebody already has.

    Nothing is trained, and torch is not needed. The file has one row a run:

    ```
    batch_size, steps_to_target | epochs_to_target | examples_to_target, [step_time_s | epoch_time_s], [lr], [seed]
    ```

    An empty cell under the target is a run that never reached it. Where every batch size has one rate, that rate is
    taken as it is; where batch sizes have several, rate and batch size are fitted together.

    Args:
        path: of the file; commas, semicolons or tabs separate.
        examples: in the training set; needed where the file speaks of epochs.
        objective: what is to be least; without step times only examples can be.
        current: the recipe in use, or its batch size alone; it is kept unless the gain is clear.
        max_batch_size: no larger one is recommended.
        profile: of the hardware that the answer is for; default: the step times of the file.
        target: what the runs were after; a name for the page, no number follows from it.
        seed: of the draws that carry the intervals.
        out: results folder for `plan.json`, `report.html` and the runs; default: nothing is written.

    Returns:
        The plan. A refusal is a plan too: `plan.status` says so, and `plan.recipe` is `None`.

    Raises:
        TableError: the file cannot be used; the message names the line, what was seen, and what to write.
        StoreError: the results cannot be written.

    Cost: about half a second.
    """
    asked: dict[str, Any] = {"target": target, "objective": objective, "max_batch_size": max_batch_size, "seed": seed}
    how = {**asked, "examples": examples, "current": current, "profile": profile}
    table = read_table(path)
    table.check_examples(examples)
    findings = _findings(table, Question(**asked), examples, profile, current)
    plan = _plan(findings)
    if out is not None:
        _write(plan, findings, Path(out), question_of(path, how))
    return plan


def question_of(path: str | Path, how: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that makes a question another one; a results folder answers one question.

    Args:
        path: of the file.
        how: the other arguments of `fit`, `out` apart.

    Raises:
        StoreError: the file cannot be read.
    """
    return asked_of("fit", {"table": Path(path).name, "table_sha256": file_sha256(Path(path))}, **how)


def _findings(
    table: Table,
    question: Question,
    examples: int | None,
    profile: HardwareProfile | None,
    current: CurrentRecipe | int | None,
) -> TableFindings:
    assert question.target is not None
    runs = runs_of(table, examples, question.target)
    bench = _bench(table, runs, question, examples, profile)
    notes = _notes(table, runs, examples, profile, current)
    if current is not None:
        size = current if isinstance(current, int) else current.batch_size
        lr = current.lr if isinstance(current, CurrentRecipe) and runs.tuned else runs.rates.at(size)
        question = replace(question, current=CurrentRecipe(batch_size=size, lr=lr))
    shared: dict[str, Any] = {
        "task": Path(table.name).stem,
        "question": question,
        "target": question.target,
        "examples": examples or 1,
        "bench": bench or _bench_of(table.name, _NOT_TIMED),
        "bench_counts": False,
        "rate_range": None,
        "runs": runs.stored,
        "seconds": 0.0,
        "environment": _environment(),
        "notes": notes,
        "table": table,
        "seen": runs.observed,
        "steps": runs.steps,
        "examples_known": examples is not None,
        "times_known": bench is not None,
    }
    return TableFindings(**shared) if runs.tuned else UntunedFindings(**shared, rates=runs.rates)


def _bench(
    table: Table, runs: Runs, question: Question, examples: int | None, profile: HardwareProfile | None
) -> Bench | None:
    """The hardware that the answer is for; `None` where nothing is known of it, and nothing needs to be."""
    if profile is not None:
        return bench_from_profile(profile, examples=examples or _NO_LIMIT, max_batch_size=question.max_batch_size)
    if runs.step_times:
        return _bench_of(table.name, runs.step_times)
    if not question.counts_examples:
        raise TableError(
            f"{table.name} says nothing of time: no row has a step_time_s or an epoch_time_s; add one of the two, "
            "give --hardware PROFILE.json (bench --save writes it), or ask for --objective examples"
        )
    return None


def _bench_of(name: str, step_times: tuple[tuple[int, float], ...]) -> Bench:
    return Bench(
        profile=HardwareProfile(name=f"the hardware of {name}", step_time_s=step_times),
        readings=(),
        split=None,
        largest_micro_batch_size=_NO_LIMIT,
        largest_verified=False,
    )


def _notes(
    table: Table,
    runs: Runs,
    examples: int | None,
    profile: HardwareProfile | None,
    current: CurrentRecipe | int | None,
) -> tuple[str, ...]:
    said: list[str] = []
    if table.ignored:
        said.append(f"not read: the column{'s' * (len(table.ignored) > 1)} {', '.join(table.ignored)}")
    if runs.dropped:
        said.append(
            f"{runs.dropped} rows were left out: their batch size has a better rate, and too few have several to fit "
            "the rate"
        )
    if profile is not None and table.time_of is not None:
        said.append(f"the times in {table.name} were not used: --hardware has others")
    if isinstance(current, CurrentRecipe) and not runs.tuned and runs.rates.points:
        there = runs.rates.at(current.batch_size)
        if not 1 / _SAME_RATE < current.lr / there < _SAME_RATE:
            said.append(
                f"the current rate {current.lr:.3g} is not the one of the table at batch size {current.batch_size}; "
                f"what is said of it holds for {there:.3g}"
            )
    if examples is None:
        said.append("the size of the training set is not known (--examples), so nothing is said in epochs")
    return tuple(said)


def _plan(findings: TableFindings) -> Plan:
    if not findings.reached:
        runs = sum(map(len, findings.steps.values()))
        message = f"none of the {runs} runs in {findings.table.name} reached the target; add runs that did"
        plan = without_recipe(findings, PlanStatus.TARGET_NOT_REACHED, message)
    elif (doubt := findings.doubt) is not None:
        plan = without_recipe(findings, PlanStatus.INSUFFICIENT_DATA, doubt)
        plan = replace(plan, alternatives=_instead(findings), curves=drawn(curves_of(findings)))
    else:
        plan = build_plan(findings)
        plan = replace(plan, verified=_verified(findings, plan), curves=plan.curves and drawn(plan.curves))
    return only_what_is_known(replace(plan, table=findings.table.name, evidence=evidence_of_table(findings)), findings)


def _instead(findings: TableFindings) -> tuple[Alternative, ...]:
    """What may be done where nothing can be recommended."""
    safe, guess = findings.safe, findings.decision
    pairs = {"safe choice: the best of those that were measured": (safe, findings.lr_at(safe))}
    if guess.batch_size != safe:
        pairs["best guess: try it before you rely on it"] = (guess.batch_size, guess.lr)
    return tuple(
        Alternative(why=why, recipe=recipe_of(findings, *pair), predicted=predicted_at(findings, *pair))
        for why, pair in pairs.items()
    )


def _verified(findings: TableFindings, plan: Plan) -> Verified | None:
    """The mean of the table's runs at the recipe."""
    assert plan.recipe is not None
    assert plan.recipe.lr is not None
    assert plan.target is not None
    steps = findings.reached.get((plan.recipe.batch_size, plan.recipe.lr))
    if not steps:
        return None
    mean = sum(steps) / len(steps)
    seconds = mean * findings.seconds_of(plan.recipe.batch_size)
    return Verified(steps=mean, time_s=seconds if findings.times_known else None, metric=plan.target.value)


def _environment() -> Environment:
    return Environment(
        batchscope=own_version(),
        python=platform.python_version(),
        torch=None,
        numpy=np.__version__,
        platform=platform.platform(),
        device="none",
        device_name="",
        cpu_count=os.cpu_count() or 1,
        threads=1,
    )


def _write(plan: Plan, findings: TableFindings, out: Path, asked: dict[str, Any]) -> None:
    with Store(out, asked) as store:
        for run in findings.runs:
            if run.result is not None and store.finished(run.config) is None:
                store.start(run.config).finish(run.result)
        store.note("plan", plan)
        write_text(out / "report.html", build(plan, store.runs()))
