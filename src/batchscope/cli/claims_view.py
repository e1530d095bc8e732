"""Verdicts of claims as a person reads them in a terminal, in ten lines. Numbers only, no torch."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ..laboratory.claims.records import Claim, Claims, Verdict
from ..wording import plural

__all__ = ["claims_view", "why_of"]

_STYLES = {Verdict.HELD: "green", Verdict.NOT_HELD: "red", Verdict.DEPENDS: "yellow", Verdict.UNDECIDED: "dim"}
_ASKED = ("S0.5a", "S1.6", "S1.10b", "S0.8a", "S0.9a", "S0.4b", "S0.7a", "S0.11b", "S3.13a", "S3.12a")
"""The statements that are shown first: convergence, time, accuracy, speed, learning rate, minima, noise, epochs."""
_MOST = 4
"""Of them, one less where the budget ended first: ten lines in all on a terminal of 80 columns."""
_WORDS = {
    Verdict.HELD: "holds",
    Verdict.NOT_HELD: "does not hold",
    Verdict.DEPENDS: "depends",
    Verdict.UNDECIDED: "undecided",
}


def claims_view(claims: Claims) -> list[RenderableType]:
    """Number of decided claims, and those that most people ask about."""
    cut = "" if claims.study.complete else "The budget ended first: the same command with a larger --budget goes on."
    return [in_figures(claims), *filter(None, [cut]), _table(_chosen(claims, _MOST - bool(cut)))]


def why_of(claims: Claims) -> str:
    """What the page of the claims shows."""
    return f"All {len(claims.claims)}, with measured numbers and figures"


def in_figures(claims: Claims) -> str:
    """Counts of verdicts as a sentence."""
    counts = {verdict: sum(c.verdict is verdict for c in claims.claims) for verdict in Verdict}
    return (
        f"Of {plural(len(claims.testable), 'statement')} that {claims.task} can test, {counts[Verdict.HELD]} hold, "
        f"{counts[Verdict.NOT_HELD]} do not, {counts[Verdict.DEPENDS]} depend on a condition and "
        f"{counts[Verdict.UNDECIDED]} are undecided."
    )


def _chosen(claims: Claims, most: int) -> list[Claim]:
    """The statements that most people ask about, decided ones first."""
    by_id = {claim.id: claim for claim in claims.testable}
    asked = [by_id[name] for name in _ASKED if name in by_id]
    return sorted(asked, key=lambda claim: not claim.verdict.decided)[:most]


def _table(chosen: list[Claim]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for claim in chosen:
        verdict = Text(f"  {_WORDS[claim.verdict]}", style=_STYLES.get(claim.verdict, ""))
        table.add_row(verdict, f"{claim.statement} (It depends on {claim.on}.)" if claim.on else claim.statement)
    return table
