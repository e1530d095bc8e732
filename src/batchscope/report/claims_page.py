"""The page of the verdicts: what the texts say, and what this task says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..claims.plan import ClaimsPlan
from ..claims.records import Claims
from .blocks import Section, Tagged
from .page import Head, render_sections

if TYPE_CHECKING:
    from ..store import StoredRun

__all__ = ["render_claims"]


def render_claims(claims: Claims, runs: Sequence[StoredRun], plan: ClaimsPlan) -> str:
    """The page as text; see `batchscope.report.build_claims`."""
    items = tuple((c.statement, c.verdict.value, c.reason) for c in claims.claims)
    head = Head(
        task=claims.task, status="claims", question=("Claims", "", ""), version=claims.study.environment.batchscope
    )
    return render_sections(head, [Section("claims", "Claims", (Tagged(items),))])
