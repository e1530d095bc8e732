"""Page of an answer: one self-contained HTML file from a plan and its runs, and the grammar of all pages.

From here: `build`; the parts of pages from `report.blocks` and `report.charts`, any page from `report.page.draw`, the
answer in sentences from `report.summary`. Records only: no torch, no network, nothing is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..store.records import Plan

if TYPE_CHECKING:
    from ..store.runs import StoredRun

__all__ = ["build"]


def build(plan: Plan, runs: Sequence[StoredRun]) -> str:
    """Build the page of a plan.

    Args:
        plan: the answer; whatever it lacks becomes a sentence on the page.
        runs: the runs behind it, finished or not, in the order in which they were started.

    Returns:
        HTML that opens offline: 0.7 MB for the chart library, packed, and mostly less for all the rest.

    Cost: about a second for 200 runs.
    """
    from .page import contents, draw

    return draw(contents(plan, runs))
