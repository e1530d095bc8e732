"""The page of a study: the same blocks and charts as a plan's, from rows, summary and runs; no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ...report.blocks import Figure, Row, Section
from ...report.page import Contents, Head
from ...wording import plural
from ..records import Study
from .sections import batch_sizes, conditions, costs, curves, findings, gaps, learning_rates, phases, runs_table

if TYPE_CHECKING:
    from ...store.runs import StoredRun

__all__ = ["STUDY_SECTIONS", "study_contents"]

STUDY_SECTIONS: tuple[Callable[[Study, Sequence[StoredRun]], Section], ...] = (
    findings.build,
    batch_sizes.build,
    curves.build,
    phases.build,
    learning_rates.build,
    gaps.build,
    costs.build,
    runs_table.build,
    conditions.build,
)
"""The common part of the page from top to bottom.

After the main findings comes the first section with a figure, then the further findings, then a named study's own
sections.
"""


def study_contents(study: Study, runs: Sequence[StoredRun], own: Sequence[Section] = ()) -> Contents:
    """What the page of a study says; `batchscope.report.page.draw` makes HTML of it.

    Args:
        study: what was found.
        runs: the runs behind it, in the order in which they were started.
        own: sections of the named study, shown below its findings.

    Returns:
        Head and sections.

    Cost: about a second for 200 runs.
    """
    common = [build(study, runs) for build in STUDY_SECTIONS]
    head = Head(
        task=study.task,
        status=study.study,
        question=(
            "Quick form of the study" if study.quick else "Study",
            study.study,
            f"of {plural(len(study.question.seeds), 'seed')} a setting, {study.question.length} a run",
        ),
        version=study.environment.batchscope,
    )
    main, *rest = common
    figures = next((s for s in (*own, *rest) if any(isinstance(b, Figure | Row) for b in s.blocks)), None)
    others = [s for s in (*own, *rest) if s is not figures and s.blocks]
    further = findings.build_further(study, runs)
    first = (main, *([figures] if figures is not None else []), *([further] if further.blocks else []))
    return Contents(head=head, sections=(*first, *others))
