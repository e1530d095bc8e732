"""The plan of the verdicts over time: what was planned at first, and what then, once the real pace was known.

A plan is made from step times before anything is run. Once the first runs are made, what a run costs here is known,
with evaluations, probes, loading and set-up: then it is planned again. The last time is after the first seeds, when
what one more seed costs in all is known. Each plan is kept with what it was made from, and read when the command goes
on: a plan is only made anew for a larger budget. What a user fixed is never changed. Numbers only, no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from ...wording import count, duration, joined, number, plural
from ..pace import Pace
from .costs import runs_of, seconds_of
from .plan import ClaimsPlan, largest_plan, later_choices

__all__ = ["FIRST_SEEDS", "Fixed", "Moment", "Planned", "Planning", "after_first_runs", "after_first_seeds", "in_words"]

FIRST_SEEDS = 3
"""Seeds that everything is measured with before any other seed begins: fewer decide next to nothing."""

_MOST_SEEDS = 7
_SHARE_FOR_RUNS = 0.85
"""Of the time that is left after the first runs; measurements beside the runs take the rest."""
_SHARE_FOR_SEEDS = 0.95
"""Of the time that is left when the cost of one more seed is known in all."""

Moment = Literal["before the first run", "after the first runs", "after the first seeds"]


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """What a user fixed of the plan; what is empty or `None` is free."""

    batch_sizes: tuple[int, ...] = ()
    lrs: tuple[float, ...] = ()
    seeds: int | None = None
    epochs: float | None = None


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One plan, and what it was made from."""

    moment: Moment
    plan: ClaimsPlan
    runs: int
    """Trials apart."""
    seconds: float
    """That its runs take at the pace."""
    left_s: float
    """Of the budget, when it was made."""
    budget_s: float
    pace: Pace
    seed_s: float | None = None
    """Seconds of one more seed with all its measurements; known after the first seeds."""


@dataclass(frozen=True, kw_only=True)
class Planning:
    """All plans of a folder, `claims-plan.json`; the last one holds."""

    lrs: tuple[float, ...]
    """That it began with."""
    plans: tuple[Planned, ...]

    @property
    def plan(self) -> ClaimsPlan:
        """The plan that holds."""
        return self.plans[-1].plan

    @property
    def last(self) -> Planned:
        """The plan that holds, with what it was made from."""
        return self.plans[-1]

    def made_at(self, moment: Moment) -> Planned | None:
        """The last plan of a moment."""
        return next((each for each in reversed(self.plans) if each.moment == moment), None)

    def then(self, planned: Planned) -> Planning:
        """The same with one more."""
        return replace(self, plans=(*self.plans, planned))


def after_first_runs(
    planning: Planning, fixed: Fixed, examples: int, pace: Pace, before: Callable[[int], float], left_s: float
) -> Planned:
    """The largest plan for the time that is left, at the pace of the first runs.

    Args:
        planning: so far.
        fixed: what a user fixed.
        examples: in the training set.
        pace: of the first runs.
        before: seconds of a step at a batch size, as measured before them.
        left_s: of the budget.
    """

    def cost(plan: ClaimsPlan) -> float:
        return seconds_of(plan, examples, pace, before)

    choices = later_choices(
        planning.plan,
        lrs=fixed.lrs or planning.lrs,
        batch_sizes=fixed.batch_sizes,
        seeds=fixed.seeds,
        epochs=fixed.epochs,
        fixed_lrs=bool(fixed.lrs),
    )
    plan = largest_plan(choices, cost, _SHARE_FOR_RUNS * left_s)
    return replace(
        planning.last,
        moment="after the first runs",
        plan=plan,
        runs=runs_of(plan, examples),
        seconds=cost(plan),
        left_s=left_s,
        pace=pace,
    )


def after_first_seeds(
    planning: Planning, made: int, examples: int, *, least: int, seed_s: float, left_s: float, budget_s: float
) -> Planned:
    """As many seeds as the time that is left allows, up to 7.

    Args:
        planning: so far; no seeds are fixed.
        made: seeds that everything was measured with.
        examples: in the training set.
        least: no fewer seeds than these.
        seed_s: seconds of one more.
        left_s: of the budget.
        budget_s: of this command.
    """
    more = math.floor(_SHARE_FOR_SEEDS * left_s / seed_s) if seed_s > 0.0 else _MOST_SEEDS
    seeds = max(least, min(_MOST_SEEDS, made + more))
    first = planning.plan.seeds[0]
    plan = replace(planning.plan, seeds=tuple(range(first, first + seeds)))
    return replace(
        planning.last,
        moment="after the first seeds",
        plan=plan,
        runs=runs_of(plan, examples),
        seconds=(seeds - made) * seed_s,
        left_s=left_s,
        budget_s=budget_s,
        seed_s=seed_s,
    )


def in_words(before: Planned, now: Planned) -> str:
    """What a new plan changes and why, as whoever watches reads it."""
    changed = _changes(before.plan, now.plan)
    if now.moment == "after the first seeds":
        why = f"one more seed takes {duration(now.seed_s)}, and {duration(now.left_s)} are left"
        head = f"planned again: {joined(changed)}" if changed else f"{plural(len(now.plan.seeds), 'seed')}, as planned"
        return f"{head}; {why}"
    runs = plural(now.pace.runs, "run")
    why = (
        f"{runs} took {number(now.pace.step_factor)} times as long a step as was measured before, and "
        f"{duration(now.pace.evaluation_s)} an evaluation with all that comes with it"
    )
    head = f"planned again: {joined(changed)}" if changed else "the plan stays"
    return f"{head}; {why}, so that {count(now.runs)} runs take about {duration(now.seconds)}"


def _changes(before: ClaimsPlan, now: ClaimsPlan) -> list[str]:
    found: list[str] = []
    if before.batch_sizes != now.batch_sizes:
        found.append(f"batch sizes {', '.join(map(count, now.batch_sizes))}")
    for name, old, new in (
        ("learning rate", len(before.lrs), len(now.lrs)),
        ("seed", len(before.seeds), len(now.seeds)),
    ):
        if old != new:
            found.append(f"{plural(new, name)} instead of {old}")
    if before.epochs != now.epochs:
        found.append(f"{number(now.epochs)} epochs instead of {number(before.epochs)}")
    return found
