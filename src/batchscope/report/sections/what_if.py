"""What if: what training would take at the batch sizes of `--at`, each with why it is to be doubted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...store.records import Plan, WhatIf
from ...wording import count, duration, number, sentence, whole, with_interval
from ..blocks import Column, Section, Table, Text

if TYPE_CHECKING:
    from ...store.runs import StoredRun

COLUMNS = (
    Column("batch size", numeric=True),
    Column("learning rate", numeric=True),
    Column("time", numeric=True),
    Column("steps", numeric=True),
    Column("examples", numeric=True),
    Column("doubt"),
)
_NOTE = "Each at the best learning rate known for it. In parentheses: the interval in which 90 % of trainings fall."


def build(plan: Plan, runs: Sequence[StoredRun]) -> Section:
    """Section with one row a batch size; empty where none was asked about."""
    if not plan.what_if:
        return Section("what-if", "What if", ())
    table = Table(COLUMNS, tuple(map(row, plan.what_if)))
    return Section("what-if", "At other batch sizes", (table, Text((_NOTE,), tone="note")))


def row(asked: WhatIf) -> tuple[str, ...]:
    """Row of one batch size."""
    doubt = sentence(asked.doubt) if asked.doubt else ""
    setting = count(asked.batch_size), "" if asked.lr is None else number(asked.lr)
    predicted = asked.predicted
    if predicted is None or predicted.steps_to_target.value is None:
        return (*setting, "not predicted", "", "", doubt)
    return (
        *setting,
        with_interval(predicted.time_to_target_s, duration),
        with_interval(predicted.steps_to_target, whole),
        with_interval(predicted.examples_to_target),
        doubt,
    )
