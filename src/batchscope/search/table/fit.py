"""The answer from measurements that somebody already has: `batchscope fit`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ...errors import TableError
from ...hardware.host_memory import within_free
from ...hardware.profile import bench_from_profile
from ...report import build
from ...store.files import file_sha256, write_text
from ...store.quantities import whole_number
from ...store.question import asked_of
from ...store.records import TARGET_OF_TABLE, Alternative, Bench, HardwareProfile, Plan, PlanStatus, SearchCost, Target
from ...store.runs import Store, read_runs
from ...store.versions import environment_without_device
from ...training.unwritten import ANSWER, PAGE, Hears, if_possible, logged
from ...wording import joined, plural
from ..alternatives import alternative
from ..plan import build_plan, without_recipe
from ..question import CurrentRecipe, Question
from ..recipe import curves_of
from .measurement import Table
from .pooled import pooled
from .reading import read_table
from .reasons import evidence_of_table
from .runs import Runs, runs_of
from .state import NO_LIMIT, TableState, bench_of, state_of

__all__ = ["fit", "question_of"]

_SAME_LR = 1.05
_NAMED = 5
"""Columns that are not read are named up to so many."""
_SLOW, _LARGE = 10_000, 1_000_000
"""Rows, and bytes of a file, from which the stages of the work are told."""


@within_free()
def fit(
    path: str | Path,
    *,
    examples: int | None = None,
    objective: Literal["time", "examples"] = "time",
    current: CurrentRecipe | int | None = None,
    max_batch_size: int | None = None,
    profile: HardwareProfile | None = None,
    target: Target = TARGET_OF_TABLE,
    columns: Mapping[str, str] | None = None,
    seed: int = 0,
    at: Sequence[int] = (),
    out: Path | str | None = None,
    tell: Callable[[str], None] = lambda stage: None,
    page: bool = True,
    unwritten: Hears = logged,
) -> Plan:
    """Answer which batch size reaches the target soonest, from measurements that somebody already has.

    Nothing is trained, and torch is not needed. The file has one row a run:

    ```
    batch_size, steps_to_target | epochs_to_target | examples_to_target, [step_time_s | epoch_time_s], [lr], [seed]
    ```

    An empty cell under the target is a run that never reached it. Where every batch size has one learning rate, it is
    taken as it is; where batch sizes have several, learning rate and batch size are fitted together. A file without
    such a column is one of curves, one row an evaluation (`batch_size, step | epoch | examples, METRIC, [run]`), and
    each run's way to the target is read off its curve. Columns are found under the names that W&B, Optuna, MLflow,
    Lightning and Keras give them, too.

    Args:
        path: of the file; commas, semicolons, tabs or bars separate.
        examples: in the training set; needed where the file speaks of epochs.
        objective: what is to be minimised; without step times only examples can be.
        current: the recipe in use, or its batch size alone; it is kept unless the gain is clear.
        max_batch_size: no larger one is recommended.
        profile: of the hardware that the answer is for; default: the step times of the file.
        target: what the runs were after; in a table of curves, what is looked for. Else a name for the page: no number
            follows from it.
        columns: which column is meant, by what it is taken for: `{"lr": "config.optim.lr"}`; also for the target's
            metric. Default: they are found by their names, and the choice is among the plan's notes.
        seed: of the draws that carry the intervals.
        at: batch sizes to say of what training would take there, also far from those of the table.
        out: results folder for `plan.json`, `report.html` and the runs; default: nothing is written.
        tell: is told what begins, where a table is so large that it takes long.
        page: whether `report.html` is written.
        unwritten: hears what the disk refuses; the answer is returned all the same.

    Returns:
        The plan. A refusal is a plan too: `plan.status` says so, and `plan.recipe` is `None`.

    Raises:
        UsageError: a number is not whole, or makes no sense.
        TableError: the file cannot be used; the message names the line, what was seen, and what to write.
        StoreError: the results folder is of another question, or at work.
        OutOfMemory: the table needs more memory than is free.

    Cost: about half a second; some ten seconds for 100,000 rows (`benchmarks/large_table.py`).
    """
    examples = None if examples is None else whole_number(examples, "--examples")
    if current is not None and not isinstance(current, CurrentRecipe):
        current = whole_number(current, "the current batch size")
    asked: dict[str, Any] = {"target": target, "objective": objective, "max_batch_size": max_batch_size, "seed": seed}
    how = {**asked, "examples": examples, "current": current, "profile": profile}
    if columns:
        how["columns"] = dict(columns)
    if Path(path).is_file() and Path(path).stat().st_size > _LARGE:
        tell(f"reading {Path(path).name}")
    table = read_table(path, target=None if target == TARGET_OF_TABLE else target, columns=columns)
    table.check_examples(examples)
    large = len(table.rows) > _SLOW
    if large:
        tell(f"fitting the law to {plural(len(table.rows), 'run')}")
    answered = _answered(pooled(table), Question(**asked, at=tuple(at)), examples, profile, current)
    plan = _plan(answered)
    if out is not None:
        if large:
            tell("writing the results")
        with if_possible(unwritten, ANSWER, disk_only=True):
            _write(plan, answered, Path(out), question_of(path, how))
        if page:
            with if_possible(unwritten, PAGE):
                write_text(Path(out) / "report.html", build(plan, read_runs(out)))
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
    notes: list[str] = [*table.notes, *runs.notes]
    if table.ignored:
        notes.append(_not_read(table.ignored))
    if runs.too_short:
        notes.append(
            f"{plural(runs.too_short, 'run')} left out: stopped before the target, after fewer examples than the "
            "longest run that reached it"
        )
    total = sum(map(len, runs.steps.values()))
    if total > len(runs.stored):
        notes.append(
            f"the page and the folder show {len(runs.stored)} of {plural(total, 'run')}, evenly spaced in the table"
        )
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


def _not_read(ignored: Sequence[str]) -> str:
    """Note on the columns that are not read, on one line however many they are.

    >>> _not_read(("a", "b")), _not_read(tuple("abcdefgh"))
    ('not read: the columns a and b', 'not read: 8 columns, among them a, b, c, d and e')
    """
    if len(ignored) <= _NAMED:
        return f"not read: the column{'s' * (len(ignored) > 1)} {joined(ignored)}"
    return f"not read: {len(ignored):,} columns, among them {joined(ignored[:_NAMED])}"


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
    return replace(plan, table=name, evidence=evidence_of_table(answered), search=_cost(answered, plan))


def _cost(answered: TableState, plan: Plan) -> SearchCost:
    """What all runs of the table cost, those too that are not kept one by one."""
    state, runs = answered.state, answered.runs
    known = state.recorded.step_times
    spent = sum(steps * state.seconds_of(size) for size, steps in runs.made.items()) if known else 0.0
    once = plan.search.device_seconds / plan.search.run_equivalents if plan.search.run_equivalents else None
    return replace(
        plan.search,
        runs=len(runs.observed),
        device_seconds=spent,
        examples=round(sum(steps * size for size, steps in runs.made.items())),
        run_equivalents=spent / once if once else None,
    )


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
        store.answer("plan", plan)
