"""How far apart the evaluations of a search's runs lie, and what they took. Numbers only, no torch.

With `c` the time of an evaluation in steps of the run's batch size, `p` the share of a run's time that evaluations may
take (`--evaluation-share`) and `N` the steps that the run is expected to need, `training.evaluation_grid` is given

```
every = c (1/p - 1)      steps that pay for one evaluation: one every so many steps takes p of the time
gap   = N / 13           steps: then 8 evaluations come by step N even where they are not paid for
```

`N` is the length of a run that has one; else the lower quartile of the posterior of the steps at the run's batch size
and learning rate; before there is a posterior 400 steps, but at most `20 c`, so that the first gap takes about as
long as one evaluation. Evaluations then take at most `p` of a run of `N` steps where 8 of them, and the one before the
first step, take no more than that: `N ≥ 9 c (1/p - 1)`, or 81 c at p = 10 %. Below that there are 8 or 9, and one or
two more in a run that turns out longer. A first look, whose N is not known, takes some more.

What follows from a measured time is rounded to 1, 2, 3, 4, 6, 8, 12, 16, ...: `every` up, the first gap down. So small
differences in it rarely change a run's configuration. Where evaluations are cheap, c ≤ 0.11 at p = 10 %, `every` is 1,
and they are as dense as their growth by 5 % lets them be; p = 100 % sets no limit. So it is where an evaluation takes
no longer than two steps, and a hundred of them no more than a thousandth of the budget.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..store.records import Row, RunConfig, RunEvaluations, Timing
from ..training.evaluation_grid import evaluations_within
from ..wording import duration, number, percent
from .recipe import run_at
from .state import SearchState

__all__ = [
    "FEWEST",
    "Spacing",
    "dear_at",
    "evaluations_at",
    "evaluations_in",
    "note_before",
    "spacing_at",
    "spacing_before",
    "spacing_of",
]

FEWEST = 8
"""Evaluations of a training, whatever they cost, the one before its first step not counted."""
TYPICAL_STEPS = 400.0
"""Steps of a training of which nothing is known."""

Array = NDArray[np.float64]

_CHEAP_STEPS, _HUNDRED, _NEXT_TO_NOTHING = 2.0, 100.0, 1e-3
"""Evaluations are not spared that take two steps at most, if a hundred of them take a thousandth of the budget."""
_MOST_STEPS = 1e9
_TICK_S = 1e-9
"""A step takes no less, whatever a clock says."""
_GAPS = 13.0
_LONG_S = 1.0
_FIRST_LOOK = 20.0


@dataclass(frozen=True, kw_only=True)
class Spacing:
    """Distances between the evaluations of a run, in steps: members of its configuration.

    Attributes:
        every: that pay for one evaluation.
        gap: that are not too far apart without it.
    """

    every: int
    gap: int

    def members(self) -> dict[str, Any]:
        """The members of a run's configuration."""
        return {"evaluation_every": self.every, "evaluation_gap": self.gap}


def spacing_of(cost: float, share: float, steps: float | None = None) -> Spacing:
    """Spacing of the evaluations of a run.

    Args:
        cost: of an evaluation, in steps of the run.
        share: of the run's time that evaluations may take.
        steps: that the run is expected to need; `None`: not known.

    >>> spacing_of(20.0, 0.1, 4000.0), spacing_of(20.0, 0.1, 400.0), spacing_of(0.1, 0.1)
    (Spacing(every=192, gap=192), Spacing(every=192, gap=30), Spacing(every=1, gap=1))
    """
    every = _rounded_up(cost * (1.0 / share - 1.0))
    unknown = _rounded_down(min(TYPICAL_STEPS, _FIRST_LOOK * cost) / _GAPS)
    return Spacing(every=every, gap=min(every, unknown if steps is None else max(1, int(steps / _GAPS))))


def spacing_at(
    state: SearchState, timing: Timing, batch_size: int, lr: float, *, purpose: str, length: int | None = None
) -> Spacing:
    """Spacing of the evaluations of the next run at a batch size and learning rate.

    A run of the same purpose at the same pair keeps the spacing that it has, so that it can go on.

    Args:
        state: of the search.
        timing: of an evaluation and a step on this machine.
        batch_size: of the run.
        lr: its learning rate.
        purpose: of the run.
        length: in steps, where it is given.
    """
    for run in state.runs:
        config = run.config
        if (config.batch_size, config.lr, config.purpose) == (batch_size, lr, purpose):
            return Spacing(every=config.evaluation_every, gap=config.evaluation_gap)
    cost = _cost_in_steps(state, timing, batch_size)
    share = _share_in_force(timing, cost, state.question.evaluation_share)
    if spacing_of(cost, share).every == 1 or length is not None:
        return spacing_of(cost, share, length)
    return spacing_of(cost, share, _expected_steps(state, batch_size, lr))


def spacing_before(timing: Timing, share: float, steps: float) -> Spacing:
    """Spacing of the evaluations of a training of so many steps at the batch size that a step was timed at."""
    cost = timing.evaluation_s / max(timing.step_s, _TICK_S)
    return spacing_of(cost, _share_in_force(timing, cost, share), steps)


def evaluations_in(steps: Array, spacing: Spacing) -> Array:
    """Number of evaluations of trainings of so many steps, the one before the first step included.

    >>> evaluations_in(np.array([10.0, 1000.0]), Spacing(every=1, gap=1)).tolist()
    [11.0, 94.0]
    """
    config = RunConfig(task="", batch_size=1, micro_batch_size=1, lr=0.0, max_steps=0, **spacing.members())
    whole = np.ceil(np.minimum(steps, _MOST_STEPS))
    return 1.0 + np.searchsorted(evaluations_within(config, int(whole.max())), whole).astype(np.float64)


def _share_in_force(timing: Timing, cost: float, share: float) -> float:
    """Share that evaluations may take; all of it where they take no longer than a step or two and next to no time.

    There a sparse curve would cost more than it saves: recipes of `digits` came out 17 % slower (docs/log.md).
    """
    cheap = cost <= _CHEAP_STEPS and _HUNDRED * timing.evaluation_s <= _NEXT_TO_NOTHING * timing.budget_s
    return 1.0 if cheap else share


def note_before(timing: Timing, share: float) -> str:
    """Note on an evaluation that is dear beside a step, or takes long beside the budget; empty where it is neither.

    Args:
        timing: of an evaluation and a step on this machine.
        share: of a run's time that evaluations may take.
    """
    fewest_s = FEWEST * timing.evaluation_s
    of_training = fewest_s / (fewest_s + TYPICAL_STEPS * timing.step_s)
    long = timing.evaluation_s >= _LONG_S and fewest_s > share * timing.budget_s
    if of_training <= share and not long:
        return ""
    steps = number(timing.evaluation_s / timing.step_s)
    return (
        f"one evaluation takes {duration(timing.evaluation_s)}, as long as {steps} steps at batch size "
        f"{timing.step_batch_size}: the {FEWEST} that each training gets at least take {duration(fewest_s)}, "
        f"{percent(of_training)} of the time of a training of {TYPICAL_STEPS:.0f} steps; fewer validation examples "
        "would make the search cheaper"
    )


def evaluations_at(state: SearchState, batch_size: int, lr: float) -> RunEvaluations | None:
    """The evaluations of the run made at exactly this recipe; `None` where there is none, or they were not recorded.

    How far apart they lie is told of the last two. At the target these are the two around the first passage.
    """
    rows = _evaluation_rows(state, batch_size, lr)
    if len(rows) < 2:
        return None
    before, after = (int(row["step"]) for row in rows[-2:])
    apart = after - before
    return RunEvaluations(number=len(rows), every_steps=apart, every_examples=apart * batch_size)


def dear_at(state: SearchState, batch_size: int, lr: float) -> str:
    """Note that evaluations took more than their share of the run at this recipe, as it had to get 8, or empty."""
    rows, run = _evaluation_rows(state, batch_size, lr), run_at(state, batch_size, lr)
    if run is None or len(rows) < 2 or FEWEST * run.config.evaluation_every <= int(rows[-1]["step"]):
        return ""
    seconds, training_s = (float(rows[-1].get(name) or 0.0) for name in ("evaluation_seconds", "device_seconds"))
    share, taken = state.question.evaluation_share, seconds / (seconds + training_s) if seconds else 0.0
    if taken <= share:
        return ""
    return (
        f"evaluations took {percent(taken)} of the time of the run at the recipe, {len(rows)} of "
        f"{duration(seconds / len(rows))} each, more than the {percent(share)} of --evaluation-share: a training gets "
        f"at least {FEWEST}"
    )


def _evaluation_rows(state: SearchState, batch_size: int, lr: float) -> list[Row]:
    run = run_at(state, batch_size, lr) if state.recorded.evaluations and state.target is not None else None
    return [row for row in run.rows if row["kind"] == "evaluation"] if run else []


def _cost_in_steps(state: SearchState, timing: Timing, batch_size: int) -> float:
    """Seconds of an evaluation ÷ seconds of a step of a batch size, both on this machine.

    A step is as much longer or shorter than the one that was timed here as on the hardware that the answer is for.
    """
    step_s = timing.step_s * state.seconds_of(batch_size) / state.seconds_of(timing.step_batch_size)
    return timing.evaluation_s / max(step_s, _TICK_S)


def _expected_steps(state: SearchState, batch_size: int, lr: float) -> float | None:
    """Lower quartile of the steps to the target, by the runs so far; `None` before there are any.

    Also for another strategy: it sees a run as far as it asked for it, but the state holds all of a stored one.
    """
    if state.target is None or not state.observations or state.question.search != "anchors":
        return None
    log_steps = state.joint_posterior.log_steps(batch_size, lr)
    return float(np.exp(min(float(np.quantile(log_steps, 0.25)), math.log(1e9))))


def _sizes() -> Iterator[int]:
    """1, 2, 3, 4, 6, 8, 12, 16, ...: powers of two, and the numbers halfway between them."""
    yield 1
    for power in itertools.count(1):
        yield 2**power
        yield 3 * 2 ** (power - 1)


def _rounded_up(steps: float) -> int:
    return next(size for size in _sizes() if size >= steps * (1.0 - 1e-9))


def _rounded_down(steps: float) -> int:
    return max(itertools.takewhile(lambda size: size <= steps * (1.0 + 1e-9), _sizes()), default=1)
