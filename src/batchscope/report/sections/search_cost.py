"""Cost of the search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...store.records import Plan
from ...wording import count, duration, number, plural, times
from ..blocks import Facts, Section, Text

if TYPE_CHECKING:
    from ...store.runs import StoredRun


def build(plan: Plan, runs: Sequence[StoredRun]) -> Section:
    """Section with the cost in time, and in trainings at the recipe."""
    cost = plan.search
    if plan.table is not None:
        return Section("cost", "What the measurements cost", (Text((_of_table(plan),)),))
    pairs = [
        ("took", duration(cost.seconds)),
        ("training on the hardware of the answer", duration(cost.device_seconds)),
        ("evaluations here", duration(cost.evaluation_seconds)),
        ("runs", count(cost.runs)),
        ("examples read", number(cost.examples)),
    ]
    if cost.run_equivalents is None:
        worth = "Without a predicted time to the target, the cost cannot be put in trainings at the recipe."
    else:
        pairs.append(("in trainings at the recipe", number(cost.run_equivalents)))
        worth = f"The search trained {times(cost.run_equivalents)} as long as one training at the recipe takes."
        worth += pays_after(plan)
    return Section("cost", "What the search cost", (Text((worth,)), Facts(tuple(pairs))))


def _of_table(plan: Plan) -> str:
    cost = plan.search
    held = f"{plan.table} holds {plural(cost.runs, 'run')}"
    if cost.run_equivalents is None:
        return f"{held}; nothing was trained for this answer."
    worth = f"together they trained as long as {number(cost.run_equivalents)} trainings at the recipe take"
    return f"{held}; {worth}, and nothing was trained for this answer."


def pays_after(plan: Plan) -> str:
    """Sentence on the runs after which the search has paid for itself; empty where nothing is saved."""
    if plan.predicted is None or plan.current_predicted is None or plan.within is not None:
        return ""
    before, after = plan.current_predicted.time_to_target_s.value, plan.predicted.time_to_target_s.value
    if before is None or after is None or before <= after:
        return ""
    runs = math.ceil(plan.search.device_seconds / (before - after))
    return f" Against the current recipe it has paid for itself after {plural(runs, 'run')}."
