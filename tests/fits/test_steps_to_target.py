"""The law of steps against batch size and rate: its closed forms, recovery, calibration, and every kind of run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscope.fits.steps_to_target import Observation, Prior, StepsPosterior, _Likelihood, fit

from .laws import drawn_from, law, trained

LAWS = st.builds(
    lambda **parameters: law(**parameters),
    steps_min=st.floats(1, 1e5),
    critical=st.floats(1, 1e5),
    alpha=st.floats(0.5, 4),
    lr_max=st.floats(1e-5, 10),
    slope=st.floats(0.2, 1.2),
    shape=st.floats(0.1, 5),
    plateau=st.floats(1e-9, 1),
)
SIZES = st.integers(1, 100_000)


def steps(belief: StepsPosterior, batch_size: float, lr: float) -> float:
    return float(np.exp(belief.log_steps(batch_size, lr)[0]))


def best(belief: StepsPosterior, batch_size: float) -> tuple[float, float]:
    """Best rate and its steps."""
    return float(np.exp(belief.log_best_lr(batch_size)[0])), float(np.exp(belief.log_best_steps(batch_size)[0]))


@given(belief=LAWS, batch_size=SIZES, factor=st.floats(-8, 4))
def test_no_rate_is_better_than_the_best(belief: StepsPosterior, batch_size: int, factor: float) -> None:
    lr, least = best(belief, batch_size)
    assert steps(belief, batch_size, lr) == pytest.approx(least, rel=1e-9)
    assert steps(belief, batch_size, lr * math.exp(factor)) >= least * (1 - 1e-9)


@given(belief=LAWS, batch_size=SIZES)
def test_far_below_the_best_rate_steps_grow_as_one_over_rate(belief: StepsPosterior, batch_size: int) -> None:
    shape = math.exp(belief.draws[0, 5])
    lr, least = best(belief, batch_size)
    plateau = math.exp(belief.draws[0, 10])
    low = lr * math.exp(-12 / min(shape, 1.0) - plateau)
    expected = least * lr * math.exp(-plateau) / (1 + 1 / shape)
    assert steps(belief, batch_size, low) * low == pytest.approx(expected, rel=1e-4)


@given(belief=LAWS, batch_size=SIZES)
def test_beyond_the_edge_no_number_of_steps_suffices(belief: StepsPosterior, batch_size: int) -> None:
    shape = math.exp(belief.draws[0, 5])
    lr, least = best(belief, batch_size)
    edge = lr * (1 + shape) ** (1 / shape)
    over = edge * math.exp(math.exp(belief.draws[0, 10]))
    assert steps(belief, batch_size, 1.001 * over) >= 49 * least
    assert steps(belief, batch_size, 2 * over) > 1e4 * least
    assert steps(belief, batch_size, 0.8 * edge) < 20 * least


@given(belief=LAWS, batch_size=SIZES, share=st.floats(-0.5, 0.5))
def test_on_the_plateau_all_rates_are_equal(belief: StepsPosterior, batch_size: int, share: float) -> None:
    """At half its half width d, log x is 0.04 d, which costs (1 + p)/2 times its square."""
    lr, least = best(belief, batch_size)
    on_it = lr * math.exp(share * math.exp(belief.draws[0, 10]))
    assert steps(belief, batch_size, on_it) <= 1.01 * least


@pytest.mark.parametrize("x", [0.1, 0.5, 1.0, 1.5, 1.9])
def test_with_shape_one_the_rate_costs_what_mccandlish_equation_2_5_says(x: float) -> None:
    lr, least = best(law(shape=1.0), 64)
    assert steps(law(shape=1.0), 64, x * lr) == pytest.approx(least / (x * (2 - x)))


@given(batch_size=SIZES)
def test_with_exponents_one_the_law_is_mccandlish_equations_2_6_and_2_11(batch_size: int) -> None:
    lr, least = best(law(alpha=1.0, slope=1.0), batch_size)
    assert least == pytest.approx(100 * (1 + 64 / batch_size))
    assert lr == pytest.approx(0.4 / (1 + 64 / batch_size))


@given(belief=LAWS)
def test_limits_of_small_and_large_batches(belief: StepsPosterior) -> None:
    steps_min, critical, alpha, lr_max = np.exp(belief.draws[0, :4])
    slope = belief.draws[0, 4]
    reach = 10.0 ** (6 / alpha)
    large, small = critical * reach, critical / reach
    assert best(belief, large) == pytest.approx((lr_max, steps_min), rel=1e-4)
    assert best(belief, small) == pytest.approx((lr_max * reach**-slope, steps_min * reach), rel=1e-4)
    assert best(belief, critical)[1] == pytest.approx(steps_min * 2 ** (1 / alpha))


@given(belief=LAWS, batch_size=SIZES, factor=st.floats(1, 100))
def test_a_larger_batch_needs_fewer_steps_more_examples_and_a_larger_rate(
    belief: StepsPosterior, batch_size: int, factor: float
) -> None:
    (lr, least), (lr_after, after) = best(belief, batch_size), best(belief, factor * batch_size)
    assert after <= least * (1 + 1e-9)
    assert after * factor >= least * (1 - 1e-9)
    assert lr_after >= lr * (1 - 1e-9)


def test_predictions_are_made_for_every_draw_and_every_size() -> None:
    belief = fit([], Prior(), particles=32)
    assert belief.log_best_steps(8).shape == (32,)
    assert belief.log_best_lr([8, 16, 32]).shape == (32, 3)
    assert belief.log_steps([8, 16, 32], 0.1).shape == (32, 3)
    assert belief.spread([[8], [16]], [0.1, 0.2, 0.4]).shape == (32, 2, 3)
    spread = law(spread=0.1).spread(64, best(law(), 64)[0] * np.array([0.01, 1.0, 1.5, 100.0]))[0]
    assert spread[1] == pytest.approx(0.1)
    assert (np.diff(spread) > 0).all()


def simulate(
    truth: StepsPosterior,
    design: Sequence[tuple[int, float]],
    rng: np.random.Generator,
    *,
    limit: float = math.inf,
    outliers: float = 0.0,
) -> list[Observation]:
    """One run for each pair, censored at `limit` steps."""
    seen: list[Observation] = []
    for batch_size, lr in design:
        spread = 1.5 if rng.random() < outliers else truth.spread(batch_size, lr)[0]
        needed = math.exp(min(truth.log_steps(batch_size, lr)[0] + spread * rng.standard_normal(), 600.0))
        kind: Any = "reached" if needed < limit else "censored"
        seen.append(Observation(batch_size=batch_size, lr=lr, steps=min(needed, limit), kind=kind))
    return seen


KNOWN = law(steps_min=80, critical=100, alpha=1.3, lr_max=0.5, slope=0.8, shape=0.5, spread=0.1, plateau=0.3)
DESIGN = [(size, factor * best(KNOWN, size)[0]) for size in (8, 32, 128, 512) for factor in (0.4, 0.9, 1.6)]


def test_known_parameters_are_recovered() -> None:
    """Measured: best steps within 7 %, best rates within 26 %, B_c within a factor of 1.2."""
    found = fit(simulate(KNOWN, DESIGN, np.random.default_rng(0)), Prior())
    for size in (8, 32, 128, 512):
        lr, least = best(KNOWN, size)
        assert np.exp(np.median(found.log_best_steps(size))) == pytest.approx(least, rel=0.15)
        assert np.exp(np.median(found.log_best_lr(size))) == pytest.approx(lr, rel=0.3)
    critical, exponent = found.critical_batch_size(), found.knee_exponent()
    assert critical.n == exponent.n == len(DESIGN)
    assert critical.value == pytest.approx(100, rel=0.5)
    for estimate, truth in ((critical, 100), (exponent, 1.3)):
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low < truth < estimate.high


def half_way(truth: StepsPosterior, pairs: Sequence[tuple[int, float]], rng: np.random.Generator) -> list[Observation]:
    """One run for each pair, paused at the milestone, or given up where it takes 1000 steps."""
    seen: list[Observation] = []
    for size, lr in pairs:
        needed, _ = trained(truth, size, lr, rng)
        kind: Any = "reached" if needed < 1000 else "censored"
        seen.append(Observation(batch_size=size, lr=lr, steps=min(needed, 1000.0), kind=kind, to="milestone"))
    return seen


def finished(truth: StepsPosterior, pairs: Sequence[tuple[int, float]], rng: np.random.Generator) -> list[Observation]:
    return simulate(truth, pairs, rng, limit=3000.0, outliers=0.03)


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(finished, id="to the target"),
        pytest.param(half_way, id="to the milestone only", marks=pytest.mark.slow),
    ],
)
def test_intervals_of_ninety_percent_hold_nine_times_in_ten(made: Any) -> None:
    """Truths drawn from the prior, runs at pairs that were fixed beforehand.

    300 truths gave, for B_c, the best steps and rate, and the next run to the target and to the milestone: 0.86, 0.93,
    0.90, 0.86 and 0.89 with runs to the target; 0.87, 0.88, 0.89, 0.87 and 0.86 with runs to the milestone.
    """
    prior = Prior(log_lr_max=(-2.0, 1.0), log_steps_min=(6.0, 1.0))
    design = [(16, 0.01), (64, 0.05), (256, 0.1), (64, 0.2), (512, 0.4), (32, 0.03)]
    rng = np.random.default_rng(77)
    hits = dict.fromkeys(("critical batch size", "best steps", "best rate", "next run", "next run's milestone"), 0)
    trials = 40
    for seed in range(trials):
        truth = drawn_from(prior, rng)
        found = fit(made(truth, design, rng), prior, particles=128, seed=seed)
        to_milestone, to_target = trained(truth, 64, 0.07, rng)
        noise = rng.standard_normal(128)
        values = (
            (found.draws[:, 1], truth.draws[0, 1]),
            (found.log_best_steps(96), truth.log_best_steps(96)[0]),
            (found.log_best_lr(96), truth.log_best_lr(96)[0]),
            (found.log_steps(64, 0.07) + found.spread(64, 0.07) * noise, math.log(to_target)),
            (found.log_milestone_steps(64, 0.07) + found.milestone_spread(64, 0.07) * noise, math.log(to_milestone)),
        )
        for name, (draws, true) in zip(hits, values, strict=True):
            low, high = np.quantile(draws, (0.05, 0.95))
            hits[name] += int(low <= true <= high)
    assert all(0.75 <= hit / trials <= 1.0 for hit in hits.values()), hits


BASE = [
    Observation(batch_size=size, lr=lr, steps=steps(KNOWN, size, lr), kind="reached")
    for size, lr in ((32, 0.1), (32, 0.05), (128, 0.2))
]


def median_rate(seen: Sequence[Observation], batch_size: int = 32) -> float:
    return float(np.exp(np.median(fit(seen, Prior()).log_best_lr(batch_size))))


def median_steps(seen: Sequence[Observation], batch_size: int, lr: float, quantile: float = 0.5) -> float:
    return float(np.exp(np.quantile(fit(seen, Prior()).log_steps(batch_size, lr), quantile)))


def test_a_diverged_run_lowers_the_best_rate() -> None:
    diverged = Observation(batch_size=32, lr=0.2, steps=5, kind="diverged")
    assert median_rate([*BASE, diverged]) < 0.9 * median_rate(BASE)


def test_a_censored_run_needs_at_least_the_steps_it_had_unless_it_is_an_outlier() -> None:
    """At twice the steps expected the median of 77 goes to 147; at three times an outlier is as likely."""
    free = median_steps(BASE, 512, 0.4)
    late = Observation(batch_size=512, lr=0.4, steps=2 * free, kind="censored")
    early = Observation(batch_size=512, lr=0.4, steps=0.1 * free, kind="censored")
    assert median_steps([*BASE, late], 512, 0.4) > 1.3 * free
    assert median_steps([*BASE, late], 512, 0.4, 0.75) > 2 * free
    assert median_steps([*BASE, early], 512, 0.4) == pytest.approx(free, rel=0.2)


def test_a_lagging_run_counts_as_its_steps_and_less_surely_than_one_that_arrived() -> None:
    free = median_steps(BASE, 512, 0.4)
    lagging = Observation(batch_size=512, lr=0.4, steps=2 * free, kind="lagging")
    reached = Observation(batch_size=512, lr=0.4, steps=2 * free, kind="reached")
    after = {o.kind: median_steps([*BASE, o], 512, 0.4) for o in (lagging, reached)}
    width = {o.kind: fit([*BASE, o], Prior(), particles=1024).log_steps(512, 0.4).std() for o in (lagging, reached)}
    assert free < after["lagging"] < 2.3 * free
    assert abs(math.log(after["reached"] / (2 * free))) < abs(math.log(after["lagging"] / (2 * free))) + 0.1
    assert width["reached"] < width["lagging"]


def test_one_outlier_moves_the_best_steps_by_less_than_a_fifth() -> None:
    seen = simulate(KNOWN, DESIGN, np.random.default_rng(2))
    spoilt = [*seen, Observation(batch_size=128, lr=0.2, steps=20 * steps(KNOWN, 128, 0.2), kind="reached")]
    clean, moved = (np.median(fit(s, Prior()).log_best_steps([32, 128, 512]), axis=0) for s in (seen, spoilt))
    np.testing.assert_allclose(np.exp(moved - clean), 1.0, atol=0.2)


def test_without_runs_the_belief_is_the_prior() -> None:
    draws = fit([], Prior(), particles=4096).draws
    mean, sd = Prior().arrays()
    np.testing.assert_allclose((draws.mean(axis=0) - mean) / sd, 0.0, atol=0.08)
    np.testing.assert_allclose(draws.std(axis=0), sd, rtol=0.08)


def test_a_hint_at_the_critical_batch_size_is_weighed_by_its_precision() -> None:
    wide = Prior(log_critical_batch_size=(math.log(100), 1.0)).with_critical_batch_size(1000, math.e)
    assert wide.log_critical_batch_size == pytest.approx((math.log(100 * 10**0.5), 0.5**0.5))
    firm = Prior().with_critical_batch_size(1000, 1.01)
    assert math.exp(firm.log_critical_batch_size[0]) == pytest.approx(1000, rel=0.01)


# --- runs that were paused at the milestone --------------------------------------------------------------------


@given(batch_size=SIZES)
def test_the_way_to_the_milestone_follows_the_law_with_less_of_everything(batch_size: int) -> None:
    """S_min 3 times, B_c 2 times and the best rate 1.1 times smaller."""
    there = law(steps_min=100 / 3, critical=32, lr_max=0.4 / 1.1)
    for lr in (0.01, 0.1, 0.3):
        assert law().log_milestone_steps(batch_size, lr) == pytest.approx(there.log_steps(batch_size, lr))


def normal(residual: float, spread: float) -> float:
    """Density of an error with outliers, without the constant."""
    return 0.97 / spread * math.exp(-0.5 * (residual / spread) ** 2) + 0.03 / 1.5 * math.exp(
        -0.5 * (residual / 1.5) ** 2
    )


def beyond(log_bound: float, spread: float) -> float:
    """Probability of an error above a bound, with outliers."""
    return 0.97 * 0.5 * math.erfc(log_bound / spread / math.sqrt(2)) + 0.015


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ({"kind": "reached", "steps": 300.0}, lambda w, f, s: normal(math.log(300) - w, s)),
        ({"kind": "censored", "steps": 300.0}, lambda w, f, s: beyond(math.log(300) - w, s)),
        ({"kind": "lagging", "steps": 300.0}, lambda w, f, s: normal(math.log(300) - w, math.hypot(s, 0.2))),
        ({"kind": "reached", "steps": 90.0, "to": "milestone"}, lambda w, f, s: normal(math.log(90) - f, 0.65 * s)),
        ({"kind": "censored", "steps": 90.0, "to": "milestone"}, lambda w, f, s: beyond(math.log(90) - f, 0.65 * s)),
        (
            {"kind": "reached", "steps": 300.0, "milestone_steps": 90.0},
            lambda w, f, s: normal(math.log(90) - f, 0.65 * s) * normal(math.log(300 / 90) - (w - f), s),
        ),
        (
            {"kind": "censored", "steps": 300.0, "milestone_steps": 90.0},
            lambda w, f, s: normal(math.log(90) - f, 0.65 * s) * beyond(math.log(300 / 90) - (w - f), s),
        ),
    ],
)
def test_the_likelihood_of_one_run_by_hand(seen: dict[str, Any], expected: Any) -> None:
    """At half the best rate with shape 1: S = S* ÷ (0.5 (2 - 0.5)), and σ is e^(0.5 log 0.5) times that at the best."""
    truth = law()
    whole = math.log(100 * 2 / (0.5 * 1.5))
    early = 0.1 / (0.4 / 1.1 / 1.5)
    first = math.log(100 / 3 * 1.5 / (early * (2 - early)))
    spread = 0.1 * math.sqrt(0.5)
    likelihood = _Likelihood.of([Observation(batch_size=64, lr=0.1, **seen)])
    found = likelihood(truth.draws)[0]
    assert found == pytest.approx(math.log(expected(whole, first, spread)), abs=1e-6)


def test_known_parameters_are_recovered_from_runs_that_went_to_the_milestone_only() -> None:
    """Measured on four draws: milestones within 6 %, best steps within 12 %, with an interval of a factor of 4.9.

    What stays open is how much further the target is: e^1.1 times, give or take e^0.4.
    """
    found = fit(half_way(KNOWN, DESIGN, np.random.default_rng(0)), Prior())
    for size in (8, 32, 128, 512):
        for lr in (0.5 * best(KNOWN, size)[0], best(KNOWN, size)[0]):
            expected = KNOWN.log_milestone_steps(size, lr)[0]
            assert np.median(found.log_milestone_steps(size, lr)) == pytest.approx(expected, abs=0.15)
    middle, wide = (np.quantile(found.log_best_steps(64), (0.05, 0.95)) for found in (found, fit([], Prior())))
    assert middle[0] < KNOWN.log_best_steps(64)[0] < middle[1]
    assert middle[1] - middle[0] < 0.25 * (wide[1] - wide[0])
