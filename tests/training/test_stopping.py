"""The course of a run, and the rules that end it, on made-up courses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscope.store.records import RunStatus, Target
from batchscope.training.stopping import BehindRule, History, PlateauRule, RoseRule, StallRule, lag_behind

DOWN, UP = Target(metric="m", value=0.5, mode="min"), Target(metric="m", value=0.5, mode="max")


def course(target: Target, values: Sequence[tuple[int, float]], losses: Sequence[float] | None = None) -> History:
    history = History(target=target)
    for i, (step, value) in enumerate(values):
        history.add(step, losses[i] if losses else None, {"m": value})
    return history


@given(a=st.floats(0.01, 10), exponent=st.floats(0.1, 2), before=st.integers(1, 1000), gap=st.integers(1, 100))
def test_first_passage_is_exact_on_a_curve_linear_in_log_steps(
    a: float, exponent: float, before: int, gap: int
) -> None:
    """m(s) = a - e ln(s) crosses the target at exp((a - target) / e), wherever the two evaluations around it stand."""
    after = before + gap
    value = {s: a - exponent * math.log(s) for s in (before, after)}
    target = Target(metric="m", value=(value[before] + value[after]) / 2, mode="min")
    history = course(target, [(0, a + 1), (before, value[before]), (after, value[after])])
    assert history.reached
    assert history.steps_to_target == pytest.approx(math.exp((a - target.value) / exponent), rel=1e-6)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([(0, 2.0), (1, 0.4)], 1.0),  # nothing lies before the first step: no interpolation from step 0
        ([(0, 2.0), (10, 1.0), (20, 0.5)], 20.0),
        ([(0, 2.0), (10, 0.75), (40, 0.25)], 20.0),  # half-way, in log steps
        ([(0, 2.0), (10, math.nan), (20, 0.4)], 20.0),
        ([(0, 2.0), (10, 1.0), (20, 0.51)], None),
        ([(0, 0.4)], None),  # before the first step nothing is reached
    ],
)
def test_steps_to_target(values: list[tuple[int, float]], expected: float | None) -> None:
    assert course(DOWN, values).steps_to_target == (expected if expected is None else pytest.approx(expected))
    mirrored = [(step, 1.0 - value) for step, value in values]
    assert course(UP, mirrored).steps_to_target == (expected if expected is None else pytest.approx(expected))


def test_the_best_evaluation() -> None:
    values = [(0, math.nan), (1, 3.0), (2, 1.0), (3, 2.0), (4, math.nan), (5, 1.0)]
    assert course(DOWN, values).best_index == 2
    assert course(UP, values).best_index == 1


@pytest.mark.parametrize(
    ("value", "loss", "diverged"),
    [(1.0, 1.0, False), (1.0, None, False), (math.nan, 1.0, True), (math.inf, 1.0, True), (1.0, math.nan, True)],
)
def test_divergence(value: float, loss: float | None, diverged: bool) -> None:
    history = History(target=DOWN)
    history.add(3, loss, {"m": value})
    assert history.diverged == diverged


def test_a_run_without_improvement_is_stalled_or_overfitted() -> None:
    """The best evaluation is at step 100; half of the run later it ends, and the training loss decides its name."""
    rule = StallRule(patience=0.5)
    values = [(0, 2.0), (50, 1.5), (100, 1.0), (150, 1.1), (199, 1.1), (200, 1.1)]
    flat, falling = [1.0] * 6, [2.0, 1.5, 1.0, 0.9, 0.8, 0.69]
    assert rule(course(DOWN, values[:5], flat[:5])) is None
    assert rule(course(DOWN, values, flat)) is RunStatus.STALLED
    assert rule(course(DOWN, values, falling)) is RunStatus.OVERFIT
    assert rule(course(DOWN, values, [*falling[:5], 0.71])) is RunStatus.STALLED


def test_short_runs_never_stall() -> None:
    rule = StallRule(patience=0.5, least_steps=50)
    waited = [(0, 2.0), (1, 1.0), (20, 1.5), (40, 1.5)]
    assert rule(course(DOWN, [*waited, (50, 1.5)])) is None
    assert rule(course(DOWN, [*waited, (51, 1.5)])) is RunStatus.STALLED


def test_a_run_that_has_not_begun_its_way_waits_longer() -> None:
    """From 2.5 the target is 2 away: 2.4 is no beginning, 2.2 is one."""
    rule = StallRule(patience=0.5)

    def stalls(best: float, step: int) -> bool:
        way = [(0, 2.5), (10, best), *((s, 2.5) for s in range(20, step + 1, 10))]
        return rule(course(DOWN, way)) is RunStatus.STALLED

    assert [stalls(2.2, step) for step in (50, 60)] == [False, True]
    assert [stalls(2.4, step) for step in (60, 200, 210)] == [False, False, True]


def test_evaluations_that_lie_far_apart_are_no_wait() -> None:
    """From one to the next more than half of the run goes by; it takes three without a better value."""
    rule, worse = StallRule(patience=0.5), [(0, 1.0), (100, 1.2), (200, 1.1), (300, 1.05)]
    assert [rule(course(DOWN, worse[:n])) for n in (2, 3)] == [None, None]
    assert rule(course(DOWN, worse)) is RunStatus.STALLED


def reference(target: Target = DOWN) -> list[tuple[float, float]]:
    """A finished run whose metric is 2 / time, reaching 0.5 at time 4; mirrored for a metric that grows."""
    points = [(0.0, 3.0), *((t / 2, 4 / t) for t in range(1, 9))]
    return points if target.mode == "min" else [(t, 1.0 - v) for t, v in points]


@pytest.mark.parametrize("target", [DOWN, UP])
@pytest.mark.parametrize(("slower", "ends"), [(1.0, False), (1.4, False), (1.9, True), (3.0, True)])
def test_a_run_that_lags_by_more_than_the_factor_ends(target: Target, slower: float, ends: bool) -> None:
    """The same curve, stretched in time by `slower`; steps take 0.1 s."""
    rule = BehindRule(reference=reference(target), step_time=0.1, end=1.5, lag=1.5, falls=0.0)
    history = History(target=target)
    statuses: list[RunStatus | None] = []
    for step in range(1, int(40 * min(slower, 1.45))):
        value = 2 * slower / (step * 0.1)
        history.add(step, None, {"m": value if target.mode == "min" else 1.0 - value})
        statuses.append(rule(history))
    assert (RunStatus.BEHIND in statuses) == ends


def test_the_lag_is_a_ratio_of_times() -> None:
    history = course(DOWN, [(0, 3.0), (30, 1.0), (40, 1.3)])
    lags = [lag_behind(reference(), 0.1, history, index) for index in (1, 2, -1)]
    assert lags[0] == pytest.approx(3.0 / 2.0)  # 1.0 at time 3; the reference had it at time 2
    assert lags[1:] == [pytest.approx(4.0 / 2.0)] * 2  # its best so far counts, not the last value


def test_a_run_as_long_as_the_end_allows_ends_whatever_its_metric() -> None:
    rule = BehindRule(reference=reference(), step_time=0.1, end=1.5, lag=2.0)
    assert rule(course(DOWN, [(0, 3.0), (59, 0.51)])) is None
    assert rule(course(DOWN, [(0, 3.0), (60, 0.51)])) is RunStatus.BEHIND


def test_one_bad_evaluation_is_no_lag() -> None:
    """Only `patience` evaluations in a row count, and none in the first fifth."""
    rule = BehindRule(reference=reference(), step_time=0.1, end=1.5, lag=1.5, falls=0.0)
    assert rule(course(DOWN, [(0, 3.0), (2, 3.0), (6, 3.0), (13, 3.0)])) is None
    assert rule(course(DOWN, [(0, 3.0), (10, 2.0), (15, 1.4), (30, 1.4)])) is None
    assert rule(course(DOWN, [(0, 3.0), (20, 2.0), (22, 2.0), (24, 2.0)])) is RunStatus.BEHIND


@pytest.mark.parametrize(("last", "ends"), [(12, False), (30, False), (38, True)])
def test_a_run_that_begins_slowly_may_lag_more(last: int, ends: bool) -> None:
    """Always 2.5 times slower than the reference: at a share s of its length 2 / s are allowed."""
    fine = [(0.0, 3.0), *((t / 20, 40 / t) for t in range(1, 81))]
    rule = BehindRule(reference=fine, step_time=0.1, end=2.0, lag=2.0)
    history = course(DOWN, [(0, 3.0), *((step, 5.0 / (0.1 * step)) for step in range(8, last + 1, 2))])
    assert (rule(history) is RunStatus.BEHIND) == ends


@pytest.mark.parametrize("target", [DOWN, UP])
def test_the_plateau_is_where_the_last_stretch_gains_little(target: Target) -> None:
    """m(s) = exp(-s / 40): since 0.6 s it has gained exp(-0.6 s / 40) - exp(-s / 40) of 1 - exp(-s / 40) in all."""

    def values(last: int) -> list[tuple[int, float]]:
        falling = [(s, math.exp(-s / 40)) for s in range(0, last + 1)]
        return falling if target.mode == "min" else [(s, -v) for s, v in falling]

    share = {s: (math.exp(-0.6 * s / 40) - math.exp(-s / 40)) / (1 - math.exp(-s / 40)) for s in (150, 400)}
    assert share[150] > 0.02 > share[400]
    rule = PlateauRule()
    assert rule(course(target, values(150))) is None
    assert rule(course(target, values(400))) is RunStatus.LEVELLED_OFF
    assert rule(course(target, [(0, 1.0), (20, 1.0), (49, 1.0)])) is None  # too short to tell


def test_a_target_that_takes_several_evaluations_in_a_row() -> None:
    """It is reached at the first of three in a row, between that one and the one before, once the third is there."""
    thrice = replace(DOWN, confirm=3)
    values = [(0, 0.1), (10, 1.0), (20, 0.4), (40, 0.6), (80, 0.4), (90, 0.5), (100, 0.3)]
    reached = [course(thrice, values[:n]).reached for n in range(1, 8)]
    assert reached == [False] * 6 + [True]
    assert course(thrice, values).steps_to_target == pytest.approx(40 * 2**0.5)
    assert course(thrice, values[:6]).steps_to_target is None
    assert course(DOWN, values[:3]).reached


def test_a_lost_run_is_known_by_the_loss_at_its_start() -> None:
    rule, bad = RoseRule(), [2.0, 30.0, 40.0, 50.0]

    def lost(name: str, first: float, losses: Sequence[float]) -> bool:
        history = History(target=Target(metric=name, value=0.0, mode="min"))
        for step, loss in enumerate([None, *losses]):
            history.add(step, loss, {name: first})
        return rule(history) is RunStatus.DIVERGED

    assert lost("val_loss", 2.0, bad)
    assert not lost("val_loss", 20.0, bad)
    assert lost("val_rmse", 20.0, bad)  # no loss by its exact name: the training loss up to the first evaluation
    assert not lost("val_rmse", 20.0, bad[1:])
