"""The benchmark of the monitor's overhead: what a pair of blocks says, with a clock of its own."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "live" / "overhead.py"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Training:
    """A training whose step takes as long as it is told."""

    def __init__(self, clock: Clock, step_s: float) -> None:
        self.clock, self.step_s = clock, step_s

    def block(self, steps: int) -> float:
        self.clock.now += steps * self.step_s
        return steps * self.step_s


@pytest.fixture
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


@pytest.fixture
def clock(script: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setitem(script["pairs"].__globals__, "clock", clock)
    return clock


def test_cost_is_the_ratio_less_one(script: dict[str, Any], clock: Clock) -> None:
    plain, other = Training(clock, 0.01), Training(clock, 0.013)
    cost = script["compare"](plain, other, seconds=5.0, block=0.1)
    assert (cost.median, cost.low, cost.high) == pytest.approx((0.3, 0.3, 0.3))
    assert (cost.steps, cost.plain_step_s) == (10, pytest.approx(0.01))
    assert 20 <= cost.pairs <= 23


def test_clock_of_the_monitor_stands_still_while_the_other_copy_trains(script: dict[str, Any], clock: Clock) -> None:
    plain, other, stopped = Training(clock, 0.01), Training(clock, 0.02), script["Stopped"]()
    script["compare"](plain, other, seconds=0.1, block=0.1, stopped=stopped)
    warm_up = 5 * 0.02 + 10 * 0.01
    assert stopped() == pytest.approx(warm_up + 3 * 10 * 0.02)
