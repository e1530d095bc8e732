"""One training run of the benchmark as the curve that it leaves: steps and target metric at every evaluation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batchscope.store.records import Row, RunConfig, RunStatus
from batchscope.tasks.workload import Workload
from batchscope.training.loop import train
from tasks import BenchTask

__all__ = ["Curve", "measured", "shortest_horizon"]

REACHED = RunStatus.REACHED.value


@dataclass(frozen=True)
class Curve:
    """One run, up to its target or to where it was censored.

    Under a decaying schedule it is the shortest run found that reaches the target, and `steps_to_target` its horizon.
    """

    steps: NDArray[np.int32]
    values: NDArray[np.float32]
    """The target metric, step 0 included."""
    status: str
    """A `RunStatus`: `reached`, `out-of-steps` (censored), `diverged`."""
    steps_to_target: float | None


def measured(
    workload: Workload, task: BenchTask, batch_size: int, lr: float, seed: int, most_steps: int, start: int = 0
) -> Curve:
    """Train one cell with one seed.

    Args:
        workload: the task made ready.
        task: its target and schedule.
        batch_size: examples a step.
        lr: learning rate; the first, where it decays.
        seed: of weights and data order.
        most_steps: where the run is censored; the longest horizon tried, where the rate decays.
        start: the first horizon tried; an eighth of `most_steps` unless given.
    """

    def run(steps: int) -> Curve:
        return _run(workload, task, batch_size, lr, seed, steps)

    if task.schedule == "constant":
        return run(most_steps)
    return shortest_horizon(run, start or max(1, most_steps // 8), most_steps)


def shortest_horizon(run: Callable[[int], Curve], start: int, most: int, precision: float = 1.15) -> Curve:
    """The shortest run that reaches its target when its schedule ends where it does, by doubling and bisection.

    Args:
        run: trains with a horizon of so many steps.
        start: the first horizon tried.
        most: the longest.
        precision: the horizon found is at most this times one that failed.

    Returns:
        The curve at the horizon found, with that horizon as its `steps_to_target`; a failed curve where none reaches.
    """
    failed, horizon = 0, min(start, most)
    best: Curve | None = None
    reached = 0
    while True:
        curve = run(horizon)
        if curve.status == REACHED:
            best, reached = curve, horizon
        elif curve.status == RunStatus.DIVERGED.value and best is None:
            return curve
        else:
            failed = horizon
        if best is None:
            if failed >= most:
                return curve
            horizon = min(2 * failed, most)
        elif reached <= failed * precision or reached - failed <= 1:
            return dataclasses.replace(best, steps_to_target=float(reached))
        else:
            horizon = round(math.sqrt(failed * reached)) if failed else reached // 2
            horizon = min(max(horizon, failed + 1), reached - 1)


def _run(workload: Workload, task: BenchTask, batch_size: int, lr: float, seed: int, most_steps: int) -> Curve:
    config = RunConfig(
        task=task.name,
        batch_size=batch_size,
        micro_batch_size=batch_size,
        lr=lr,
        schedule=task.schedule,
        seed=seed,
        max_steps=most_steps,
        target=task.goal,
    )
    rows: list[Row] = []
    result = train(workload, config, on_row=rows.append)
    return Curve(
        steps=np.array([row["step"] for row in rows], dtype=np.int32),
        values=np.array([row["metrics"].get(task.goal.metric, math.nan) for row in rows], dtype=np.float32),
        status=result.status.value,
        steps_to_target=result.steps_to_target,
    )
