"""From stored runs to observations, prior, target and price."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from batchscope.fits.curves import steps_to_target
from batchscope.fits.step_time import fit_step_time
from batchscope.fits.steps_to_target import Prior
from batchscope.fits.targets import choose_target, gets_further
from batchscope.search.law import fit_joint, prior_from
from batchscope.search.observations import curve_on_clock
from batchscope.store.aims import default_metric
from batchscope.store.records import Estimate, Metric, RateRange, RunStatus, Target
from batchscope.store.runs import StoredRun

from . import searches
from .searches import TARGET, TRIED, run, search, step_time, true_steps

REFERENCE = run(64, 0.2)


def behind(batch_size: int, lr: float, *, most: int) -> StoredRun:
    return run(batch_size, lr, most=most, status=RunStatus.BEHIND, purpose="probe")


def evaluations(values: Sequence[float | None], metric: str = "val_loss") -> list[dict[str, Any]]:
    return [{"kind": "evaluation", "step": 2**i, "metrics": {metric: value}} for i, value in enumerate(values)]


def test_the_first_passage_of_a_run_is_its_steps_to_target() -> None:
    assert steps_to_target(REFERENCE.rows, TARGET) == pytest.approx(true_steps(64, 0.2))
    assert steps_to_target(run(64, 0.2, most=100).rows, TARGET) is None
    assert steps_to_target(
        [*REFERENCE.rows[:5], {"kind": "noise", "step": 9}, *REFERENCE.rows[5:]], TARGET
    ) == pytest.approx(true_steps(64, 0.2))


def test_a_curve_on_the_clock_ends_at_the_target() -> None:
    curve = curve_on_clock(REFERENCE, TARGET, 0.1)
    assert curve[-1][0] == pytest.approx(0.1 * REFERENCE.rows[-1]["step"])
    assert [TARGET.met_by(value) for _, value in curve] == [False] * (len(curve) - 1) + [True]


@pytest.mark.parametrize("status", [RunStatus.OVERFIT, RunStatus.OUT_OF_STEPS, RunStatus.OUT_OF_TIME])
def test_a_run_that_ended_short_of_the_target_is_censored_where_it_ended(status: RunStatus) -> None:
    (seen,) = search([run(64, 0.01, most=70, status=status)]).observations
    assert (seen.kind, seen.steps, seen.batch_size, seen.lr) == ("censored", 70, 64, 0.01)


@pytest.mark.parametrize("status", [RunStatus.DIVERGED, RunStatus.STALLED])
def test_a_run_that_diverged_or_stalled_shows_that_its_learning_rate_is_too_high(status: RunStatus) -> None:
    (seen,) = search([run(64, 5.0, most=60, status=status)]).observations
    assert seen.kind == "diverged"


@pytest.mark.parametrize(("batch_size", "lr"), [(64, 0.05), (16, 0.02), (256, 0.05)])
def test_a_run_stopped_behind_counts_with_the_steps_at_its_lag(batch_size: int, lr: float) -> None:
    """All made-up curves are one curve stretched in time, so the lag tells the true steps, whatever the batch size."""
    slow = behind(batch_size, lr, most=int(0.4 * true_steps(batch_size, lr)))
    seen = search([REFERENCE, slow]).observations[1]
    assert seen.kind == "lagging"
    assert seen.steps == pytest.approx(true_steps(batch_size, lr), rel=0.1)


def test_a_run_stopped_behind_is_censored_where_its_lag_is_unknown() -> None:
    slow = behind(64, 0.05, most=100)
    assert search([slow]).observations[0].kind == "censored"  # there is nothing to compare it with
    close = behind(64, 0.19, most=150)
    assert search([REFERENCE, close]).observations[1].kind == "censored"  # it did not lag so far


MILESTONE = dataclasses.replace(TARGET, value=TARGET.value * (1 + 0.1 * math.log(3)))
"""Passed after a third of the steps."""


def paused(batch_size: int, lr: float) -> StoredRun:
    return run(batch_size, lr, most=math.ceil(true_steps(batch_size, lr) / 3 * 1.04), status=RunStatus.PAUSED)


def test_a_paused_run_counts_with_its_steps_to_the_milestone() -> None:
    (seen,) = search([paused(64, 0.2)], milestone=MILESTONE).observations
    assert (seen.kind, seen.to, seen.milestone_steps) == ("reached", "milestone", None)
    assert seen.steps == pytest.approx(true_steps(64, 0.2) / 3)


def test_a_run_that_went_on_counts_with_both_ways() -> None:
    (seen,) = search([REFERENCE], milestone=MILESTONE).observations
    assert (seen.kind, seen.to) == ("reached", "target")
    assert seen.steps == pytest.approx(true_steps(64, 0.2))
    assert seen.milestone_steps == pytest.approx(true_steps(64, 0.2) / 3)


def test_a_run_that_lagged_on_the_way_to_the_milestone_counts_with_its_lag_there() -> None:
    slow = behind(16, 0.02, most=int(0.2 * true_steps(16, 0.02)))
    for reference in (paused(64, 0.2), REFERENCE):
        seen = search([reference, slow], milestone=MILESTONE).observations[1]
        assert (seen.kind, seen.to) == ("lagging", "milestone")
        assert seen.steps == pytest.approx(true_steps(16, 0.02) / 3, rel=0.1)


@pytest.mark.parametrize(
    ("most", "status", "kind", "to"),
    [
        (40, RunStatus.OUT_OF_TIME, "censored", "milestone"),
        (40, RunStatus.DIVERGED, "diverged", "milestone"),
        (100, RunStatus.OUT_OF_TIME, "censored", "target"),
        (100, RunStatus.STALLED, "diverged", "target"),
        (40, RunStatus.PAUSED, "censored", "milestone"),  # at a limit in steps, not at the milestone
    ],
)
def test_a_run_that_ended_short_of_the_milestone_says_so_of_the_milestone(
    most: int, status: RunStatus, kind: str, to: str
) -> None:
    """At (64, 0.2) the milestone takes 67 steps, the target 200."""
    (seen,) = search([run(64, 0.2, most=most, status=status)], milestone=MILESTONE).observations
    assert (seen.kind, seen.to, seen.steps) == (kind, to, most)
    assert (seen.milestone_steps is not None) == (to == "target")


def test_what_a_run_stands_behind_is_preferred_by_what_another_run_would_cost() -> None:
    """A finished run by one training, one that waits by what is left of it, over all trainings; the rest has failed."""
    runs = [REFERENCE, paused(128, 0.27), behind(16, 0.02, most=300)]
    found = search(runs, milestone=MILESTONE, trainings=10)
    assert found.preferred == pytest.approx({(64, 0.2): 0.1, (128, 0.27): 0.04})
    assert (found.candidate.batch_size, found.candidate.lr) != (16, 0.02)


def test_unfinished_runs_and_runs_with_a_decaying_learning_rate_say_nothing() -> None:
    decayed = run(64, 0.2, steps=120.0, purpose="horizon", schedule="linear")
    found = search([searches.without_result(REFERENCE), decayed])
    assert found.observations == []
    assert found.reached == {}


def test_repeated_runs_of_a_pair_are_kept_apart() -> None:
    found = search([REFERENCE, run(64, 0.2, steps=230.0, seed=1)])
    assert found.reached[64, 0.2] == pytest.approx([200.0, 230.0])
    fastest = found.cheapest()
    assert fastest is not None
    assert fastest.id == REFERENCE.id


def ranged(normalised: bool) -> RateRange:
    return RateRange(
        batch_size=64, ceiling_lr=3.0, broke=True, normalised=normalised, lrs=(3.0,), losses=(None,), steps=9
    )


def noise_scale(value: float | None) -> Estimate:
    return Estimate(value=value, low=1.0, high=None, n=9, unit="examples", method="")


def test_the_range_test_is_a_ceiling_and_names_the_law_of_the_learning_rate() -> None:
    plain, adaptive = prior_from(ranged(False), None), prior_from(ranged(True), None)
    for prior in (plain, adaptive):
        assert 0.02 * 3.0 < math.exp(prior.log_lr_max[0]) < 0.3 * 3.0
        assert prior.log_critical_batch_size == Prior().log_critical_batch_size
    assert adaptive.slope[0] == pytest.approx(0.5)  # Malladi et al. 2022
    assert plain.slope[0] > 0.75  # McCandlish et al. 2018, equation 2.6, is 1
    assert prior_from(None, None) == Prior()


@pytest.mark.parametrize("value", [None, 0.2])
def test_a_noise_scale_without_meaning_leaves_the_prior_alone(value: float | None) -> None:
    assert prior_from(ranged(False), noise_scale(value)) == prior_from(ranged(False), None)


def test_f44_the_noise_scale_is_a_hint_and_never_the_answer() -> None:
    """A hint a hundred times too large moves the prior by less than its own uncertainty, and the runs overrule it."""
    before = Prior().log_critical_batch_size
    mean, sd = prior_from(None, noise_scale(100 * searches.CRITICAL)).log_critical_batch_size
    assert before[0] < mean < math.log(100 * searches.CRITICAL)
    assert math.log(3.5) < sd < before[1]
    seen = search().observations
    misled = fit_joint(seen, prior_from(ranged(False), noise_scale(100 * searches.CRITICAL)))
    led = fit_joint(seen, prior_from(ranged(False), noise_scale(searches.CRITICAL)))
    steps = [np.exp(np.median(posterior.log_best_steps([32, 64, 128]), axis=0)) for posterior in (misled, led)]
    np.testing.assert_allclose(steps[0], steps[1], rtol=0.12)


def test_the_posterior_is_a_function_of_observations_and_seed() -> None:
    seen = search().observations
    first, again, other = (fit_joint(seen, Prior(), seed=seed).draws for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_chosen_target_leaves_a_twentieth_of_the_improvement() -> None:
    down = choose_target(evaluations([2.5, 1.0, 0.5, 0.6]), Metric.parse("val_loss"))
    assert (down.metric, down.mode, down.value) == ("val_loss", "min", 0.6)
    up = choose_target(evaluations([0.1, 0.5, 0.9, None], "val_accuracy"), Metric.parse("val_accuracy"))
    assert (up.mode, up.value) == ("max", pytest.approx(0.86))


def test_the_metric_to_aim_at_does_not_hang_on_the_order_in_which_a_task_names_them() -> None:
    """Rows read back from disk are sorted by name; a search that goes on must aim at what it aimed at."""
    rows = [
        {"kind": "evaluation", "step": i, "metrics": {"val_f1": 0.1 * i, "val_accuracy": 0.2 * i}} for i in (0, 1, 2)
    ]
    read_back = json.loads(json.dumps(rows, sort_keys=True))
    first, again = (default_metric(each[0]["metrics"]) for each in (rows, read_back))
    assert first == again
    assert choose_target(rows, first) == choose_target(read_back, again)


def test_no_target_where_nothing_improved() -> None:
    with pytest.raises(ValueError, match=r"did not improve on its first value 2\.5 in 4 steps"):
        choose_target(evaluations([2.5, 2.6, 2.7]), Metric.parse("val_loss"))


def test_on_a_plateau_no_run_gets_further() -> None:
    """Both have hardly begun their way from 1 to 0.1; without the way, the larger improvement is further."""
    higher, lower = evaluations([1.0, 0.99, 0.995]), evaluations([1.0, 0.985, 0.98])
    loss, target = Metric.parse("val_loss"), Target(metric="val_loss", value=0.1, mode="min")
    assert gets_further(lower, higher, loss)
    assert not gets_further(lower, higher, loss, towards=target)
    assert gets_further(evaluations([1.0, 0.9, 0.7]), higher, loss, towards=target)


def test_the_price_counts_every_step_on_the_hardware_that_the_answer_is_for() -> None:
    steps = {pair: run(*pair).result for pair in TRIED}
    trained = sum(result.steps * step_time(b) for (b, _), result in steps.items() if result is not None)
    assert search().device_seconds() == pytest.approx(0.25 + 20 * step_time(64) + trained)
    assert search(bench_counts=False, rate_range=None).device_seconds() == pytest.approx(trained)
    unfinished = searches.without_result(REFERENCE)
    price = search([unfinished], bench_counts=False, rate_range=None).device_seconds()
    assert price == pytest.approx(REFERENCE.rows[-1]["step"] * step_time(64))


def test_a_noise_reading_costs_what_its_smaller_parts_cost_more() -> None:
    """Two groups of 32 instead of one of 64, the optimizer's part paid once: 2 (t(32) - u) + u - t(64)."""
    bench = searches.bench(update_s=0.4e-3)
    noise = {"kind": "noise", "step": 5, "groups": 2, "group_size": 32}
    noisy = dataclasses.replace(REFERENCE, rows=(*REFERENCE.rows, noise, noise))
    prices = [search([r], bench=bench).device_seconds() for r in (REFERENCE, noisy)]
    times = fit_step_time(bench.profile.step_time_s, update_s=0.4e-3)
    extra = 2 * (times.seconds(32) - 0.4e-3) + 0.4e-3 - times.seconds(64)
    assert extra > 0
    assert prices[1] - prices[0] == pytest.approx(2 * extra)


def test_the_examples_of_a_search_include_the_range_test() -> None:
    seen = sum(r.result.examples for r in search().runs if r.result is not None)
    assert search().examples_seen() == seen + 20 * 64
