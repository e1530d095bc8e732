"""Where the texts contradict each other: both sides with their verdicts, what decides them, and how it ends here."""

from __future__ import annotations

from .....report.blocks import Dispute, Section, Text
from .....wording import count, plural
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
    blocks = tuple(
        Dispute(f"contradiction-{i + 1}", one.title, tuple(judged(side) for side in one.sides), one.conclusion)
        for i, one in enumerate(found)
    )
    return Section(
        "contradictions",
        "Where the texts contradict each other",
        (Text((_INTRODUCTION, _ended(len(found), taken))), *blocks),
    )


def _ended(found: int, taken: int) -> str:
    of = plural(found, "contradiction")
    if not taken:
        return f"On this task none of {of} ends with one side that holds and another that does not."
    rest = f"; {count(found - taken)} stay open, or depend on a condition" if found > taken else ""
    return f"In {count(taken)} of {of} one side holds on this task and the other does not{rest}."
