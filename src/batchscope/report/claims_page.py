"""The page of the verdicts: what the texts say, and what this task says, like a review article with live figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..claims.evidence import TaskResults
from ..claims.plan import ClaimsPlan
from ..claims.records import Claims
from .blocks import Section
from .claims_sections import (
    abstract,
    all_claims,
    conditions,
    contradictions,
    convergence,
    distance,
    gradients,
    length,
    noise,
    normalisation,
    rate,
    reading,
    speed,
    trials,
    untestable,
    words,
)
from .page import Head, render_sections

if TYPE_CHECKING:
    from ..store import StoredRun

__all__ = ["CLAIMS_SECTIONS", "render_claims"]

CLAIMS_SECTIONS: tuple[Callable[[Claims, TaskResults], Section], ...] = (
    abstract.build,
    reading.build,
    contradictions.build,
    words.build,
    speed.build,
    convergence.build,
    length.build,
    rate.build,
    gradients.build,
    distance.build,
    normalisation.build,
    noise.build,
    trials.build,
    untestable.build,
    conditions.build,
    all_claims.build,
)
"""The page from top to bottom."""


def render_claims(claims: Claims, runs: Sequence[StoredRun], plan: ClaimsPlan) -> str:
    """The page as text; see `batchscope.report.build_claims`."""
    evidence = TaskResults(study=claims.study, runs={run.id: run for run in runs}, plan=plan)
    head = Head(
        task=claims.task,
        status="what the texts say",
        question=("What four texts say about batch size, and", "what this task says", "of it"),
        version=claims.study.environment.batchscope,
    )
    return render_sections(head, [build(claims, evidence) for build in CLAIMS_SECTIONS])
