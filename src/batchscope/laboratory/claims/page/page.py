"""The page of the verdicts: what the texts say, and what this task says, like a review article with live figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ....report.blocks import Section
from ....report.page import Contents, Head
from ..plan import ClaimsPlan
from ..records import Claims
from ..results import TaskResults
from .sections import (
    abstract,
    all_claims,
    conditions,
    contradictions,
    convergence,
    definitions,
    distance,
    gradients,
    learning_rate,
    length,
    noise,
    normalisation,
    reading,
    speed,
    trials,
    untestable,
)

if TYPE_CHECKING:
    from ....store.runs import StoredRun

__all__ = ["CLAIMS_SECTIONS", "claims_contents"]

CLAIMS_SECTIONS: tuple[Callable[[Claims, TaskResults], Section], ...] = (
    abstract.build,
    reading.build,
    contradictions.build,
    definitions.build,
    speed.build,
    convergence.build,
    length.build,
    learning_rate.build,
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


def claims_contents(claims: Claims, runs: Sequence[StoredRun], plan: ClaimsPlan) -> Contents:
    """What the page of the verdicts says; `batchscope.report.page.draw` makes HTML of it.

    Args:
        claims: what was decided.
        runs: the runs behind it, in the order in which they were started.
        plan: what was to be run.

    Returns:
        Head and sections.

    Cost: about a second for a thousand runs.
    """
    evidence = TaskResults(study=claims.study, runs={run.id: run for run in runs}, plan=plan)
    head = Head(
        task=claims.task,
        status="what the texts say",
        question=("What four texts say about batch size, and", "what this task says", "of it"),
        version=claims.study.environment.batchscope,
    )
    return Contents(head=head, sections=tuple(build(claims, evidence) for build in CLAIMS_SECTIONS))
