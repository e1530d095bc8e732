"""The answer from measurements that somebody already has: `batchscope fit`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ...errors import TableError
from ...hardware.host_memory import bounded
from ...hardware.profile import bench_from_profile
from ...quantities import whole_number
from ...report import build
from ...store.files import file_sha256, write_text
from ...store.question import asked_of
from ...store.records import Alternative, Bench, HardwareProfile, Plan, PlanStatus, Target
from ...store.runs import Store
from ...store.versions import environment_without_device
from ...wording import joined
from ..alternatives import alternative
from ..plan import build_plan, without_recipe
from ..question import CurrentRecipe, Question
from ..recipe import curves_of
from .reading import Table, read_table
from .reasons import evidence_of_table
from .runs import Runs, runs_of
from .state import NO_LIMIT, TableState, bench_of, state_of

__all__ = ["TARGET", "fit", "question_of"]

TARGET = Target(metric="target_reached", value=1.0, mode="max")
"""Stands for whatever the runs of a table were after."""

_SAME_LR = 1.05


@bounded()
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

    An empty cell under the target is a run that never reached it. Where every batch size has one learning rate, it is
    taken as it is; where batch sizes have several, learning rate and batch size are fitted together.

    Args:
        path: of the file; commas, semicolons or tabs separate.
        examples: in the training set; needed where the file speaks of epochs.
        objective: what is to be minimised; without step times only examples can be.
        current: the recipe in use, or its batch size alone; it is kept unless the gain is clear.
        max_batch_size: no larger one is recommended.
        profile: of the hardware that the answer is for; default: the step times of the file.
        target: what the runs were after; a name for the page, no number follows from it.
        seed: of the draws that carry the intervals.
        out: results folder for `plan.json`, `report.html` and the runs; default: nothing is written.

    Returns:
        The plan. A refusal is a plan too: `plan.status` says so, and `plan.recipe` is `None`.

    Raises:
        UsageError: a number is not whole, or makes no sense.
        TableError: the file cannot be used; the message names the line, what was seen, and what to write.
        StoreError: the results cannot be written.

    Cost: about half a second.
    """
    examples = None if examples is None else whole_number(examples, "--examples")
    if current is not None and not isinstance(current, CurrentRecipe):
        current = whole_number(current, "the current batch size")
    asked: dict[str, Any] = {"target": target, "objective": objective, "max_batch_size": max_batch_size, "seed": seed}
    how = {**asked, "examples": examples, "current": current, "profile": profile}
    table = read_table(path)
    table.check_examples(examples)
    answered = _answered(table, Question(**asked), examples, profile, current)
    plan = _plan(answered)
    if out is not None:
        _write(plan, answered, Path(out), question_of(path, how))
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


def _answered(
    table: Table,
    question: Question,
    examples: int | None,
    profile: HardwareProfile | None,
    current: CurrentRecipe | int | None,
) -> TableState:
    assert question.target is not None
    runs = runs_of(table, examples, question.target)
    bench = _bench(table, runs, question, examples, profile)
    if current is not None:
        size = current if isinstance(current, int) else current.batch_size
        lr = current.lr if isinstance(current, CurrentRecipe) and runs.tuned else runs.lrs.at(size)
        question = replace(question, current=CurrentRecipe(batch_size=size, lr=lr))
    notes = _notes(table, runs, examples, profile, current)
    return state_of(
        table, runs, question, examples=examples, bench=bench, environment=environment_without_device(), notes=notes
    )


def _bench(
    table: Table, runs: Runs, question: Question, examples: int | None, profile: HardwareProfile | None
) -> Bench | None:
    """The hardware that the answer is for; `None` where nothing is known of it, and nothing needs to be."""
    if profile is not None:
        return bench_from_profile(profile, examples=examples or NO_LIMIT, max_batch_size=question.max_batch_size)
    if runs.step_times:
        return bench_of(table.name, runs.step_times)
    if not question.counts_examples:
        raise TableError(
            f"{table.name} says nothing of time: no row has a step_time_s or an epoch_time_s; add one of the two, "
            "give --hardware PROFILE.json (bench --save writes it), or ask for --objective examples"
        )
    return None


def _notes(
    table: Table,
    runs: Runs,
    examples: int | None,
    profile: HardwareProfile | None,
    current: CurrentRecipe | int | None,
) -> tuple[str, ...]:
    notes: list[str] = []
    if table.ignored:
        notes.append(f"not read: the column{'s' * (len(table.ignored) > 1)} {joined(table.ignored)}")
    if runs.dropped:
        notes.append(
            f"{runs.dropped} rows were left out: their batch size has a better learning rate, and too few batch sizes "
            "have several to fit it"
        )
    if profile is not None and table.time_of is not None:
        notes.append(f"the times in {table.name} were not used: --hardware has others")
    if isinstance(current, CurrentRecipe) and not runs.tuned and runs.lrs.points:
        there = runs.lrs.at(current.batch_size)
        if not 1 / _SAME_LR < current.lr / there < _SAME_LR:
            notes.append(
                f"the current learning rate {current.lr:.3g} is not the one of the table at batch size "
                f"{current.batch_size}; what is said of the current recipe holds for {there:.3g}"
            )
    if examples is None:
        notes.append("the size of the training set is not known (--examples), so nothing is said in epochs")
    return tuple(notes)


def _plan(answered: TableState) -> Plan:
    state, name = answered.state, answered.table.name
    if not state.reached:
        message = f"none of the {len(state.runs)} runs in {name} reached the target; add runs that did"
        plan = without_recipe(state, PlanStatus.TARGET_NOT_REACHED, message)
    elif (doubt := answered.doubt) is not None:
        plan = without_recipe(state, PlanStatus.INSUFFICIENT_DATA, doubt)
        plan = replace(plan, alternatives=_alternatives(answered), curves=curves_of(state))
    else:
        plan = build_plan(state)
    return replace(plan, table=name, evidence=evidence_of_table(answered))


def _alternatives(answered: TableState) -> tuple[Alternative, ...]:
    """What may be done where nothing can be recommended; nothing without step times."""
    state, safe, guess = answered.state, answered.safe_pair, answered.state.decision
    if not state.recorded.step_times:
        return ()
    found = [alternative(state, "safe choice: the best of those that were measured", *safe)]
    if guess.batch_size != safe[0]:
        why = "best guess: try it before you rely on it"
        found.append(alternative(state, why, guess.batch_size, guess.lr))
    return tuple(found)


def _write(plan: Plan, answered: TableState, out: Path, asked: dict[str, Any]) -> None:
    with Store(out, asked) as store:
        for run in answered.state.runs:
            if run.result is not None and store.finished(run.config) is None:
                store.start(run.config).finish(run.result)
        store.note("plan", plan)
        write_text(out / "report.html", build(plan, store.runs()))
