"""Every run in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ....report.blocks import Column, Section, Table, Text
from ....wording import count, duration, number, plural
from ...records import Study, StudyRow

if TYPE_CHECKING:
    from ....store.runs import StoredRun


def build(study: Study, runs: Sequence[StoredRun]) -> Section:
    """A table that can be unfolded."""
    if not study.rows:
        return Section("runs", "Runs", (Text(("No run has finished.",)),))
    names = ("run", "batch size", "learning rate", "seed", "ended", "steps", "epochs", f"final {study.metric}")
    names = (*names, f"best {study.metric}", "at epoch", "trained for")
    columns = tuple(Column(name, numeric=name not in ("run", "ended")) for name in names)
    table = Table(columns, tuple(_row(study, row) for row in study.rows))
    return Section("runs", f"All {plural(len(study.rows), 'run')}", (table,), folded=True)


def _row(study: Study, row: StudyRow) -> tuple[str, ...]:
    values = row.values
    measured = (values.get(f"final_{study.metric}"), values.get(f"best_{study.metric}"), values.get("best_epoch"))
    return (
        row.run,
        count(row.batch_size),
        number(row.lr),
        str(row.seed),
        row.status,
        count(row.steps),
        number(row.epochs),
        *("" if value is None else number(value) for value in measured),
        duration(values.get("train_time_s")),
    )
