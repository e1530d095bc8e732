"""Verdicts of claims as a person reads them in a terminal. Numbers only, no torch."""

from __future__ import annotations

from pathlib import Path

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ..laboratory.claims.records import Claim, Claims, Verdict
from ..wording import plural, with_interval

__all__ = ["claims_view", "in_figures"]

_STYLES = {Verdict.HELD: "green", Verdict.NOT_HELD: "red", Verdict.DEPENDS: "yellow", Verdict.UNDECIDED: "dim"}


def claims_view(claims: Claims, folder: Path) -> list[RenderableType]:
    """Number of decided claims, each testable statement with its verdict, and where the reasons are."""
    where = [f"Why, with figures: {folder / 'report.html'}", f"For programs: {folder / 'claims.json'}"]
    return ["", in_figures(claims), "", _table(claims), "", *where]


def in_figures(claims: Claims) -> str:
    """Counts of verdicts as a sentence."""
    counts = {verdict: sum(c.verdict is verdict for c in claims.claims) for verdict in Verdict}
    decided = ", ".join(f"{n} {verdict.value}" for verdict, n in counts.items() if verdict.decided)
    return (
        f"{plural(len(claims.testable), 'statement')} can be tested on {claims.task}, and {len(claims.decided)} were "
        f"decided: {decided}; {counts[Verdict.UNDECIDED]} undecided. {counts[Verdict.NOT_TESTABLE]} cannot be tested "
        "(definitions, advice, what this task does not have)."
    )


def _table(claims: Claims) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("id", "on this task", "effect"):
        table.add_column(column, no_wrap=True)
    table.add_column("statement")
    for claim in claims.testable:
        verdict = Text(claim.verdict.value, style=_STYLES.get(claim.verdict, ""))
        table.add_row(claim.id, verdict, with_interval(claim.effect), _statement(claim))
    return table


def _statement(claim: Claim) -> str:
    return f"{claim.statement} (It depends on {claim.on}.)" if claim.on else claim.statement
