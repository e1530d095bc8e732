"""Notes: what limits the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...store.records import Plan, PlanStatus
from ...wording import sentence
from ..blocks import Section, Text

if TYPE_CHECKING:
    from ...store.runs import StoredRun

ALWAYS = (
    "Predicted steps, examples and times have 90 % credible intervals, memory has a margin of at least 5 % either way, "
    "by the measurements and fits named in the evidence; what no measurement covers, such as other data or another "
    "target, they do not cover either."
)


def build(plan: Plan, runs: Sequence[StoredRun]) -> Section:
    """Section with the plan's notes, and what its status implies."""
    sentences = [sentence(note) for note in plan.notes]
    if plan.status is PlanStatus.EXTRAPOLATED:
        sentences.append("The recommended batch size lies outside those that were trained: make a run there first.")
    if plan.recipe is not None and plan.verified is None:
        sentences.append(f"The recipe itself was not run{'' if plan.within else ' to the target'}.")
    if plan.table is not None:
        sentences.append(f"Nothing was measured here: all numbers follow from those in {plan.table}.")
    if any(run.result is None for run in runs):
        sentences.append("Some runs are unfinished; they appear in the loss curves only.")
    return Section("notes", "Notes and limits", (Text((*sentences, ALWAYS)),))
