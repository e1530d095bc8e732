"""Evidence: what the recommendation rests on, each statement with its tag."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...store.records import Plan
from ...wording import joined, plural, sentence
from ..blocks import Section, Tagged, Text

if TYPE_CHECKING:
    from ...store.runs import StoredRun

TAGS = {
    "measured": ("measurement", "measurements"),
    "fitted": ("fit to measurements", "fits to measurements"),
    "literature": ("published result", "published results"),
    "assumption": ("assumption", "assumptions"),
}
"""Tags, the strongest first, each with what it marks: one, and several."""


def build(plan: Plan, runs: Sequence[StoredRun]) -> Section:
    """Section with the list, the strongest kind first."""
    if not plan.evidence:
        return Section("evidence", "Evidence", (Text(("The plan names no evidence.",)),))
    ordered = sorted(plan.evidence, key=lambda e: list(TAGS).index(e.tag))
    kinds = [plural(n, *words) for tag, words in TAGS.items() if (n := sum(e.tag == tag for e in ordered))]
    return Section(
        "evidence",
        "Evidence",
        (
            Text((f"The answer rests on {joined(kinds)}.",), tone="note"),
            Tagged(tuple((sentence(e.statement), e.tag, sentence(e.source)) for e in ordered)),
        ),
    )
