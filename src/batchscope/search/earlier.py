"""Runs that earlier questions left in the folder, as a new question sees them: evidence that costs nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

from ..store.courses import course_of
from ..store.records import RunConfig
from ..store.runs import StoredRun
from ..wording import plural
from .confirmation import aimed, settled
from .requests import Request
from .runs import SearchRuns
from .state import SearchState

__all__ = ["seconds_before", "told_of_earlier", "with_earlier"]


class _MakeConfig(Protocol):
    """Configuration of a run of this question."""

    def __call__(self, batch_size: int, lr: float, purpose: str) -> RunConfig: ...


def with_earlier(state: SearchState, runs: SearchRuns, config_of: _MakeConfig) -> dict[str, Any]:
    """Changes of a search's state: beside its runs those of earlier questions that this one could have made.

    Only runs that stood in the folder when the question was first asked, as far as they had gone then: so the same
    question comes to the same answer, whatever was asked after it. Left out are batch sizes that this question does
    not allow, and runs that would take another course today.
    """
    known, changes = {run.id: run for run in state.runs}, dict[str, Any]()
    for stored in runs.runner.store.named(runs.questions.asked.runs):
        own = stored.config
        if not state.batch_sizes[0] <= own.batch_size <= state.batch_sizes[-1]:
            continue
        config = config_of(own.batch_size, own.lr, own.purpose)
        if course_of(config) != course_of(own):
            continue
        earlier = runs.requests.earlier(Request(config=aimed(state, config)))
        if earlier is not None and (settles := settled(state, earlier)):
            state, changes = replace(state, **settles), settles
            earlier = runs.requests.earlier(Request(config=aimed(state, config)))
        if earlier is not None and _steps(earlier) > _steps(known.get(earlier.id)):
            known[earlier.id] = earlier
    return {"runs": tuple(known.values()), **changes}


def seconds_before(state: SearchState, runs: SearchRuns) -> tuple[float, float]:
    """Seconds of training steps and of evaluations that earlier questions spent on the runs that an answer rests on."""
    steps_s = evaluations_s = 0.0
    for run in state.runs:
        found = runs.questions.asked.runs.get(run.id)
        rows = [row for row in run.rows if row["kind"] == "evaluation" and found and row["step"] <= found.steps]
        if rows:
            steps_s += float(rows[-1]["device_seconds"])
            evaluations_s += float(rows[-1].get("evaluation_seconds") or 0.0)
    return steps_s, evaluations_s


def told_of_earlier(state: SearchState, runs: SearchRuns) -> tuple[str, ...]:
    """A note on how many of the runs that an answer rests on were made for earlier questions."""
    before = [run for run in state.runs if run.id in runs.questions.asked.runs]
    if not before:
        return ()
    return (
        f"{len(before)} of the {plural(len(state.runs), 'run')} that this answer rests on were begun for earlier "
        "questions on the same folder; the time of this search is without what they had taken",
    )


def _steps(run: StoredRun | None) -> int:
    return run.result.steps if run is not None and run.result is not None else -1
