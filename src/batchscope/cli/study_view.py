"""Study as a person reads it in a terminal. Numbers only, no torch."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table

from ..laboratory.conclusions import best_arm, best_rates
from ..laboratory.page.sections.findings import MAIN
from ..laboratory.records import Study, SummaryRow
from ..wording import bytes_, count, duration, number, plural, sentence, with_interval
from .views import SIZE_AND_RATE, WHY

__all__ = ["study_view", "why_of"]


def study_view(study: Study) -> list[RenderableType]:
    """Main findings of a study, and each batch size at its best learning rate."""
    findings = [f"- {sentence(f.statement)}" for f in study.findings[:MAIN]]
    variants = list(dict.fromkeys(row.variant for row in study.summary))
    tables = [part for variant in variants for part in _table(study, variant)]
    quick = ["The quick form of the study: a demonstration on small numbers.", ""] if study.quick else []
    return ["", *quick, *findings, *tables, "", *(f"Note: {sentence(note)}" for note in study.notes)]


def why_of(study: Study) -> str:
    """What the page of a study shows."""
    further = len(study.findings) - MAIN
    return f"{plural(further, 'further finding')}, with figures" if further > 0 else WHY


def _table(study: Study, variant: str) -> list[RenderableType]:
    arms = best_rates(study, variant)
    if not arms:
        return []
    table = Table(box=None, pad_edge=False, title=variant or None, title_justify="left")
    for column in (*SIZE_AND_RATE, f"best {study.metric}", "epoch", "epoch time", "memory"):
        table.add_column(column, justify="right")
    best = best_arm(study)
    for arm in arms:
        table.add_row(*_cells(study, arm), style="bold" if best is not None and arm.key == best.key else None)
    return ["", table]


def _cells(study: Study, arm: SummaryRow) -> tuple[str, ...]:
    values = arm.estimates
    return (
        count(arm.batch_size),
        number(arm.lr),
        with_interval(values[f"best_{study.metric}"]),
        number(values["best_epoch"].value),
        duration(values["epoch_time_s"].value),
        bytes_(values["peak_memory_bytes"].value),
    )
