"""The law of where trainings of one length end: it comes back from made-up ends, and its intervals hold them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from batchscope.fits.end_values import End, Left, Start, fit

START = Start(batch_size=32, lr=0.01, slope=0.5)
SIZES, LRS = (8, 32, 128), (0.0025, 0.005, 0.01, 0.02, 0.04)


def truth(batch_size: int, lr: float) -> float:
    """Lowest at batch size 16 and learning rate 0.0071, which grows as the square root of the batch size."""
    octaves = math.log2(lr / 0.01) - 0.5 * math.log2(batch_size / 32)
    larger = max(0.0, math.log2(batch_size / 16)) / 1.5
    return math.log(0.3) + 0.2 * (math.sqrt(1 + octaves**2) - 1) + 0.1 * (math.sqrt(1 + larger**2) - 1)


def ends(noise: float = 0.0, seed: int = 0) -> list[End]:
    rng = np.random.default_rng(seed)
    return [
        End(batch_size=b, lr=lr, left=truth(b, lr) + float(rng.normal(0.0, noise))) for b in SIZES for lr in LRS[::2]
    ]


def test_the_best_learning_rate_of_each_batch_size_comes_back() -> None:
    posterior = fit(ends(), START)
    for size in SIZES:
        lrs = 0.0025 * 2.0 ** np.arange(-1, 6, 0.25)
        found = lrs[posterior.left(np.full(len(lrs), size), lrs).mean(axis=0).argmin()]
        assert abs(math.log2(found / (0.01 * math.sqrt(size / 32)))) <= 0.5


def test_pairs_that_were_not_run_are_predicted() -> None:
    posterior = fit(ends(0.01), START)
    for size, lr in ((16, 0.007), (64, 0.014), (32, 0.02)):
        law = posterior.left(size, lr)[:, 0]
        assert law.mean() == pytest.approx(truth(size, lr), abs=0.03)


def test_a_learning_rate_that_diverged_lies_above_the_best() -> None:
    seen = End(batch_size=32, lr=0.01, left=0.0)
    before = fit([seen], START).left([32], [0.08]).mean()
    after = fit([seen, End(batch_size=32, lr=0.04, left=None)], START).left([32], [0.08]).mean()
    assert after > before


def test_larger_batches_are_better_at_equal_steps_and_no_better_at_equal_examples() -> None:
    seen = [End(batch_size=32, lr=0.01, left=0.0)]
    for equal_steps in (False, True):
        start = Start(batch_size=32, lr=0.01, slope=0.5, equal_steps=equal_steps)
        small, large = (fit(seen, start).left([size], [0.01 * math.sqrt(size / 32)]).mean() for size in (4, 256))
        assert (large < small) == equal_steps


@pytest.mark.parametrize(
    ("values", "rising", "kind"),
    [
        ([2.0, 0.1], False, "error"),
        ([2.0, -0.1], False, "plain"),
        ([0.5, 0.9], True, "score"),
        ([9, 99], True, "plain"),
        ([-3.0, -0.5], True, "plain"),
    ],
)
def test_what_is_left_goes_there_and_back(values: list[float], rising: bool, kind: str) -> None:
    left = Left.of(values, rising=rising)
    assert left.kind == kind
    logs = [left.log(value) for value in values]
    assert left.value(np.array(logs)) == pytest.approx(values)
    assert logs[1] < logs[0]
    value = values[1]
    step = left.of_share(value, 0.01)
    assert step > 0.0
    assert abs(float(left.value(np.array(logs[1] - step))) - value) <= 0.0101 * abs(value)


def test_a_score_at_its_ideal_leaves_little_and_not_nothing() -> None:
    left = Left.of([0.1, 1.0], rising=True)
    assert left.log(1.0) == pytest.approx(math.log(0.9e-3))
    assert math.isfinite(left.slope(1.0))
    assert Left.of([0.0, 0.0], rising=False).log(0.0) == pytest.approx(math.log(1e-3))
    assert Left.of([1.0, 1e-7], rising=False).log(1e-7) == pytest.approx(math.log(1e-7))


def test_equal_arguments_give_equal_draws() -> None:
    assert (fit(ends(), START, seed=3).draws == fit(ends(), START, seed=3).draws).all()
