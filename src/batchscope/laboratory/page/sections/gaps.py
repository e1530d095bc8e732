"""The generalisation gap against batch size, by both definitions, at the end of training and at the best epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ....report.blocks import Figure, Key, Row, Section, Text
from ....report.charts import CURRENT, LINE, batch_axis, layout, metric_axis
from ...records import Study
from ..lines import Line, lines_of, marks_of, value_of

if TYPE_CHECKING:
    from ....store.runs import StoredRun

_GAPS = (
    (
        "accuracy_gap",
        "training minus test accuracy",
        "Shen's definition (2018): accuracy on a fixed part of the training data minus accuracy on the test part.",
    ),
    (
        "loss_ratio",
        "validation loss ÷ training loss",
        "Chang and Pathak's definition (2020): 1 where both losses are equal; it grows without bound where the "
        "training loss goes to zero.",
    ),
)


def build(study: Study, runs: Sequence[StoredRun]) -> Section:
    """The section: both figures, as far as the task has the metrics."""
    lines = lines_of(study)
    drawn = [_figure(lines, *gap) for gap in _GAPS if _has_value(lines, gap[0])]
    missing = [label for name, label, _ in _GAPS if not _has_value(lines, name)]
    blocks = [Row(tuple(drawn))] if drawn else []
    phrases = (
        [f"Not known on this task: {', '.join(missing)}; the metrics that it takes were not reported."]
        if missing
        else []
    )
    return Section("gap", "Generalisation gap", (*blocks, *(Text((text,), tone="note") for text in phrases)))


def _has_value(lines: Sequence[Line], name: str) -> bool:
    return any(value_of(line.arm, f"final_{name}") is not None for line in lines)


def _figure(lines: Sequence[Line], name: str, title: str, caption: str) -> Figure:
    names = (f"final_{name}", f"best_{name}")
    values = [value_of(line.arm, n) for n in names for line in lines]
    ends = [e for n in names for line in lines for e in (line.arm.estimates[n].low, line.arm.estimates[n].high)]
    traces = (marks_of(lines, names[0], colour=LINE), marks_of(lines, names[1], mark="open", colour=CURRENT))
    frame = layout(
        batch_axis([line.arm.batch_size for line in lines]), metric_axis([[v] for v in [*values, *ends]]), height=320
    )
    keys = (Key("disc", LINE, "at the end"), Key("open", CURRENT, "at the best epoch"))
    return Figure(f"gap-{name.replace('_', '-')}", title, traces, frame, caption, keys)
