"""What the runs of a plan take, part by part, at a pace. Numbers only, no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

from ..pace import Pace
from .plan import ClaimsPlan

__all__ = ["RunsOf", "Work", "runs_of", "seconds_of", "works"]

RunsOf = Literal["grid", "fixed steps", "long", "few examples", "norm", "orders", "trials"]
"""The parts of a plan that consist of runs."""

_OF_FIXED_STEPS = 30
"""Evaluations of a run whose length is given in steps."""
_CONFIGURATIONS = 2
"""Of batch normalisation, beside the task as it came."""


class Work(NamedTuple):
    """Runs of one batch size that one seed needs."""

    part: RunsOf
    batch_size: int
    runs: int
    steps: float
    """Of each run."""
    evaluations: float
    """Of each run, the first one before any step included."""


def works(plan: ClaimsPlan, examples: int) -> Iterator[Work]:
    """What each seed of a plan needs; trials, whose number nobody knows beforehand, as one run of two batch sizes."""
    rates, few = len(plan.lrs), plan.few(examples)

    def of(part: RunsOf, sizes: Sequence[int], runs: int, epochs: float, n: int = examples) -> Iterator[Work]:
        return (Work(part, b, runs, epochs * n / b, epochs + 1) for b in dict.fromkeys(sizes))

    yield from of("grid", plan.batch_sizes, rates, plan.epochs)
    yield from of("norm", plan.norm_sizes, _CONFIGURATIONS * rates, plan.epochs)
    yield from of("long", plan.long_sizes, 1, plan.long_epochs)
    yield from of("orders", (plan.middle,), _CONFIGURATIONS * len(plan.orders_of(plan.seeds[0])), plan.epochs / 2)
    yield from of("few examples", plan.few_sizes(examples), rates, plan.few_epochs, few)
    yield from of("trials", plan.batch_sizes[:2], 1, 2 * plan.epochs)
    for b in plan.batch_sizes:
        yield Work("fixed steps", b, 1, plan.fixed_steps(examples), _OF_FIXED_STEPS + 1)


def runs_of(plan: ClaimsPlan, examples: int) -> int:
    """Number of runs, trials apart."""
    return len(plan.seeds) * sum(work.runs for work in works(plan, examples) if work.part != "trials")


def seconds_of(
    plan: ClaimsPlan,
    examples: int,
    pace: Pace,
    before: Callable[[int], float],
    *parts: RunsOf,
    seeds: int | None = None,
) -> float:
    """Seconds of a plan's runs at a pace.

    Args:
        plan: what is run.
        examples: in the training set.
        pace: of steps and evaluations.
        before: seconds of a step at a batch size, as measured before the first run.
        parts: default: all.
        seeds: how many; default: all of the plan.
    """
    step_s = pace.of_step(before)
    each = (
        work.runs * (work.steps * step_s(work.batch_size) + work.evaluations * pace.evaluation_s)
        for work in works(plan, examples)
        if not parts or work.part in parts
    )
    return math.fsum(each) * (len(plan.seeds) if seeds is None else seeds)
