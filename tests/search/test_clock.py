"""The runs' own clocks in an answer: where they differ from the bench the plan counts with them, unless delayed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from batchscope.report.outcomes import step_times
from batchscope.search.plan import build_plan
from batchscope.search.state import SearchState
from batchscope.store.codec import decode, encode
from batchscope.store.records import Estimate, Plan
from batchscope.store.runs import StoredRun

from .searches import TRIED, bench, run, search, step_time

BUSY = "the machine was busy while steps were timed: by how much"


def runs(slower: Callable[[int], float] = lambda batch_size: 1.6) -> list[StoredRun]:
    return [run(b, lr, slower=slower(b)) for b, lr in TRIED]


def delayed(one: StoredRun) -> StoredRun:
    """The run on a machine whose processor others had for most of the time."""
    rows: list[dict[str, object]] = []
    for row in one.rows:
        undisturbed = step_time(one.config.batch_size)
        more = {"processor_seconds": 0.5 * row["device_seconds"], "step_s": None, "low_step_s": undisturbed}
        rows.append({**row, **more})
    return replace(one, rows=tuple(rows))


def holds(interval: Estimate, value: float) -> bool:
    return (interval.low or 0.0) <= value <= (interval.high or math.inf)


def test_the_plan_counts_with_the_runs_where_they_take_longer_than_the_bench_says() -> None:
    plan, by_bench = build_plan(search(runs())), build_plan(search())
    assert plan.recipe is not None
    assert plan.predicted is not None
    assert plan.verified is not None
    assert by_bench.predicted is not None
    size = plan.recipe.batch_size
    assert plan.predicted.step_time_s.value == pytest.approx(1.6 * step_time(size), rel=0.01)
    assert holds(plan.predicted.step_time_s, 1.6 * step_time(size))
    assert holds(plan.predicted.time_to_target_s, plan.verified.time_s or 0.0)
    assert not holds(by_bench.predicted.step_time_s, 1.6 * step_time(size))
    (note,) = plan.notes
    assert "by its own clock" in note
    assert note.endswith(f"The plan counts with the run's, {1.6e3 * step_time(size):.3g} ms a step")
    assert decode(Plan, encode(plan)) == plan


def test_page_and_plan_have_the_same_corrected_step_times() -> None:
    state = search(runs(lambda b: 1.0 + b / 256))
    plan = build_plan(state)
    for size in (8, 16, 50, 64, 128, 512):
        assert step_times(plan)(size) == pytest.approx(state.seconds_of(size))
    assert state.seconds_of(256) == pytest.approx(2.0 * step_time(256), rel=0.01)
    assert state.seconds_of(512) == pytest.approx(2.0 * step_time(512), rel=0.01), "beyond the runs it is kept"


def test_what_takes_longer_in_training_is_chosen_less() -> None:
    plain, large_is_slow = build_plan(search()), build_plan(search(runs(lambda b: 1.0 if b < 64 else 6.0)))
    assert plain.recipe is not None
    assert large_is_slow.recipe is not None
    assert large_is_slow.recipe.batch_size < plain.recipe.batch_size


def test_a_run_on_a_busy_machine_does_not_correct_the_bench_and_both_are_said() -> None:
    plan = build_plan(search([delayed(each) for each in runs()]))
    assert plan.recipe is not None
    assert plan.predicted is not None
    size = plan.recipe.batch_size
    assert plan.predicted.step_time_s.value == pytest.approx(step_time(size), rel=0.01)
    (note,) = plan.notes
    assert "by its own clock" in note
    assert "busy while it trained (its steps took 1.6 times their 20th percentile on average with 0.5 of a" in note
    assert note.endswith(f"so the plan counts with the time before, {1e3 * step_time(size):.3g} ms a step")


def test_where_the_bench_found_the_machine_busy_the_shorter_of_the_two_counts() -> None:
    disturbed = replace(bench(), disturbance=BUSY, notes=(BUSY,))
    slower, faster = search(runs(), bench=disturbed), search(runs(lambda b: 0.5), bench=disturbed)
    assert slower.seconds_of(64) == pytest.approx(step_time(64), rel=0.01)
    assert faster.seconds_of(64) == pytest.approx(0.5 * step_time(64), rel=0.01)
    notes = build_plan(slower).notes
    assert notes[0] == BUSY
    assert "busy while steps were timed, so the plan counts with" in notes[1]


def test_small_differences_are_shrunk_and_tiny_ones_are_none() -> None:
    tiny, small = search(runs(lambda b: 1.01)), search(runs(lambda b: 1.04))
    assert tiny.seconds_of(64) == search().seconds_of(64)
    assert 1.0 < small.seconds_of(64) / step_time(64) < 1.04
    assert build_plan(small).notes == ()


@pytest.mark.parametrize("state", [search(runs(), bench_counts=False), search([])])
def test_without_runs_on_the_hardware_of_the_answer_nothing_is_corrected(state: SearchState) -> None:
    assert state.clock.factors == ()
    assert state.step_time == state.measured_step_time


def test_other_batch_sizes_that_differ_are_said_where_the_recipe_does_not() -> None:
    state = search(runs(lambda b: 1.0 if b >= 64 else 2.0))
    (note,) = build_plan(state).notes
    assert "by the runs' own clocks a step takes 2 times as long as it was timed before them (at batch size 16" in note
