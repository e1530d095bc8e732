"""The clock of one run: what a step took, without its first steps, and whether other work delayed it."""

from __future__ import annotations

from typing import Any

import pytest

from batchscope.fits.run_clock import run_clock
from batchscope.store.records import Row
from batchscope.testing import evaluation

STEPS = (0, 1, 2, 3, 5, 10, 20, 40, 80)


def rows(step_s: float = 1e-3, start_s: float = 0.0, share: float | None = None, low: float | None = None) -> list[Row]:
    """Evaluations of a run whose first step takes `start_s` longer; processor time is `share` of the wall time."""
    found: list[Row] = []
    for step in STEPS:
        wall = step * step_s + (start_s if step else 0.0)
        more: dict[str, Any] = {} if share is None else {"processor_seconds": share * wall}
        if low is not None and step:
            more |= {"step_s": step_s, "low_step_s": low}
        found.append({**evaluation(step, {"val_loss": 1.0}, device_seconds=wall), **more})
    return found


def test_the_first_steps_do_not_count() -> None:
    clock = run_clock(rows(start_s=5.0))
    assert clock is not None
    assert clock.step_s == pytest.approx(1e-3)
    assert not clock.busy
    short = run_clock(rows(start_s=5.0)[:4])
    assert short is not None
    assert short.step_s == pytest.approx(1e-3)
    assert run_clock(rows()[:2]) is None


@pytest.mark.parametrize(
    ("share", "low", "waits", "busy"),
    [
        (1.0, 1e-3, False, False),
        (0.4, 1e-3, False, False),
        (0.7, 0.7e-3, False, True),
        (0.9, 0.7e-3, False, False),
        (1.9, 0.4e-3, False, True),
        (0.2, 0.4e-3, True, False),
    ],
)
def test_a_busy_machine_is_known_by_steps_that_differ_and_by_missing_processors(
    share: float, low: float, waits: bool, busy: bool
) -> None:
    clock = run_clock(rows(share=share, low=low), waits=waits)
    assert clock is not None
    assert clock.busy == busy
    assert clock.processors == pytest.approx(share)
    assert clock.delay == pytest.approx(1e-3 / low)


def test_steps_in_which_something_was_measured_bound_a_step_from_above_unless_others_were_timed_apart() -> None:
    noise = {"kind": "noise", "step": 12}
    mixed, apart = run_clock([*rows(), noise]), run_clock([*rows(low=1e-3), noise])
    assert mixed is not None
    assert apart is not None
    assert mixed.upper
    assert not apart.upper


def test_single_steps_between_evaluations_bound_a_step_from_above_and_count_only_where_there_are_no_others() -> None:
    cold = [evaluation(step, {"val_loss": 1.0}, device_seconds=3e-3 * step) for step in range(13)]
    alone = run_clock(cold)
    assert alone is not None
    assert alone.upper
    assert alone.step_s == pytest.approx(3e-3)
    warm = [*cold, evaluation(20, {"val_loss": 1.0}, device_seconds=3e-3 * 12 + 1e-3 * 8)]
    beside = run_clock(warm)
    assert beside is not None
    assert not beside.upper
    assert beside.step_s == pytest.approx(1e-3)
