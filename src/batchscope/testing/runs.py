"""Stored runs with a given course, for tests of whatever reads runs: no training, no folder, no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..store.aims import aim_of
from ..store.records import Row, RunConfig, RunResult, RunStatus, Target
from ..store.runs import StoredRun, run_id

__all__ = ["STEP_S", "evaluation", "stored_run", "without_clock"]

_CLOCK = ("device_seconds", "evaluation_seconds", "processor_seconds", "step_s", "low_step_s")

STEP_S = 1e-3
"""Seconds of a step, where a test does not say it."""


def evaluation(
    step: int,
    metrics: Mapping[str, float],
    *,
    batch_size: int = 1,
    examples: int | None = None,
    device_seconds: float | None = None,
    train_loss: float | None = None,
) -> Row:
    """Row of an evaluation, as the training loop writes it.

    Args:
        step: training steps made so far.
        metrics: the metrics of `evaluate`.
        batch_size: examples in a step.
        examples: read so far; default: `step * batch_size`.
        device_seconds: spent in training steps so far; default: `STEP_S` a step.
        train_loss: mean training loss since the evaluation before; `None` before the first step.

    Example:
        >>> evaluation(10, {"val_loss": 0.5}, batch_size=32)["examples"]
        320
    """
    return {
        "kind": "evaluation",
        "step": step,
        "examples": step * batch_size if examples is None else examples,
        "device_seconds": step * STEP_S if device_seconds is None else device_seconds,
        "train_loss": train_loss,
        "metrics": metrics,
    }


def stored_run(
    batch_size: int,
    lr: float,
    rows: Sequence[Row],
    *,
    name: str = "",
    status: RunStatus = RunStatus.OUT_OF_STEPS,
    steps_to_target: float | None = None,
    result: Mapping[str, Any] | None = None,
    **config: Any,
) -> StoredRun:
    """Finished run whose result follows from its rows.

    Steps, examples, time and the last metrics are those of the last evaluation; the best ones those of the evaluation
    that is best by what the run is judged by (`store.aims.aim_of`).

    Args:
        batch_size: one micro-batch, unless `config` divides it.
        lr: the learning rate.
        rows: in the order of the run, with one evaluation or more (`evaluation` writes them).
        name: the id of the run; default: that which its configuration has in a results folder.
        status: how the run ended.
        steps_to_target: where it passed its target.
        result: members of `RunResult` that are to be otherwise.
        config: members of `RunConfig`; default: `task="made-up"`, `max_steps` far beyond the rows.

    Raises:
        ValueError: there is no evaluation among the rows.

    Example:
        >>> rows = [evaluation(step, {"val_loss": loss}) for step, loss in ((0, 2.0), (10, 0.4), (20, 0.5))]
        >>> run = stored_run(8, 0.1, rows, seed=3)
        >>> run.result.steps, run.result.best, run.result.best_step, run.config.seed
        (20, {'val_loss': 0.4}, 10, 3)
    """
    evaluations = [row for row in rows if row["kind"] == "evaluation"]
    if not evaluations:
        raise ValueError("a finished run has at least one evaluation among its rows")
    members: dict[str, Any] = {"task": "made-up", "micro_batch_size": batch_size, "max_steps": 10**6}
    made = RunConfig(batch_size=batch_size, lr=lr, **(members | config))
    last, best = evaluations[-1], _best(evaluations, aim_of(made, evaluations[0]["metrics"]))
    found: dict[str, Any] = {
        "status": status,
        "message": status.meaning,
        "steps": last["step"],
        "examples": last["examples"],
        "device_seconds": last["device_seconds"],
        "steps_to_target": steps_to_target,
        "first": evaluations[0]["metrics"],
        "last": last["metrics"],
        "best": best["metrics"],
        "best_step": best["step"],
    }
    return StoredRun(
        id=name or run_id(made), config=made, rows=tuple(rows), result=RunResult(**(found | dict(result or {})))
    )


def _best(evaluations: Sequence[Row], target: Target) -> Row:
    def shortfall(row: Row) -> float:
        value = float(row["metrics"][target.metric])
        return math.inf if math.isnan(value) else -value if target.mode == "max" else value

    return min(evaluations, key=shortfall)


def without_clock(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Rows without what the clock said, which differs from one run of a configuration to the next.

    >>> without_clock([evaluation(1, {"val_loss": 0.5})])
    [{'kind': 'evaluation', 'step': 1, 'examples': 1, 'train_loss': None, 'metrics': {'val_loss': 0.5}}]
    """
    return [{key: value for key, value in row.items() if key not in _CLOCK} for row in rows]
