"""Easier targets: recipes for other targets of the same metric, which the same runs pass on their way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...store.records import EasierTarget, Plan, PlanStatus
from ...wording import count, duration, joined, number, with_interval
from ..blocks import Column, Section, Table, Text

if TYPE_CHECKING:
    from ...store.runs import StoredRun

COLUMNS = (
    Column("target"),
    Column("batch size", numeric=True),
    Column("learning rate", numeric=True),
    Column("time", numeric=True),
    Column("steps", numeric=True),
    Column("examples", numeric=True),
)


def build(plan: Plan, runs: Sequence[StoredRun]) -> Section:
    """Section with one row a target, the hardest first: the one that the search was for; empty without easier ones."""
    if not plan.easier_targets or plan.target is None:
        return Section("targets", "Easier targets", ())
    hardest = row(EasierTarget(target=plan.target, recipe=plan.recipe, predicted=plan.predicted))
    if plan.status is PlanStatus.UNFINISHED and plan.verified is None:
        hardest = (f"{hardest[0]} (not reached yet)", *hardest[1:])
    rows = [hardest]
    rows += [row(easier) for easier in plan.easier_targets]
    table = Table(COLUMNS, tuple(rows), emphasised=0)
    return Section("targets", "Easier targets", (table, Text((conclude(plan),), tone="note")))


def row(easier: EasierTarget) -> tuple[str, ...]:
    """Row of one target."""
    recipe, predicted = easier.recipe, easier.predicted
    if recipe is None or predicted is None:
        return (str(easier.target), "not reached", "", "", "", "")
    return (
        str(easier.target),
        count(recipe.batch_size),
        number(recipe.lr),
        with_interval(predicted.time_to_target_s, duration),
        with_interval(predicted.steps_to_target, count),
        with_interval(predicted.examples_to_target),
    )


def conclude(plan: Plan) -> str:
    """Conclusion from the table."""
    sizes = [e.recipe.batch_size for e in plan.easier_targets if e.recipe is not None]
    conclusion = "All rows follow from the same runs, which pass the easier targets on their way."
    if plan.recipe is None or not sizes:
        return conclusion
    own = plan.recipe.batch_size
    if plan.recipe.schedule != "constant":
        conclusion += " The learning rate stays constant in those of the easier ones."
    if all(size == own for size in sizes):
        return f"{conclusion} The best batch size is the same for each."
    listed = joined([count(size) for size in sizes])
    return f"{conclusion} Batch size {count(own)} is best for the hardest, {listed} for the others."
