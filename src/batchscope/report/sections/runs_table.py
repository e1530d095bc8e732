"""Runs of the search, each in one line, with a legend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...store.endings import ending_of
from ...store.records import RUN_PURPOSES, TARGET_OF_TABLE, Plan, RunStatus
from ...wording import count, duration, number, plural
from ..blocks import Column, Facts, Section, Table, Text, without
from ..outcomes import outcomes
from ..thinning import MOST_POINTS, evenly, left_out

if TYPE_CHECKING:
    from ...store.runs import StoredRun


def build(plan: Plan, runs: Sequence[StoredRun]) -> Section:
    """Section with a table that can be unfolded, and what its words mean."""
    if not runs:
        return Section("runs", "Runs", (Text(("No run was made.",)),))
    metric = plan.target.metric if plan.target is not None else _judged_by(runs)
    columns = (
        Column("run"),
        Column("purpose"),
        Column("batch size", numeric=True),
        Column("learning rate", numeric=True),
        Column("seed", numeric=True),
        Column("ended"),
        Column("steps", numeric=True),
        Column("to target", numeric=True),
        Column(f"best {metric}", numeric=True),
        Column("trained for", numeric=True),
    )
    passages = {o.id: o.steps for o in outcomes(plan, runs) if o.reached}
    shown = evenly(runs, MOST_POINTS)
    table = Table(columns, tuple(row(run, metric, passages.get(run.id)) for run in shown))
    title = f"All {plural(len(runs), 'run')}" if len(runs) > 1 else "The run"
    if plan.within is not None:
        table = without(table, "to target")
    if plan.target == TARGET_OF_TABLE:
        table = without(table, f"best {metric}")
    said = left_out(len(shown), len(runs), "in this table; `batchscope runs` lists all").strip()
    note = (Text((said,), tone="note"),) if said else ()
    return Section("runs", title, (*note, table, Facts(legend(runs))), folded=True)


def _judged_by(runs: Sequence[StoredRun]) -> str:
    return next((run.config.metric.name for run in runs if run.config.metric is not None), "val_loss")


def legend(runs: Sequence[StoredRun]) -> tuple[tuple[str, str], ...]:
    """Meanings of the purposes and the endings that occur among the runs."""
    purposes = {run.config.purpose for run in runs}
    endings = {run.result.status for run in runs if run.result is not None} - {RunStatus.REACHED}
    words = [(purpose, meaning) for purpose, meaning in RUN_PURPOSES.items() if purpose in purposes]
    words += [(e.ending, e.detail) for e in RunStatus if e in endings]
    return tuple(words)


def row(run: StoredRun, metric: str, passage: float | None) -> tuple[str, ...]:
    """Row of one run."""
    config, result = run.config, run.result
    settings = (run.id, config.purpose, count(config.batch_size), number(config.lr or None), count(config.seed))
    if result is None:
        return (*settings, "unfinished", "", "", "", "")
    best = result.best.get(metric)
    return (
        *settings,
        ending_of(run),
        count(result.steps),
        number(passage) if passage is not None else "",
        number(best) if best is not None and math.isfinite(best) else "",
        duration(result.device_seconds),
    )
