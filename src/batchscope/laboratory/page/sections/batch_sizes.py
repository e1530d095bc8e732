"""Each batch size at its best learning rate, in one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ....report.blocks import Column, Section, Table, Text
from ....wording import bytes_, count, duration, number, with_interval
from ...conclusions import best_arm, how_tuned
from ...courses import Phases, phases
from ...records import Study
from ..lines import Line, courses_of, lines_of, value_of

if TYPE_CHECKING:
    from ....store.runs import StoredRun

_NOTE = (
    "Where several learning rates were tried, that of each batch size is the one with the best mean of {metric} at its "
    "best epoch. An epoch is "
    "well trained where the mean of {metric} is as good as its best up to one standard error over the seeds at the "
    "best epoch, and no less than a hundredth of what was gained; before the first such epoch training is "
    "under-trained, after the last over-trained. It is still improving where the best is the last evaluation."
)


def build(study: Study, runs: Sequence[StoredRun]) -> Section:
    """The table, the best batch size in bold."""
    lines = lines_of(study)
    if not lines:
        return Section("sizes", "Batch sizes", (Text(("Every run diverged: no learning rate can be chosen.",)),))
    marked = {
        line.group: phases(course, study.metric, larger_is_better=study.larger_is_better)
        for line, course in courses_of(study, runs)
    }
    several = len({line.arm.variant for line in lines}) > 1
    columns = [*([Column("variant")] if several else []), *(Column(name, numeric=True) for name in _columns(study))]
    rows = tuple(
        (*([line.arm.variant or "as it is"] if several else []), *_cells(study, line, marked.get(line.group)))
        for line in lines
    )
    best = best_arm(study)
    bold = next((i for i, line in enumerate(lines) if best is not None and line.arm.key == best.key), None)
    table = Table(tuple(columns), rows, bold)
    note = Text((_NOTE.format(metric=study.metric),), tone="note")
    return Section("sizes", f"Batch sizes, {how_tuned(study)}", (table, note))


def _columns(study: Study) -> tuple[str, ...]:
    return (
        "batch size",
        "learning rate",
        f"best {study.metric}",
        "at epoch",
        "well-trained epochs",
        "accuracy gap",
        "loss ratio",
        "epoch time",
        "memory",
    )


def _cells(study: Study, line: Line, marked: Phases | None) -> tuple[str, ...]:
    arm, values = line.arm, line.arm.estimates
    return (
        count(arm.batch_size),
        number(arm.lr),
        with_interval(values[f"best_{study.metric}"]),
        number(value_of(arm, "best_epoch")),
        _phases(marked),
        *(
            "" if (v := value_of(arm, name)) is None else number(v)
            for name in ("final_accuracy_gap", "final_loss_ratio")
        ),
        duration(value_of(arm, "epoch_time_s")),
        bytes_(value_of(arm, "peak_memory_bytes")),
    )


def _phases(marked: Phases | None) -> str:
    if marked is None:
        return ""
    well = f"{number(marked.well_from)}–{number(marked.well_until)}"
    if marked.over_trained:
        return f"{well}, then over-trained"
    return f"{well}, still improving" if marked.still_improving else well
