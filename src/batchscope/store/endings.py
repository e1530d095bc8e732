"""How a run ended, in a few words that need no legend. Numbers only, no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from .records import RunStatus
from .runs import StoredRun

__all__ = ["LEAST_GAIN", "ending_of", "endings_of", "gained"]

LEAST_GAIN = 0.01
"""Share of the metric's value with fresh weights; a run that improved it by less gained nothing."""
_WITHOUT_GAIN = "stopped early, no better than fresh weights"


def ending_of(run: StoredRun) -> str:
    """Ending of a run, to stand after "the run"; empty while it is unfinished.

    A run that was stopped because it did no better than fresh weights has the status of one that fell behind.
    """
    if run.result is None:
        return ""
    lost = run.result.status is RunStatus.BEHIND and not gained(run)
    return _WITHOUT_GAIN if lost else run.result.status.ending


def endings_of(runs: Iterable[StoredRun]) -> list[tuple[str, int]]:
    """Endings of finished runs with how many had each, the most frequent first."""
    return Counter(ending_of(run) for run in runs if run.result is not None).most_common()


def gained(run: StoredRun) -> bool:
    """Whether the metric that a run is judged by ever became better than with fresh weights, by more than a trace."""
    config = run.config
    aim = config.target.judged_by if config.target is not None else config.metric
    evaluations = [row for row in run.rows if row["kind"] == "evaluation"]
    values = [row["metrics"][aim.name] for row in evaluations if aim is not None and aim.name in row["metrics"]]
    if aim is None or len(values) < 2 or evaluations[0]["step"] > 0:
        return True
    best = (min if aim.mode == "min" else max)(values[1:])
    gain = values[0] - best if aim.mode == "min" else best - values[0]
    return gain > LEAST_GAIN * abs(values[0])
