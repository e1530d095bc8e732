"""The rules that decide, and the intervals that they rest on."""

from __future__ import annotations

import numpy as np
import pytest

from batchscope.fits.intervals import geometric_mean
from batchscope.laboratory.claims.outcome import Outcome, above, all_of, any_of, below, differs, parts, within
from batchscope.laboratory.claims.records import Comparison, Verdict
from batchscope.store.records import Estimate


def effect(low: float | None, high: float | None) -> Estimate:
    value = None if low is None or high is None else (low + high) / 2
    return Estimate(value=value, low=low, high=high, n=5, unit="", method="")


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.2, 1.5, "held"),
        (1.01, 1.2, "held"),
        (0.9, 1.2, "undecided"),
        (0.5, 0.8, "not held"),
        (0.99, 1.03, "not held"),
        (1.01, 1.03, "not held"),
        (None, None, "undecided"),
    ],
)
def test_above_and_below_are_mirror_images(low: float | None, high: float | None, verdict: str) -> None:
    up = above(effect(low, high), 1.0, 0.05, "it")
    assert up.verdict.value == verdict
    assert up.effect == effect(low, high)
    mirrored = effect(None if high is None else -high, None if low is None else -low)
    down = below(mirrored, -1.0, 0.05, "it")
    assert down.verdict.value == verdict
    assert down.effect == mirrored


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.2, 1.5, "held"),
        (0.5, 0.8, "held"),
        (0.97, 1.03, "not held"),
        (0.9, 1.2, "undecided"),
        (0.99, 1.2, "undecided"),
    ],
)
def test_differs(low: float, high: float, verdict: str) -> None:
    assert differs(effect(low, high), 1.0, 0.05, "it").verdict.value == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.97, 1.02, "held"), (1.1, 1.3, "not held"), (0.9, 1.0, "undecided")]
)
def test_within(low: float, high: float, verdict: str) -> None:
    assert within(effect(low, high), 0.95, 1.05, "it").verdict.value == verdict


def outcome(verdict: Verdict, run: str = "r") -> Outcome:
    return Outcome(verdict=verdict, comparisons=(Comparison(what=verdict.value),), runs=(run,))


H, N, U = Verdict.HELD, Verdict.NOT_HELD, Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("verdicts", "every", "some", "parted"),
    [
        ((H, H), H, H, H),
        ((N, N), N, N, N),
        ((H, N), N, H, Verdict.DEPENDS),
        ((H, U), U, H, U),
        ((N, U), N, U, U),
        ((U, U), U, U, U),
    ],
)
def test_statements_of_several_parts(
    verdicts: tuple[Verdict, Verdict], every: Verdict, some: Verdict, parted: Verdict
) -> None:
    a, b = outcome(verdicts[0], "a"), outcome(verdicts[1], "b")
    for joined, expected in (
        (all_of(a, b), every),
        (any_of(a, b), some),
        (parts("it", {"here": a, "there": b}), parted),
    ):
        assert joined.verdict is expected
        assert joined.runs == ("a", "b")
        assert a.reason in joined.reason
        assert b.reason in joined.reason
    assert (parts("it", {"here": a, "there": b}).on == "it") == (parted is Verdict.DEPENDS)


def test_no_effect_is_called_one_in_at_most_a_twentieth_of_the_cases() -> None:
    """An interval lies wholly above the bound by chance alone one time in twenty, and `minimum` makes it rarer."""
    generator = np.random.default_rng(1)
    found = [
        above(geometric_mean(np.exp(generator.normal(0.0, 0.1, 5)).tolist()), 1.0, 0.05, "it").verdict
        for _ in range(2000)
    ]
    assert sum(v is Verdict.HELD for v in found) / len(found) <= 0.055


def test_comparisons_are_kept_one_by_one_with_their_conditions() -> None:
    a, b = above(effect(1.5, 2.5), 1.0, 0.05, "a"), below(effect(0.5, 0.7), 1.0, 0.05, "b")
    joined = parts("the learning rate", {"at one learning rate": all_of(a, b), "each at its best": a})
    found = [(c.what, c.conditions, c.relation, c.bounds, c.minimum_effect) for c in joined.comparisons]
    assert found == [
        ("a", ("at one learning rate",), "above", (1.0,), 0.05),
        ("b", ("at one learning rate",), "below", (1.0,), 0.05),
        ("a", ("each at its best",), "above", (1.0,), 0.05),
    ]
    assert joined.reason.count("at one learning rate: ") == 1
