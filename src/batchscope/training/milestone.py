"""The milestone on the way to a target: where runs are set aside, and how a longer run looked when it was there."""

from __future__ import annotations

import math
from dataclasses import replace

from ..store.metrics import without_end
from ..store.records import RunStatus, Target
from ..store.runs import StoredRun
from .stopping import History

__all__ = ["as_set_aside"]


def as_set_aside(run: StoredRun, milestone: Target, limit: int | None = None) -> StoredRun:
    """The run as it was when it passed the milestone, or came to the limit in steps; the run itself if it did neither.

    A search that is repeated on its folder decides by what it knew at the time, and then comes to the same runs.
    """
    if run.result is None:
        return run
    history = History(target=run.config.target or without_end([milestone.metric]))
    there: int | None = None
    for index, row in enumerate(run.rows):
        if row["kind"] == "evaluation":
            metrics = {name: math.nan if value is None else float(value) for name, value in row["metrics"].items()}
            history.add(int(row["step"]), row["train_loss"], metrics)
            arrived = milestone.met_by(history.values[-1]) or (limit is not None and row["step"] >= limit)
            if row["step"] > 0 and arrived:
                there = index
                break
    if there is None or history.reached or run.rows[there]["step"] >= run.result.steps:
        return run
    row = run.rows[there]
    status = RunStatus.PAUSED
    result = replace(
        run.result,
        status=status,
        message=status.meaning,
        steps=int(row["step"]),
        examples=int(row["examples"]),
        device_seconds=float(row["device_seconds"]),
        steps_to_target=None,
        last=history.metrics[-1],
        best=history.metrics[history.best_index],
        best_step=history.steps[history.best_index],
    )
    return replace(run, rows=run.rows[: there + 1], result=result)
