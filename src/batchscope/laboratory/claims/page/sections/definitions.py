"""What the words mean, counted in real runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .....report.blocks import Block, Column, Section, Table
from .....wording import count, number
from ...records import Claims
from ...results import TaskResults
from ..themes import THEMES
from ..wording import missing, theme_section

_TEXTBOOKS = (
    "The batch size is the number of examples behind one update; an epoch is one pass through the training set; and "
    "the iterations of an epoch are its batches, that is examples over batch size. The texts use the words a little "
    "differently from one another, in what the “batch count” counts for one. Definitions are neither true nor false: "
    "here they were counted in real runs of one epoch."
)


def build(claims: Claims, e: TaskResults) -> Section:
    """The words, and what was counted."""
    counters = e.measured("counters")
    drawn: Block = _table(counters) if counters else missing(e, "counters", "counters")
    return theme_section(claims, THEMES[0], _TEXTBOOKS, [_steps(e)], [drawn])


def _table(counters: Mapping[str, Mapping[str, Any]]) -> Table:
    names = ("run", "examples in the set", "updates", "passes", "examples a pass", "examples an update", "set ÷ update")
    columns = tuple(Column(name, numeric=i > 0) for i, name in enumerate(names))
    return Table(columns, tuple(_row(run) for run in counters.values()))


def _row(run: Mapping[str, Any]) -> tuple[str, ...]:
    smallest, largest = run["smallest_pass"], run["largest_pass"]
    parts = f", in {count(run['accumulate'])} passes" if run["accumulate"] > 1 else ""
    return (
        f"batch size {count(run['batch_size'])}{parts}",
        count(run["examples_in_set"]),
        count(run["updates"]),
        count(run["passes"]),
        count(largest) if smallest == largest else f"{count(smallest)} to {count(largest)}",
        count(run["largest_batch"]),
        number(run["examples_in_set"] / run["batch_size"]),
    )


def _steps(e: TaskResults) -> str:
    """Updates of whole runs at the ends of the grid."""
    steps = [next((row.steps for row in e.rows(e.at_one_rate(b))), None) for b in e.ends]
    if None in steps:
        return ""
    return (
        f"In {number(e.plan.epochs)} epochs of {count(e.study.examples)} examples a run makes {count(steps[0])} "
        f"updates at batch size {count(e.ends[0])}, and {count(steps[1])} at {count(e.ends[1])}."
    )
