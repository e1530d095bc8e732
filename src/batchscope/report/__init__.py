"""The page: one self-contained HTML file from a plan and its runs, without torch or network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..records import Plan

if TYPE_CHECKING:
    from ..claims.plan import ClaimsPlan
    from ..claims.records import Claims
    from ..store import StoredRun
    from ..study import Study
    from .blocks import Section

__all__ = ["build", "build_claims", "build_study"]


def build(plan: Plan, runs: Sequence[StoredRun]) -> str:
    """Build the page.

    Args:
        plan: the answer; whatever it lacks becomes a sentence on the page.
        runs: the runs behind it, finished or not, in the order in which they were started.

    Returns:
        HTML that opens offline: 0.7 MB for the chart library, packed, and mostly less for all the rest.

    Cost: about a second for 200 runs.
    """
    from .page import contents, draw

    return draw(contents(plan, runs))


def build_study(study: Study, runs: Sequence[StoredRun], own: Sequence[Section] = ()) -> str:
    """Build the page of a study.

    Args:
        study: what was found.
        runs: the runs behind it, in the order in which they were started.
        own: sections of the named study, shown below its findings.

    Returns:
        HTML that opens offline: 0.7 MB for the chart library, packed, and mostly less for all the rest.

    Cost: about a second for 200 runs.
    """
    from .page import draw
    from .study_page import study_contents

    return draw(study_contents(study, runs, own))


def build_claims(claims: Claims, runs: Sequence[StoredRun], plan: ClaimsPlan) -> str:
    """Build the page of the verdicts on statements.

    Args:
        claims: what was decided.
        runs: the runs behind it, in the order in which they were started.
        plan: what was to be run.

    Returns:
        HTML that opens offline: 0.7 MB for the chart library, packed, and mostly less for all the rest.

    Cost: about a second for a thousand runs.
    """
    from .claims_page import claims_contents
    from .page import draw

    return draw(claims_contents(claims, runs, plan))
