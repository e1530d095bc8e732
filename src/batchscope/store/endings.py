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
    config, result = run.config, run.result
    aim = config.target.judged_by if config.target is not None else config.metric
    if aim is None or result is None or result.steps == 0:
        return True
    if aim.name not in result.first or aim.name not in result.best:
        return True
    first, best = result.first[aim.name], result.best[aim.name]
    gain = first - best if aim.mode == "min" else best - first
    return gain > LEAST_GAIN * abs(first)
