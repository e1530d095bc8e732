from __future__ import annotations

import dataclasses

import pytest

from batchscope.report.outcomes import best_by_size, curve_at, outcomes, step_times
from batchscope.store.records import Bench, Curve, HardwareProfile, Reading, RunStatus, Target

from ..search import searches
from . import plans


def test_finished_runs_are_judged_by_the_plan_s_target_whatever_their_own() -> None:
    other = Target(metric="val_loss", value=0.05, mode="min")
    unaimed, harder = plans.run(64, target=None), plans.run(128, target=other)
    unfinished = dataclasses.replace(plans.run(64), result=None)
    horizon = plans.run(64, purpose="horizon")
    found = outcomes(plans.ok(), (unaimed, harder, unfinished, horizon))
    assert [(o.id, o.reached) for o in found] == [(unaimed.id, True), (harder.id, True)]
    assert not outcomes(dataclasses.replace(plans.ok(), target=None), (unaimed,))
    elsewhere = dataclasses.replace(plans.TARGET, metric="val_perplexity")
    assert not outcomes(dataclasses.replace(plans.ok(), target=elsewhere), (unaimed,))


def test_a_run_that_did_not_reach_the_target_counts_with_the_steps_it_made() -> None:
    run = plans.run(64, status=RunStatus.BEHIND)
    (outcome,) = outcomes(plans.ok(), (run,))
    assert run.result is not None
    assert (outcome.reached, outcome.steps, outcome.examples) == (False, run.result.steps, 64 * run.result.steps)


def test_the_best_of_a_size_is_among_those_that_reached_the_target() -> None:
    slow, fast, other = plans.run(64, 4.0), plans.run(64, 1.0), plans.run(128)
    stopped = plans.run(64, 0.9, status=RunStatus.BEHIND)
    best = best_by_size(outcomes(plans.ok(), (slow, other, stopped, fast)))
    assert {size: o.id for size, o in best.items()} == {64: fast.id, 128: other.id}


def test_step_time_is_the_bench_s_then_the_curves_then_unknown() -> None:
    plan = plans.ok()
    assert step_times(plan)(128) == pytest.approx(plans.step_time_at(128) * 1.02)
    assert step_times(dataclasses.replace(plan, bench=None))(128) == pytest.approx(plans.step_time_at(128))
    assert step_times(dataclasses.replace(plan, bench=None, curves=None))(128) is None


def test_above_the_largest_micro_batch_accumulation_steps_follow_one_another() -> None:
    readings = (Reading(micro_batch_size=32, step_time_s=0.010, gradient_time_s=0.008),)
    bench = Bench(
        profile=HardwareProfile(name="", step_time_s=((16, 0.006), (32, 0.010))),
        readings=readings,
        split=None,
        largest_micro_batch_size=32,
        largest_verified=True,
    )
    plan = dataclasses.replace(plans.ok(), bench=bench)
    assert step_times(plan)(128) == pytest.approx(0.010 + 3 * 0.008)
    assert step_times(plan)(24) == pytest.approx(0.008)
    without = dataclasses.replace(bench, readings=())
    assert step_times(dataclasses.replace(plan, bench=without))(128) == pytest.approx(4 * 0.010)


def test_a_curve_is_read_on_logarithmic_scales_and_not_beyond_its_ends() -> None:
    curve = Curve(batch_size=(10, 1000), value=(1.0, 100.0), low=(1.0, 1.0), high=(1.0, 1.0))
    assert curve_at(curve, 100) == pytest.approx(10.0)
    assert curve_at(curve, 5) is None
    assert curve_at(curve, 2000) is None


@pytest.mark.parametrize("update_s", [0.0, 0.4e-3])
def test_the_page_and_the_plan_have_the_same_step_times(update_s: float) -> None:
    """At every batch size; at most 50 examples fit at once, which divides neither 128 nor 512."""
    bench = dataclasses.replace(searches.bench(update_s=update_s), largest_micro_batch_size=50)
    state = searches.search(bench=bench)
    plan = dataclasses.replace(plans.ok(), bench=bench)
    assert {128, 512} <= set(state.batch_sizes)
    for size in (*state.batch_sizes, 50, 100, 130):
        assert step_times(plan)(size) == pytest.approx(state.seconds_of(size))
