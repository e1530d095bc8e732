"""Growth of memory along a run: what is a leak, and whose."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, cast

import pytest

from batchscope.store.attempts import Growth
from batchscope.training.memory_growth import MemoryGrowth, growth_in_words, is_leak

MIB = 2**20


def watched(level: Callable[[int, int], float], steps: int, every: int = 10, *, tick_s: float = 0.03) -> Growth:
    """Growth where the process holds `level(steps, evaluations)` MiB."""
    now, made = count(), [0, 0]
    watch = MemoryGrowth(lambda: round(level(*made) * MIB), lambda step, growth: None, clock=lambda: next(now) * tick_s)
    watch.begin(cast(Any, None), cast(Any, None))
    watch.at_evaluation(0)
    for step in range(1, steps + 1):
        made[0] = step
        watch.after_update(step)
        if step % every == 0:
            made[1] += 1
            watch.at_evaluation(step)
    return watch.growth


def test_a_leak_a_step() -> None:
    growth = watched(lambda steps, _: 300 + 1.5 * steps, 1000)
    assert is_leak(growth)
    assert "1.5 MiB a step" in growth_in_words(growth)


def test_a_leak_an_evaluation() -> None:
    growth = watched(lambda _, evaluations: 300 + 8 * evaluations, 1000)
    assert is_leak(growth)
    assert "8 MiB an evaluation" in growth_in_words(growth)


def test_evaluations_that_lie_ever_further_apart() -> None:
    now, made = count(), [0]
    watch = MemoryGrowth(lambda: (300 + 8 * made[0]) * MIB, lambda step, growth: None, clock=lambda: next(now) * 0.03)
    due = 1
    for step in range(1, 2000):
        watch.after_update(step)
        if step == due:
            made[0] += 1
            due = max(step + 1, int(1.2 * step))
            watch.at_evaluation(step)
    assert is_leak(watch.growth)


@pytest.mark.parametrize(
    "level",
    [
        lambda steps, _: 300 + (steps > 0) * 500.0,
        lambda steps, _: 300 + min(steps, 200),
        lambda steps, _: 300 + 100 * (steps % 7),
        lambda steps, _: 300 + 0.01 * steps,
        lambda steps, _: 900 - 0.5 * steps,
        lambda steps, _: 300 + (steps > 700) * 500.0,
    ],
    ids=["first step", "cache that fills", "up and down", "little", "falls", "one leap"],
)
def test_what_is_no_leak(level: Callable[[int, int], float]) -> None:
    assert not is_leak(watched(level, 1000))


@pytest.mark.parametrize("tick_s", [0.0005, 1.0])
def test_whatever_the_clock(tick_s: float) -> None:
    """Few readings, or so many that they are thinned."""
    assert is_leak(watched(lambda steps, _: 300 + 2.0 * steps, 3000, every=500, tick_s=tick_s))


def test_growth_is_written_while_it_grows() -> None:
    written = list[int]()
    watch = MemoryGrowth(
        lambda: len(written) * 100 * MIB + 10**8, lambda step, growth: written.append(step), clock=lambda: 0.1
    )
    watch.after_update(1)
    assert written == [1]
