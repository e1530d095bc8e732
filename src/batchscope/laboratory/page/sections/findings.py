"""What the study found, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ....report.blocks import Section, Tagged, Text
from ....wording import plural, sentence
from ...records import Finding, Study

if TYPE_CHECKING:
    from ....store.runs import StoredRun

_QUICK = Text(
    (
        "This is the quick form of the study (--quick): small numbers that show every part at work. What it finds is "
        "true of these few runs; what it leaves open, the full form may decide.",
    )
)
_NOTE = (
    "Values are means over seeds with a 90 % t interval, which is taken on the logit scale for shares and on the "
    "logarithmic scale for what is never negative, so that it stays inside what is possible. A seed draws the initial "
    "weights and the order of the examples together. Choices are made by {metric} on validation data; test metrics "
    "are shown, and choose nothing."
)


MAIN = 3
"""How many findings open the page and are printed in the terminal; those of the published experiment come first."""


def build(study: Study, runs: Sequence[StoredRun]) -> Section:
    """The main findings, which open the page."""
    if not study.findings:
        return Section("findings", "Findings", (Text(("No run has finished, so nothing can be said.",), tone="lead"),))
    main = _tagged(study.findings[:MAIN])
    blocks = (_QUICK, main) if study.quick else (main,)
    few = "Main findings" if len(study.findings) > MAIN else "Findings"
    return Section("findings", f"{few} from {plural(len(study.rows), 'run')}", blocks)


def build_further(study: Study, runs: Sequence[StoredRun]) -> Section:
    """All other findings, and how values and intervals are meant."""
    note = Text((_NOTE.format(metric=study.metric),), tone="note")
    rest = study.findings[MAIN:]
    if not rest:
        return Section("further-findings", "About the numbers", (note,) if study.findings else ())
    return Section("further-findings", "Further findings", (_tagged(rest), note))


def _tagged(findings: Sequence[Finding]) -> Tagged:
    return Tagged(tuple((sentence(f.statement), f.tag, sentence(f.source)) for f in findings))
