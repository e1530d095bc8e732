"""Where the texts contradict each other: both sides with their verdicts, what decides them, and how it ends here."""

from __future__ import annotations

from .....report.blocks import Dispute, Section, Text
from .....wording import count, joined, plural
from ...records import Claims
from ...results import TaskResults
from ..disputes import contradictions
from ..wording import judged

_INTRODUCTION = (
    "The texts do not agree with one another, and one of them not always with itself. Here the statements that exclude "
    "each other stand side by side, each with the number that decides it."
)


def build(claims: Claims, e: TaskResults) -> Section:
    """Every contradiction of the texts."""
    del e
    found = contradictions(claims)
    taken = sum(one.taken is not None for one in found)
    open_ = len(found) - taken
    phrases = [f"takes a side in {count(taken)} of {plural(len(found), 'contradiction')}"] if taken else []
    phrases += [f"{'leaves' if taken else 'takes a side in none of'} {_left(open_, taken)}"] if open_ else []
    blocks = tuple(
        Dispute(f"contradiction-{i + 1}", one.title, tuple(judged(side) for side in one.sides), one.conclusion)
        for i, one in enumerate(found)
    )
    return Section(
        "contradictions",
        "Where the texts contradict each other",
        (Text((_INTRODUCTION, f"This task {joined(phrases)}.")), *blocks),
    )


def _left(open_: int, taken: int) -> str:
    if not taken:
        return plural(open_, "contradiction")
    return f"{count(open_)} open, or shows that it depends"
