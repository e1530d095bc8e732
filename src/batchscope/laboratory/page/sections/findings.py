"""What the study found, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ....report.blocks import Section, Tagged, Text
from ....wording import plural, sentence
from ...records import Study

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


def build(study: Study, runs: Sequence[StoredRun]) -> Section:
    """The sentences, each with how it is known."""
    if not study.findings:
        return Section("findings", "Findings", (Text(("No run has finished, so nothing can be said.",), tone="lead"),))
    items = tuple((sentence(f.statement), f.tag, sentence(f.source)) for f in study.findings)
    note = Text((_NOTE.format(metric=study.metric),), tone="note")
    blocks = (Tagged(items), note)
    shown = (_QUICK, *blocks) if study.quick else blocks
    return Section("findings", f"Findings from {plural(len(study.rows), 'run')}", shown)
