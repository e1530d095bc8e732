"""Replay of a stored run: how far it answers a request, and what it was like there. Numbers only, no torch.

A run is stored with its evaluations, and what ends a run is a function of these. So whether a request would have ended
it, and where, is found out by asking the same rules again, evaluation by evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..store.aims import aim_of
from ..store.records import Row, RunConfig, RunResult, RunStatus
from ..store.runs import StoredRun
from .stopping import History, StopRule

__all__ = ["as_asked", "at_step", "ended", "history_of", "result_of", "seen"]


def ended(history: History, max_steps: int, stop_rules: Sequence[StopRule]) -> RunStatus | None:
    """How the latest evaluation ends a run; `None`: it goes on."""
    if history.reached:
        return RunStatus.REACHED
    if history.diverged:
        return RunStatus.DIVERGED
    over = history.steps[-1] >= max_steps
    for rule in stop_rules:
        status = rule(history)
        if status is not None and not (over and status is RunStatus.PAUSED):
            return status
    return RunStatus.OUT_OF_STEPS if over else None


def result_of(history: History, status: RunStatus, *, batch_size: int, device_seconds: float) -> RunResult:
    """The result of a run that ends at its latest evaluation."""
    return RunResult(
        status=status,
        message=status.meaning,
        steps=history.steps[-1],
        examples=history.steps[-1] * batch_size,
        device_seconds=device_seconds,
        steps_to_target=history.steps_to_target,
        first=history.metrics[0],
        last=history.metrics[-1],
        best=history.metrics[history.best_index],
        best_step=history.steps[history.best_index],
    )


def history_of(rows: Sequence[Row], config: RunConfig) -> History | None:
    """The evaluations of stored rows, judged as a configuration says; `None` where there are none."""
    history: History | None = None
    for row in rows:
        if row["kind"] == "evaluation":
            history = _with(history, row, config)
    return history


def as_asked(run: StoredRun, config: RunConfig) -> RunConfig:
    """Configuration of a stored run as a request of the same course has it; it is watched as it was before."""
    return replace(
        run.config,
        target=config.target,
        metric=config.metric,
        max_steps=config.max_steps,
        purpose=config.purpose,
        stall_patience=config.stall_patience,
    )


def seen(
    run: StoredRun,
    config: RunConfig,
    *,
    pauses: Sequence[StopRule] = (),
    rules: Sequence[StopRule] = (),
    since: int = 0,
) -> StoredRun | None:
    """A stored run as it was where a request would have ended it; `None`: it would have gone on.

    Args:
        run: of the same course as the request.
        config: that is asked for: its target and its number of steps end a run.
        pauses: rules that hold for where the run stands, too.
        rules: that are asked after each new evaluation.
        since: steps that the request found the run at, which it went on from.
    """
    asked, history, before = as_asked(run, config), None, None
    for index, row in enumerate(run.rows):
        if row["kind"] != "evaluation":
            continue
        step = int(row["step"])
        if step > config.max_steps and history is not None and before is not None and len(history.steps) > 1:
            return _view(run, asked, history, before, RunStatus.OUT_OF_STEPS)
        history, before = _with(history, row, config), index
        if step == 0 or step < since:
            continue
        status = ended(history, config.max_steps, [*pauses, *rules] if step > since else pauses)
        if status is not None:
            return _view(run, asked, history, index, status)
    return None


def at_step(run: StoredRun, config: RunConfig, step: int, status: RunStatus) -> StoredRun | None:
    """A stored run as it was at the evaluation at a step, where it ended so; `None` where it has no such evaluation."""
    history: History | None = None
    for index, row in enumerate(run.rows):
        if row["kind"] == "evaluation":
            history = _with(history, row, config)
            if row["step"] == step:
                return _view(run, as_asked(run, config), history, index, status)
    return None


def _view(run: StoredRun, config: RunConfig, history: History, index: int, status: RunStatus) -> StoredRun:
    """The run as if it had ended at the row, the last of the history."""
    seconds = float(run.rows[index]["device_seconds"])
    result = result_of(history, status, batch_size=config.batch_size, device_seconds=seconds)
    if run.result is not None:
        result = replace(result, rows_sha256=run.result.rows_sha256)
    return replace(run, config=config, rows=run.rows[: index + 1], result=result)


def _with(history: History | None, row: Row, config: RunConfig) -> History:
    """The history with one more evaluation; what is not finite was written as null."""
    metrics = {name: math.nan if value is None else float(value) for name, value in row["metrics"].items()}
    if history is None:
        history = History(target=aim_of(config, metrics))
    history.add(int(row["step"]), _loss(row), metrics)
    return history


def _loss(row: Mapping[str, Any]) -> float | None:
    loss = row["train_loss"]
    return math.nan if loss is None and row["step"] > 0 else loss
