"""The searches that people would use instead: what they are given to search with, and how they see a run.

The strategies in `search/` know trials and costs. Here stored runs become trials, a limit in cost becomes a limit in
steps, and the name that a user writes becomes a strategy. Numbers only: the same runs give the same next run.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..fits.curves import curve_of, steps_to_target
from ..store.records import RunStatus
from ..store.runs import StoredRun
from .state import Findings
from .strategies.grid import Grid
from .strategies.halving import Halving
from .strategies.optuna import TreeParzen, require_optuna
from .strategies.space import Request, Space, Strategy, Trial, follow

__all__ = [
    "NAMES",
    "TYPICAL_RUNS",
    "follow_strategy",
    "given_to",
    "limit_in_steps",
    "require",
    "space_of",
    "strategy_of",
    "trial_of",
]

NAMES = {"optuna": "Optuna's tree-structured Parzen estimator", "halving": "successive halving", "grid": "a grid"}
"""In words, by what a user writes after `--search`."""

TYPICAL_RUNS = {"anchors": 8.0, "optuna": 35.0, "halving": 8.0, "grid": 60.0}
"""What each costs, in trainings at its recipe; the range is given with it."""

_HALVING_BUDGET = 6.0
"""In first runs. The last three configurations then get as far as the first run, if they are as fast."""


def require(search: str) -> None:
    """Make sure before anything is measured that the search can be made.

    Raises:
        UsageError: it needs a package that is not installed.
    """
    if search == "optuna":
        require_optuna()


def follow_strategy(findings: Findings, run: Callable[[Request, int | None], StoredRun | None]) -> None:
    """Do what the strategy of the question asks for.

    Args:
        findings: with the target, the range test and the first run.
        run: makes the requested run up to the given step, or reads it where it is finished as far; `None`: no time is
            left.
    """

    def make(request: Request) -> Trial | None:
        limit = limit_in_steps(request, findings)
        made = run(request, limit)
        return None if made is None else trial_of(made, findings, limit)

    follow(strategy_of(findings), space_of(findings), make, findings.question.seed, given_to(findings))


def space_of(findings: Findings) -> Space:
    """The batch sizes that the hardware and the user allow, and the rates below the ceiling of the range test."""
    assert findings.rate_range is not None
    return Space.below(findings.rate_range.ceiling_lr, findings.batch_sizes)


def strategy_of(findings: Findings) -> Strategy:
    """The strategy that was asked for; the budget of halving follows from what the first run took."""
    if findings.question.search == "optuna":
        return TreeParzen()
    if findings.question.search == "grid":
        return Grid()
    first = given_to(findings)[0]
    return Halving(budget=_HALVING_BUDGET * (first.cost_to_target or first.cost))


def given_to(findings: Findings) -> list[Trial]:
    """The runs that were made before a strategy was asked: the pilot, and the looks for a target."""
    return [trial_of(run, findings) for run in findings.finished if run.config.purpose == "pilot"]


def limit_in_steps(request: Request, findings: Findings) -> int | None:
    """At which step the requested run is paused; `None`: it goes on to its end."""
    if request.limit is None:
        return None
    return max(1, math.ceil(request.limit / findings.cost_of(request.batch_size)))


def trial_of(run: StoredRun, findings: Findings, limit: int | None = None) -> Trial:
    """A finished run as a strategy sees it.

    Args:
        run: with a result.
        findings: which hold the target and the price of a step.
        limit: step up to which the run was asked for; what came later is left out, so that a search that is repeated
            on its folder decides by what it knew at the time.

    Returns:
        The trial; `stopped` only where the limit stopped it.
    """
    assert run.result is not None
    assert findings.target is not None
    target, step_cost = findings.target, findings.cost_of(run.config.batch_size)
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
