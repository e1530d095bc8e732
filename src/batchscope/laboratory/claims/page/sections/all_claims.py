"""Every statement in one line."""

from __future__ import annotations

from .....report.blocks import Column, Section, Table
from .....wording import count, plural
from ...records import Claims
from ...results import TaskResults
from ..wording import effect_of


def build(claims: Claims, e: TaskResults) -> Section:
    """A table that can be unfolded."""
    del e
    columns = (
        Column("statement"),
        Column("id"),
        Column("verdict"),
        Column("on"),
        Column("effect", numeric=True),
        Column("runs", numeric=True),
    )
    rows = tuple(
        (c.statement, c.id, c.verdict.value, c.on or "", effect_of(c), count(len(c.runs)) if c.runs else "")
        for c in claims.claims
    )
    return Section("all", f"All {plural(len(rows), 'statement')} in one table", (Table(columns, rows),), folded=True)
