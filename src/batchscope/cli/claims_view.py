"""Verdicts of claims as a person reads them in a terminal, in twenty lines. Numbers only, no torch."""

from __future__ import annotations

from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..laboratory.claims.records import Claim, Claims, Verdict
from ..wording import plural, with_interval

__all__ = ["claims_view", "in_figures"]

_STYLES = {Verdict.HELD: "green", Verdict.NOT_HELD: "red", Verdict.DEPENDS: "yellow", Verdict.UNDECIDED: "dim"}
_ASKED = ("S0.5a", "S1.6", "S1.10b", "S0.8a", "S0.9a", "S0.4b", "S0.7a", "S0.11b", "S3.13a", "S3.12a")
"""The statements that are shown first: convergence, time, accuracy, speed, learning rate, minima, noise, epochs."""
_MOST = 4


def claims_view(claims: Claims, folder: Path) -> list[RenderableType]:
    """Number of decided claims, the handful that matter most, each with its number, and where all others are."""
    chosen = _chosen(claims)
    rest = len(claims.testable) - len(chosen)
    cut = "" if claims.study.complete else "The budget ended first; the same command with a larger --budget goes on."
    page, data = folder / "report.html", folder / "claims.json"
    where = (f"The other {rest}, with reasons and figures: {page}", f"For programs: {data}")
    return ["", in_figures(claims), *filter(None, [cut]), "", _table(chosen), "", *where]


def in_figures(claims: Claims) -> str:
    """Counts of verdicts as a sentence."""
    counts = {verdict: sum(c.verdict is verdict for c in claims.claims) for verdict in Verdict}
    decided = ", ".join(f"{n} {verdict.value}" for verdict, n in counts.items() if verdict.decided)
    return (
        f"{plural(len(claims.testable), 'statement')} can be tested on {claims.task}, and {len(claims.decided)} were "
        f"decided: {decided}; {counts[Verdict.UNDECIDED]} undecided. {counts[Verdict.NOT_TESTABLE]} cannot be tested "
        "(definitions, advice, what this task does not have)."
    )


def _chosen(claims: Claims) -> list[Claim]:
    """The statements that most people ask about, decided ones first."""
    by_id = {claim.id: claim for claim in claims.testable}
    asked = [by_id[name] for name in _ASKED if name in by_id]
    return sorted(asked, key=lambda claim: not claim.verdict.decided)[:_MOST]


def _table(chosen: list[Claim]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for claim in chosen:
        verdict = Text(claim.verdict.value, style=_STYLES.get(claim.verdict, ""))
        table.add_row(verdict, Group(Text(_statement(claim)), Text(_number(claim), style="dim")))
    return table


def _statement(claim: Claim) -> str:
    return f"{claim.statement} (It depends on {claim.on}.)" if claim.on else claim.statement


def _number(claim: Claim) -> str:
    """The comparison that decides with its number; of what was not measured, why."""
    decisive = next((c for c in claim.comparisons if c.effect == claim.effect), None)
    if decisive is None or claim.effect.value is None:
        return claim.comparisons[0].what if claim.comparisons else claim.reason
    return f"{': '.join((*decisive.conditions, decisive.what))} {with_interval(claim.effect)}"
