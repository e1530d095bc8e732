"""Prechelt's criteria against their definitions, read slowly; patience against the rule that ends real runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscope.fits.early_stopping import Rule, generalization_loss, stop_index, training_progress
from batchscope.store.records import Target
from batchscope.training.stopping import History, PatienceRule

ERRORS = st.floats(0.01, 10.0)
CURVES = st.lists(st.tuples(ERRORS, ERRORS), min_size=1, max_size=40)


def first(true: Sequence[bool]) -> int | None:
    return next((t for t, holds in enumerate(true) if holds), None)


def gl(errors: Sequence[float], t: int) -> float:
    return 100 * (errors[t] / min(errors[: t + 1]) - 1)


def progress(training: Sequence[float], t: int, k: int) -> float:
    strip = [training[t - i] for i in range(k)]
    return 1000 * (sum(strip) / (k * min(strip)) - 1)


def up(errors: Sequence[float], t: int, s: int, k: int) -> bool:
    """The recursion of the paper: UP_s stops at t if UP_(s-1) stops at t - k and the error has risen since."""
    if t < k or t % k:
        return False
    return errors[t] > errors[t - k] and (s == 1 or up(errors, t - k, s - 1, k))


@given(curve=CURVES, alpha=st.floats(0.1, 100.0))
def test_gl_is_the_first_epoch_above(curve: list[tuple[float, float]], alpha: float) -> None:
    errors = [a for a, _ in curve]
    assert generalization_loss(errors) == pytest.approx([gl(errors, t) for t in range(len(errors))])
    assert stop_index(Rule(kind="GL", amount=alpha), errors) == first(
        [gl(errors, t) > alpha for t in range(len(errors))]
    )


@given(curve=CURVES, s=st.integers(1, 4), k=st.integers(1, 5))
def test_up_is_the_recursion(curve: list[tuple[float, float]], s: int, k: int) -> None:
    errors = [a for a, _ in curve]
    expected = first([up(errors, t, s, k) for t in range(len(errors))])
    assert stop_index(Rule(kind="UP", amount=s), errors, strip=k) == expected


@given(curve=CURVES, alpha=st.floats(0.001, 10.0), k=st.integers(2, 5))
def test_pq_is_the_first_end_of_a_strip_above(curve: list[tuple[float, float]], alpha: float, k: int) -> None:
    errors, training = [a for a, _ in curve], [b for _, b in curve]
    above = [
        t >= k and t % k == 0 and gl(errors, t) > 0 and gl(errors, t) > alpha * progress(training, t, k)
        for t in range(len(errors))
    ]
    found = stop_index(Rule(kind="PQ", amount=alpha), errors, [None, *training[1:]], strip=k)
    if found != first(above):
        t = min(x for x in (found, first(above)) if x is not None)
        assert gl(errors, t) == pytest.approx(alpha * progress(training, t, k), rel=1e-6, abs=1e-9)


@given(curve=CURVES, patience=st.integers(1, 10))
def test_patience_stops_where_a_run_would_have_been_ended(curve: list[tuple[float, float]], patience: int) -> None:
    errors = [a for a, _ in curve]
    history = History(target=Target(metric="val_loss", value=0.0, mode="min"))
    rule, expected = PatienceRule(patience=patience, steps_per_epoch=7), None
    for t, value in enumerate(errors):
        history.add(7 * t, None, {"val_loss": value})
        if rule(history) is not None:
            expected = t
            break
    assert stop_index(Rule(kind="patience", amount=patience), errors) == expected


def test_a_criterion_never_stops_while_the_error_falls() -> None:
    errors = [1.0 / (t + 1) for t in range(30)]
    for rule in (Rule(kind="patience", amount=1), Rule(kind="GL", amount=0.1), Rule(kind="UP", amount=1)):
        assert stop_index(rule, errors) is None
    assert stop_index(Rule(kind="PQ", amount=0.1), errors, errors) is None


def test_no_progress_counts_as_a_quotient_beyond_any_bound() -> None:
    errors, still = [1.0, 1.0, 1.0, 1.0, 1.0, 1.01], [1.0] * 6
    assert training_progress(still, 5) == training_progress([0.0] * 6, 5) == 0.0
    assert training_progress([1.0, 1.0, 1.0, 1.0, 1.0, 0.0], 5) == math.inf
    assert stop_index(Rule(kind="PQ", amount=1e6), errors, still) == 5
    assert stop_index(Rule(kind="PQ", amount=1e6), [1.0] * 6, still) is None


def test_errors_that_are_not_above_0_are_refused() -> None:
    for wrong in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="above 0"):
            stop_index(Rule(kind="GL", amount=1), [1.0, wrong])
    with pytest.raises(ValueError, match="training"):
        stop_index(Rule(kind="PQ", amount=1), [1.0] * 6, [None] * 6)
