"""Decides what textbooks say about batch size on one task: a verdict for each statement of `statements`.

`decide(study, runs, plan)` needs stored runs and measurements only, and no torch; `run` makes them. The rules by which
a number decides are those of `outcome`, fixed beforehand; which number decides which statement stands in one file a
theme.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ...store.runs import StoredRun
from ..records import Study
from . import convergence, generalisation, geometry, gradients, hardware, lengths, norms, targets, tuning
from .definitions import CHECKS
from .outcome import Outcome, not_testable, undecided
from .plan import ClaimsPlan
from .records import Claim, Claims, Verdict
from .results import TaskResults
from .statements import Kind, Need, Statement, statements

__all__ = ["DECISIONS", "Claim", "Claims", "Verdict", "decide"]

DECISIONS: Mapping[str, Callable[[TaskResults], Outcome]] = {
    **convergence.DECISIONS,
    **targets.DECISIONS,
    **generalisation.DECISIONS,
    **lengths.DECISIONS,
    **tuning.DECISIONS,
    **gradients.DECISIONS,
    **geometry.DECISIONS,
    **hardware.DECISIONS,
    **norms.DECISIONS,
}
"""What decides each statement that can be measured."""


def decide(study: Study, runs: Sequence[StoredRun], plan: ClaimsPlan) -> Claims:
    """Every statement with its verdict.

    Args:
        study: rows, summary and measurements, of as many of the planned runs as were made.
        runs: those, with their courses.
        plan: what was to be run.

    Returns:
        One claim a statement, in the order of the texts. What is missing leaves a statement undecided, with the reason.

    Cost: about a second for a thousand runs.
    """
    evidence = TaskResults(study=study, runs={run.id: run for run in runs}, plan=plan)
    return Claims(
        task=study.task,
        claims=tuple(_claim(statement, evidence) for statement in statements().values()),
        study=study,
    )


def _claim(statement: Statement, evidence: TaskResults) -> Claim:
    outcome = _outcome(statement, evidence)
    return Claim(
        id=statement.id,
        statement=statement.statement,
        source=statement.source,
        pair=statement.pair,
        verdict=outcome.verdict,
        on=outcome.on,
        reason=outcome.reason,
        effect=outcome.effect,
        runs=outcome.runs or _checkpoint(statement, evidence),
        comparisons=outcome.comparisons,
        agrees=outcome.agrees,
    )


def _checkpoint(statement: Statement, evidence: TaskResults) -> tuple[str, ...]:
    """The run whose weights gradients were measured at."""
    found = evidence.read_note("checkpoint")
    return (found["run"],) if found is not None and Need.GRADIENTS in statement.needs else ()


def _outcome(statement: Statement, evidence: TaskResults) -> Outcome:
    if statement.kind is Kind.NOT_TESTABLE:
        return not_testable(statement.reason)
    if not evidence.runs:
        return undecided("no run was made before the budget was used up")
    if statement.kind is Kind.DEFINITION:
        return CHECKS[statement.id](evidence)
    return DECISIONS[statement.id](evidence)
