"""The law of steps against batch size alone: recovery, calibration, walls, and what runs that never got there say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from batchscope.fits.untuned_steps import UntunedPosterior, UntunedPrior, fit_untuned

SIZES = (8, 16, 32, 64, 128, 256, 512, 1024)


def examples(size: float, critical: float = 100.0, alpha: float = 1.3, upper: float = math.inf) -> float:
    wall = 1 - (size / upper) ** 2
    return 1e5 * (1 + (size / critical) ** alpha) ** (1 / alpha) / wall if wall > 0 else math.inf


def repeats(
    sizes: tuple[int, ...], noise: float = 0.0, number: int = 3, seed: int = 0, **law: float
) -> dict[int, list]:
    rng = np.random.default_rng(seed)
    steps = {b: examples(b, **law) / b * np.exp(noise * rng.standard_normal(number)) for b in sizes}
    return {b: [float(s) if math.isfinite(s) else None for s in values] for b, values in steps.items()}


def never(belief: UntunedPosterior, size: int) -> float:
    """Share of draws in which the target is not reached."""
    return float((belief.log_steps(size) > 50).mean())


def test_a_law_without_noise_is_recovered_between_the_sizes() -> None:
    belief = fit_untuned(repeats((8, 32, 128, 512)), UntunedPrior())
    for size in (16, 64, 256):
        low, middle, high = np.exp(np.quantile(belief.log_steps(size), (0.05, 0.5, 0.95))) * size
        assert middle == pytest.approx(examples(size), rel=0.08)
        assert low < examples(size) < high
    critical = belief.critical_batch_size()
    assert critical.low is not None
    assert critical.high is not None
    assert critical.low < 100 < critical.high


def test_at_a_measured_size_the_mean_of_the_runs_is_believed() -> None:
    steps = repeats(SIZES[:5], noise=0.02, number=20)
    steps[32] = [2 * s for s in steps[32] if s is not None]
    belief = fit_untuned(steps, UntunedPrior())
    assert math.exp(float(np.median(belief.log_steps(32)))) == pytest.approx(float(np.mean(steps[32])), rel=0.1)


def test_a_draw_is_one_law_whatever_it_is_asked() -> None:
    belief = fit_untuned(repeats((16, 64, 256), noise=0.1), UntunedPrior())
    together = belief.log_steps(np.array([32, 100, 4096]))
    assert together.shape == (512, 3)
    for i, size in enumerate((32, 100, 4096)):
        np.testing.assert_allclose(belief.log_steps(size), together[:, i])
    again = fit_untuned(repeats((16, 64, 256), noise=0.1), UntunedPrior())
    np.testing.assert_array_equal(again.log_steps(32), belief.log_steps(32))


@pytest.mark.slow
def test_intervals_of_the_critical_batch_size_hold_nine_times_in_ten() -> None:
    inside, total = 0, 60
    rng = np.random.default_rng(1)
    for seed in range(total):
        mean, _ = UntunedPrior().arrays()
        critical, alpha, wall, _ = mean + np.array([2.0, 0.5, 2.0, 0.0]) * rng.standard_normal(4)
        prior = UntunedPrior(log_critical_batch_size=(float(mean[0]), 2.0), log_lower_wall=(-8.0, 1.0))
        law = {"critical": math.exp(critical), "alpha": math.exp(alpha), "upper": math.exp(critical + wall)}
        steps = repeats((8, 32, 128, 512, 2048), noise=0.1, seed=seed, **law)
        if all(None in runs for runs in steps.values()):
            steps = repeats((8, 32, 128), noise=0.1, seed=seed)
            law["critical"] = 100.0
        found = fit_untuned(steps, prior, particles=256, seed=seed).critical_batch_size()
        inside += (found.low or 0.0) <= law["critical"] <= (found.high or math.inf)
    assert 0.8 <= inside / total <= 0.98


def test_a_size_that_never_got_there_is_slow_or_beyond_a_wall() -> None:
    known, prior = repeats((16, 32, 64)), UntunedPrior()
    free = fit_untuned(known, prior)
    above = fit_untuned({**known, 512: [None, None]}, prior)
    below = fit_untuned({**known, 4: [None, None]}, prior)
    longest = math.log(max(examples(b) for b in (16, 32, 64)))
    for belief, size in ((above, 512), (below, 4)):
        slow = belief.log_steps(size) + math.log(size) > longest + math.log(1.3)
        assert slow.mean() > 0.9
        assert slow.mean() > (free.log_steps(size) + math.log(size) > longest + math.log(1.3)).mean() + 0.1
        assert never(belief, size) > 1.5 * never(free, size)
    assert np.median(above.log_steps(256)) > np.median(free.log_steps(256))
    assert never(below, 16) == never(above, 64) == 0
    assert never(below, 256) <= never(above, 256)


def test_a_wall_shows_before_it_is_hit() -> None:
    steps = repeats((16, 32, 64, 128, 256), noise=0.03, upper=300.0)
    assert all(None not in runs for runs in steps.values())
    belief = fit_untuned(steps, UntunedPrior())
    assert never(belief, 512) > 3 * never(fit_untuned(repeats((16, 32, 64, 128, 256), noise=0.03), UntunedPrior()), 512)


def test_rates_far_from_the_square_root_rule_bring_the_walls_nearer() -> None:
    steps = repeats((16, 32, 64))
    at = {slope: fit_untuned(steps, UntunedPrior.for_rates(slope)) for slope in (0.0, 0.5, 1.0)}
    assert never(at[1.0], 512) > never(at[0.5], 512)
    assert never(at[0.0], 2) > never(at[0.5], 2)
    assert UntunedPrior.for_rates(-3.0) == UntunedPrior.for_rates(0.0)
    assert UntunedPrior.for_rates(None) == UntunedPrior()


def test_steps_known_to_whole_epochs_are_known_less_well() -> None:
    steps = repeats((16, 32, 64), number=8)
    exact, coarse = (fit_untuned(steps, UntunedPrior(), grain=grain) for grain in (0.0, 1e5))
    assert coarse.log_steps(32).std() > 1.3 * exact.log_steps(32).std()


def test_one_size_is_enough_to_fit_and_none_is_not() -> None:
    assert fit_untuned({32: [100.0]}, UntunedPrior()).log_steps(32).std() < 0.5
    with pytest.raises(ValueError, match=r"\[32, 64\] reached the target"):
        fit_untuned({32: [None], 64: []}, UntunedPrior())
