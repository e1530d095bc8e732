"""The searches other than ours: what they are given to search with, and how they see a run.

The strategies in `search/strategies` know trials and costs. Here stored runs become trials, a limit in cost becomes a
limit in steps, and the name that a user writes becomes a strategy. Numbers only: the same runs give the same next run.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..errors import UsageError
from ..fits.curves import curve_of, steps_to_target
from ..store.records import RunStatus
from ..store.runs import StoredRun
from .state import SearchState
from .strategies import SEARCHES, offer_of
from .strategies.space import Request, Space, Strategy, Trial, follow

__all__ = [
    "NAMES",
    "TYPICAL_RUNS",
    "first_trials",
    "limit_in_steps",
    "require",
    "run_strategy",
    "space_of",
    "strategy_of",
    "trial_of",
]

_OFFERS = {search: offer_of(search) for search in SEARCHES if search != "anchors"}

NAMES = {search: offer.words for search, offer in _OFFERS.items()}
"""Names of the strategies in words, by what a user writes after `--search`."""

TYPICAL_RUNS = {"anchors": 2.8} | {search: offer.typical_runs for search, offer in _OFFERS.items()}
"""Typical price of a search, in trainings at its recipe: for ours 2.7 in the median of 126 searches in the design half
of `benchmarks/search`, 2.8 of 54 in the held-out half."""


def require(search: str) -> None:
    """Make sure before anything is measured that the search can be made.

    Raises:
        UsageError: there is no such search, or it needs a package that is not installed.
    """
    if search not in SEARCHES:
        raise UsageError(f"there is no search {search!r}; there are {', '.join(SEARCHES)}")
    if search in _OFFERS:
        _OFFERS[search].require()


def run_strategy(state: SearchState, run: Callable[[Request, int | None], StoredRun | None]) -> None:
    """Make the runs that the strategy of the question asks for.

    Args:
        state: with the target, the range test and the first run.
        run: makes the requested run up to the given step, or reads it where it is finished as far; `None`: no time is
            left.
    """

    def make(request: Request) -> Trial | None:
        limit = limit_in_steps(request, state)
        made = run(request, limit)
        return None if made is None else trial_of(made, state, limit)

    follow(strategy_of(state), space_of(state), make, state.question.seed, first_trials(state))


def space_of(state: SearchState) -> Space:
    """The batch sizes that hardware and user allow, and the learning rates that the range test leaves."""
    assert state.rate_range is not None
    return Space.below(state.rate_range.highest_lr, state.batch_sizes)


def strategy_of(state: SearchState) -> Strategy:
    """The strategy that was asked for, made for what the first run took."""
    return _OFFERS[state.question.search].build(first_trials(state)[0])


def first_trials(state: SearchState) -> list[Trial]:
    """Trials of the runs that were made before a strategy was asked: the pilot, and the looks for a target."""
    return [trial_of(run, state) for run in state.finished if run.config.purpose == "pilot"]


def limit_in_steps(request: Request, state: SearchState) -> int | None:
    """Step at which the requested run is paused; `None`: it goes on to its end."""
    if request.limit is None:
        return None
    return max(1, math.ceil(request.limit / state.cost_of(request.batch_size)))


def trial_of(run: StoredRun, state: SearchState, limit: int | None = None) -> Trial:
    """A finished run as a strategy sees it.

    Args:
        run: with a result.
        state: which hold the target and the price of a step.
        limit: step up to which the run was asked for; what came later is left out, so that a search that is repeated
            on its folder decides by what it knew at the time.

    Returns:
        The trial; `stopped` only where the limit stopped it.
    """
    assert run.result is not None
    assert state.target is not None
    target, step_cost = state.target, state.cost_of(run.config.batch_size)
    evaluations = [row for row in run.rows if row["kind"] == "evaluation"]
    ends = [int(row["step"]) for row in evaluations if limit is not None and row["step"] >= limit]
    end = ends[0] if ends else run.result.steps
    rows = [row for row in evaluations if row["step"] <= end]
    passage = steps_to_target(rows, target)
    stopped = bool(ends) and (end < run.result.steps or run.result.status is RunStatus.PAUSED)
    return Trial(
        batch_size=run.config.batch_size,
        lr=run.config.lr,
        status="reached" if passage is not None else "stopped" if stopped else "failed",
        cost=end * step_cost,
        cost_to_target=None if passage is None else passage * step_cost,
        curve=tuple((step * step_cost, value) for step, value in curve_of(rows, target)),
        larger_is_better=target.mode == "max",
    )
