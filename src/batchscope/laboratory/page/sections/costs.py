"""What an epoch takes, what a step needs, and how smooth the curve is, against batch size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ....report.blocks import Figure, Row, Section
from ....report.charts import batch_axis, layout, log_axis, memory_axis
from ....wording import duration, number
from ...records import Study
from ..lines import Line, lines_of, marks_of, value_of

if TYPE_CHECKING:
    from ....store.runs import StoredRun


def build(study: Study, runs: Sequence[StoredRun]) -> Section:
    """The section: one figure for each quantity that was measured."""
    lines = lines_of(study)
    figures = [
        _figure(
            lines,
            "epoch_time_s",
            "epoch time",
            duration,
            "Median of seconds per step between evaluations, times N / B; evaluation is left out.",
        ),
        _figure(
            lines,
            "peak_memory_bytes",
            "peak memory of a step",
            None,
            "Weights, gradients, optimizer state, batch and activations of one step, measured before the runs.",
        ),
        _figure(
            lines,
            "roughness",
            f"roughness of {study.metric}",
            number,
            "How far an evaluation lies from the middle of its neighbours in the second half of a run, as the "
            "standard deviation of independent noise that would do the same (Gasser, Sroka, Jennen-Steinmetz 1986). A "
            "larger learning rate makes it larger too.",
        ),
    ]
    return Section("costs", "Time, memory and smoothness", (Row(tuple(f for f in figures if f is not None)),))


def _figure(
    lines: Sequence[Line], name: str, title: str, format: Callable[[float], str] | None, caption: str
) -> Figure | None:
    values = [v for line in lines if (v := value_of(line.arm, name)) is not None]
    if not values:
        return None
    ends = [e for line in lines for e in (line.arm.estimates[name].low, line.arm.estimates[name].high) if e and e > 0]
    axis = memory_axis(values) if format is None else log_axis([*values, *ends], format, labels=6)
    frame = layout(batch_axis([line.arm.batch_size for line in lines], labels=5), axis, height=300)
    return Figure(f"cost-{name.replace('_', '-')}", title, (marks_of(lines, name),), frame, caption)
