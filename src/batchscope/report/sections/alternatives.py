"""Alternatives: the recipes that are better for another purpose, beside the recommended and the current one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ...store.records import Estimate, Plan, Predicted, Recipe
from ...wording import bytes_, count, duration, number, with_interval
from ..blocks import Block, Column, Section, Table, Text, without

if TYPE_CHECKING:
    from ...store.runs import StoredRun

COLUMNS = (
    Column("why"),
    Column("time", numeric=True),
    Column("batch size", numeric=True),
    Column("learning rate", numeric=True),
    Column("steps", numeric=True),
    Column("examples", numeric=True),
    Column("memory", numeric=True),
    Column("micro × accum.", numeric=True),
)


def build(plan: Plan, runs: Sequence[StoredRun]) -> Section:
    """Section with one row a recipe; left out where a length of training was asked for."""
    if plan.within is not None:
        return Section("alternatives", "Alternatives", ())
    found = rows(plan)
    if plan.recipe is None and not found:
        blocks: tuple[Block, ...] = (Text(("Without a recommendation there is nothing to compare.",)),)
    elif not plan.alternatives:
        blocks = (Text((f"The {'table' if plan.table else 'search'} names no other recipe.",)),)
        blocks += (Table(COLUMNS, found, emphasised=0),) if len(found) > 1 else ()
    else:
        what = "Each is the best for what it is named after. In parentheses: 90 % credible intervals."
        blocks = (Table(COLUMNS, found, emphasised=0 if plan.recipe else None), Text((what,), tone="note"))
    known = any(e.value is not None for e in _memory(plan))
    return Section("alternatives", "Alternatives", blocks if known else tuple(map(_without_memory, blocks)))


def _memory(plan: Plan) -> Iterable[Estimate]:
    predicted = (plan.predicted, plan.current_predicted, *(other.predicted for other in plan.alternatives))
    return (each.peak_memory_bytes for each in predicted if each is not None)


def _without_memory(block: Block) -> Block:
    return without(block, "memory") if isinstance(block, Table) else block


def rows(plan: Plan) -> tuple[tuple[str, ...], ...]:
    """Rows: the recommended recipe, the current one, then the alternatives."""
    found = [row("recommended", plan.recipe, plan.predicted)] if plan.recipe else []
    if plan.current is not None and plan.current != plan.recipe:
        found.append(row("current", plan.current, plan.current_predicted))
    return tuple(found + [row(a.why, a.recipe, a.predicted) for a in plan.alternatives])


def row(why: str, recipe: Recipe, predicted: Predicted | None) -> tuple[str, ...]:
    """Row of one recipe."""
    parts = f"{count(recipe.micro_batch_size)} × {count(recipe.grad_accum_steps)}"
    parts += f" × {count(recipe.world_size)} devices" if recipe.world_size > 1 else ""
    setting = count(recipe.batch_size), number(recipe.lr)
    if predicted is None:
        return (why, "not predicted", *setting, "", "", "", parts)
    return (
        why,
        with_interval(predicted.time_to_target_s, duration),
        *setting,
        number(predicted.steps_to_target.value),
        number(predicted.examples_to_target.value),
        with_interval(predicted.peak_memory_bytes, bytes_),
        parts,
    )
