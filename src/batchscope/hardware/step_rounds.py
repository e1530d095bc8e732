"""Time of a training step at several batch sizes, in rounds: every size in turn, and again.

What else the machine does changes over seconds. A size that is timed in one stretch gets what falls into that stretch;
in rounds it falls on all sizes alike, and a ratio of two sizes, taken within a round, does not contain it. The spread
of a ratio over the rounds is then that of the measurement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from ..errors import UsageError
from .random_state import preserved_random_state
from .step import MeasuredTask
from .step_times import in_turn, time_step

__all__ = ["StepRounds", "measure_rounds"]

_MOST_STEPS = 5
_LONG_S = 0.15
"""As many steps as last this long together are enough, if fewer: what disturbs a step lasts milliseconds."""
_FEWEST_ROUNDS = 3
_OVERDRAFT = 2.0
"""The budget may be overdrawn to this multiple for the fewest rounds."""


@dataclass(frozen=True, kw_only=True)
class StepRounds:
    """Times of full training steps: `zero_grad`, forward, backward, optimizer."""

    sizes: tuple[int, ...]
    """Examples of a step, in one pass."""
    seconds: tuple[tuple[float, ...], ...]
    """`seconds[r][i]` is the median of `steps[i]` steps of `sizes[i]` in round r."""
    steps: tuple[int, ...]
    device_seconds: float
    """Of all steps, the uncounted round included, but for the very first step, in which libraries are loaded."""
    notes: tuple[str, ...]
    """Why there are fewer rounds, or fewer steps in them, than there might be."""


def measure_rounds(
    workload: MeasuredTask, sizes: Sequence[int], *, rounds: int = 7, seed: int = 0, budget_s: float = 6.0
) -> StepRounds:
    """Time steps at each size in turn, round by round.

    A first round is not counted: two steps a size, the first for what is set up per shape, the second to plan the
    others. Then each size gets five steps a round, or as many as last 0.15 s together, but at least one; still fewer
    where the budget would not allow three rounds. The clock waits for the device before and after each step. Fetching
    examples is not in the time.

    Args:
        workload: the task on its device.
        sizes: batch sizes, each in one pass; those that do not fit must have been left out.
        rounds: how many, at most.
        seed: of the weights and the batches; the caller's generators are left as they were.
        budget_s: seconds of training steps. No round is begun that is expected to exceed it, but for the first, and
            for the second and third where all three take no more than twice the budget.

    Returns:
        The seconds, round by round.

    Raises:
        UsageError: no size, or one that the training set does not hold; no round.
        TaskError: a training step failed.

    Cost: at most `2 + 5 · rounds` steps a size, and a batch of each size in memory all the while.

    Valid when: a step costs the same whatever the batch holds; each size has one batch, for all rounds.
    """
    if not sizes or min(*sizes, rounds) < 1 or max(sizes) > workload.largest_batch(max(sizes)):
        raise UsageError(
            f"{rounds} rounds of sizes {list(sizes)} out of {workload.largest_batch()} examples: at least one round "
            "and one size, and each from 1 to the number of examples"
        )
    clock = workload.device.clock
    with preserved_random_state(seed):
        disposable = workload.disposable(seed)
        batches = [disposable.draw(size) for size in sizes]

        def timed(i: int) -> float:
            return time_step(disposable, batches[i]).seconds

        timed(0)
        began = clock()
        expected = [each[-1] for each in in_turn(timed, [2] * len(batches))]
        fewest = min(_FEWEST_ROUNDS, rounds)
        steps = _planned(expected, fewest, budget_s - (clock() - began))
        rounds_began, taken = clock(), list[tuple[float, ...]]()
        while len(taken) < rounds and _fits(len(taken), fewest, clock() - began, clock() - rounds_began, budget_s):
            taken.append(tuple(median(each) for each in in_turn(timed, steps)))
        spent = clock() - began
    return StepRounds(
        sizes=tuple(sizes),
        seconds=tuple(taken),
        steps=tuple(steps),
        device_seconds=spent,
        notes=_notes(len(taken), rounds, expected, steps, spent, budget_s),
    )


def _enough(seconds: float) -> int:
    """Number of steps that last long enough together, at most five."""
    return _MOST_STEPS if seconds * _MOST_STEPS <= _LONG_S else math.ceil(_LONG_S / seconds)


def _planned(expected: Sequence[float], rounds: int, budget_s: float) -> list[int]:
    """Steps of each size in a round, so that so many rounds fit; one each where they do not."""
    for most in range(_MOST_STEPS, 1, -1):
        steps = [min(most, _enough(seconds)) for seconds in expected]
        if rounds * sum(n * seconds for n, seconds in zip(steps, expected, strict=True)) <= budget_s:
            return steps
    return [1] * len(expected)


def _fits(done: int, fewest: int, spent_s: float, rounds_s: float, budget_s: float) -> bool:
    """Whether another round is begun, `done` of them having taken `rounds_s` of what is spent."""
    if done == 0:
        return True
    each = rounds_s / done
    if done < fewest and spent_s + (fewest - done) * each <= _OVERDRAFT * budget_s:
        return True
    return spent_s + each <= budget_s


def _notes(
    done: int, rounds: int, expected: Sequence[float], steps: Sequence[int], spent_s: float, budget_s: float
) -> tuple[str, ...]:
    notes: list[str] = []
    if any(n < _enough(seconds) for n, seconds in zip(steps, expected, strict=True)):
        notes.append(f"at most {max(steps)} steps of each size were timed in a round, to have more rounds")
    if done < rounds:
        notes.append(
            f"{done} of {rounds} rounds were made: they took {spent_s:.3g} s, and the budget was {budget_s:g} s"
        )
    return tuple(notes)
