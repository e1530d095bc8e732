"""Phases by batch size: from which epoch to which training is too short, right and too long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ....report.blocks import Figure, Json, Key, Section, Text
from ....report.charts import CENSORED, CURRENT, RECIPE, category_axis, layout, points, safe, value_axis
from ....wording import number
from ...courses import Phases, phases
from ...records import Study
from ..lines import Line, courses_of

if TYPE_CHECKING:
    from ....store.runs import StoredRun

_KINDS = (("under-trained", CENSORED), ("well trained", RECIPE), ("over-trained", CURRENT))


def build(study: Study, runs: Sequence[StoredRun]) -> Section:
    """The figure, or why there is none."""
    found = [
        (line, marked)
        for line, course in courses_of(study, runs)
        if (marked := phases(course, study.metric, larger_is_better=study.larger_is_better)) is not None
    ]
    if not found:
        return Section("epochs", "Too few and too many epochs", (Text(("No run ended without diverging.",)),))
    return Section("epochs", "Too few and too many epochs", (draw(study, found),))


def draw(study: Study, found: Sequence[tuple[Line, Phases]]) -> Figure:
    """A bar for each batch size, cut at the first and the last well-trained epoch; a disc at the best."""
    names = [safe(line.label) for line, _ in found]
    lengths = [(m.well_from, m.well_until - m.well_from, m.end - m.well_until) for _, m in found]
    traces: list[Json] = [
        {
            "type": "bar",
            "orientation": "h",
            "x": [length[i] for length in lengths],
            "y": names,
            "marker": {"color": colour},
            "opacity": 0.75,
            "hovertemplate": f"{kind}: %{{x:.4g}} epochs<extra></extra>",
        }
        for i, (kind, colour) in enumerate(_KINDS)
    ]
    hover = [f"best at epoch {number(m.best_epoch)}" for _, m in found]
    traces.append(
        {**points([m.best_epoch for _, m in found], [0.0] * len(found), hover, colour="var(--text)"), "y": names}
    )
    frame = layout(value_axis([m.end for _, m in found], title="epochs"), category_axis(), height=90 + 40 * len(found))
    frame["barmode"] = "stack"
    keys = (*(Key("band", colour, kind) for kind, colour in _KINDS), Key("disc", "var(--text)", "best epoch"))
    return Figure("phases", f"by the mean {study.metric}", tuple(traces), frame, conclude(found), keys)


def conclude(found: Sequence[tuple[Line, Phases]]) -> str:
    """Batch sizes that were trained too short and too long, in words."""
    short = [f"{line.arm.batch_size:,}" for line, m in found if m.still_improving]
    long = [f"{line.arm.batch_size:,}" for line, m in found if m.over_trained]
    phrases = [f"Still improving when the runs ended: batch size {', '.join(short)}." if short else ""]
    phrases.append(f"Trained beyond the last well-trained epoch: batch size {', '.join(long)}." if long else "")
    return " ".join(filter(None, phrases)) or "Every batch size ended while it was well trained."
