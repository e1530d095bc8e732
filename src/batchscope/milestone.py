"""The milestone on the way to a target: where runs are set aside, and how a longer run looked when it was there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from .metrics import without_end
from .records import Row, RunStatus, Target
from .stopping import History
from .store import StoredRun

__all__ = ["as_set_aside", "milestone_of"]

_SHARE = 0.3
"""Of the way from the target back to the start, in logarithms of what is left to zero loss."""
_PLAIN_SHARE = 0.1
"""The same in the metric itself, where it has no zero to measure from."""


def milestone_of(rows: Sequence[Row], target: Target) -> Target | None:
    """An easier value of the target's metric, which takes about a third of the steps to the target.

    For a loss with target v and start v₀ it is v (v₀/v)^0.3, for a score below 1 the same of 1 - score; where neither
    makes sense, v + 0.1 (v₀ - v). On seven of the trainings of `benchmarks/search` the first takes 27 to 34 % of the
    steps in the median.

    Args:
        rows: of any run of the search; its evaluation before the first step is the start.
        target: at the end of the way.

    Returns:
        The milestone; `None` where the start is not known, or meets the target.
    """
    start = next((r["metrics"].get(target.metric) for r in rows if r["kind"] == "evaluation" and r["step"] == 0), None)
    if start is None or not math.isfinite(start) or target.met_by(start):
        return None
    left, at_start = (target.value, start) if target.mode == "min" else (1.0 - target.value, 1.0 - start)
    if left > 0.0:
        easier = left * (at_start / left) ** _SHARE
        value = easier if target.mode == "min" else 1.0 - easier
    else:
        value = target.value + _PLAIN_SHARE * (start - target.value)
    return replace(target, value=value)


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
