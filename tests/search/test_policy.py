"""The whole search on paper: regret and price against truths that are the law's, and against truths that are not."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np

from batchscope.fits.steps_to_target import StepsPosterior
from batchscope.search.strategies.anchors import Choices
from batchscope.testing.simulation import NoisyQuadratic

from ..fits.laws import law, trained
from .simulated import Played, Truth, geometric_mean, on_hardware, play

KNEES = (64, 512, 4096)
CEILING = 10.0
"""What a range test finds, in best rates at its batch size."""


def first_size(choices: Choices) -> int:
    """Where a search begins: the expected best batch size before anything is known."""
    return min((b for b in choices.batch_sizes if b >= 16), key=lambda b: (1 + 128 / b) * choices.step_time(b))


def law_of(index: int) -> StepsPosterior:
    """A truth of the law's own shape."""
    rng = np.random.default_rng([7, index])
    return law(
        steps_min=math.exp(rng.uniform(math.log(50), math.log(500))),
        critical=math.exp(rng.uniform(math.log(16), math.log(1024))),
        alpha=1.25 * math.exp(rng.normal(0, 0.3)),
        lr_max=math.exp(rng.uniform(-3, 0)),
        slope=rng.normal(0.9, 0.1),
        shape=0.4 * math.exp(rng.normal(0, 0.4)),
        spread=0.15,
        steps_growth=math.exp(rng.normal(1.1, 0.3)),
        critical_growth=math.exp(rng.normal(0.65, 0.25)),
        lr_growth=math.exp(rng.normal(0.1, 0.15)),
        plateau=0.4 * math.exp(rng.normal(0, 0.5)),
    )


def runs_of(truth: StepsPosterior) -> Truth:
    """One run for each batch size, rate and seed, its noise that of the law."""
    shape, plateau = np.exp(truth.draws[0, [5, 10]])
    edge = math.log1p(shape) / shape

    def needed(batch_size: int, lr: float, seed: int) -> tuple[float, float]:
        beyond = math.log(lr) - truth.log_best_lr(batch_size)[0]
        if beyond - plateau * math.tanh(beyond / plateau) > edge:
            return math.inf, math.inf
        return trained(truth, batch_size, lr, np.random.default_rng([batch_size, int(1e7 * lr), seed]))

    return needed


def least_seconds(truth: StepsPosterior, choices: Choices) -> float:
    return min(math.exp(truth.log_best_steps(b)[0]) * choices.step_time(b) for b in choices.batch_sizes)


def regret(truth: StepsPosterior, choices: Choices, played: Played) -> float:
    """Expected seconds at the decision ÷ at the best."""
    size, lr = played.decision.batch_size, played.decision.lr
    return math.exp(truth.log_steps(size, lr)[0]) * choices.step_time(size) / least_seconds(truth, choices)


@functools.cache
def searched(index: int) -> tuple[float, float, Played]:
    """Regret, price in trainings at the best, and the search."""
    truth, choices = law_of(index), on_hardware(KNEES[index % 3])
    first = first_size(choices)
    misread = math.exp(np.random.default_rng([8, index]).normal(0, 0.7))
    ceiling = CEILING * misread * math.exp(truth.log_best_lr(first)[0])
    played = play(runs_of(truth), choices, ceiling=ceiling, first_size=first, seed=index)
    return regret(truth, choices, played), played.seconds / least_seconds(truth, choices), played


def test_truths_of_the_laws_shape_are_found_at_the_price_of_a_few_trainings() -> None:
    """60 such truths gave a regret of 1.01, and 1.11 in the worst tenth, for the price of 2.2 and 3.9 trainings.

    Of the probes none went further than the milestone; when all were trained to the target, the price was 6.6 and 9.8.
    """
    regrets, prices, _ = zip(*(searched(i) for i in range(6)), strict=True)
    assert np.median(regrets) < 1.1
    assert max(regrets) < 1.5
    assert np.median(prices) < 3.5
    assert max(prices) < 8


def test_f37_the_recommended_pair_was_run_as_it_is_recommended() -> None:
    """No rate is carried over from another batch size: the decision is a pair that reached the target in a run."""
    for index in range(6):
        _, _, played = searched(index)
        assert (played.decision.batch_size, played.decision.lr) in played.reached


def test_f38_f39_ten_misread_range_tests_end_at_nearly_the_same_rate_and_near_the_best() -> None:
    """The ceiling is a bound, not a suggestion: a factor of 4 either way in it is not found again in the answer.

    For scale: the suggestions of a range test spread by a factor of 208 over eight seeds, and lay up to 28 times off.
    """
    truth, choices = law_of(1), on_hardware(512)
    first = first_size(choices)
    rates = []
    for seed, misread in enumerate((0.25, 0.5, 1.0, 2.0, 4.0)):
        ceiling = CEILING * misread * math.exp(truth.log_best_lr(first)[0])
        found = play(runs_of(truth), choices, ceiling=ceiling, first_size=first, seed=seed).decision
        rates.append(found.lr / math.exp(truth.log_best_lr(found.batch_size)[0]))
    assert max(rates) / min(rates) < 3
    assert all(1 / 3 < rate < 3 for rate in rates)


def searched_quadratic(model: NoisyQuadratic, knee: float, seed: int) -> tuple[float, float]:
    """Regret and price against geometric means of runs that the search has not seen."""
    choices = on_hardware(knee)
    most = 20_000
    tuned = {b: model.tuned(b) for b in choices.batch_sizes[2::2]}
    fastest = min(t.steps * choices.step_time(b) for b, t in tuned.items())

    def seconds(batch_size: int, lr: float) -> float:
        if lr >= model.highest_lr:
            return math.inf
        steps = model.sampled_steps_to_target(batch_size, lr, seeds=8, seed=900 + batch_size, max_steps=most)
        return geometric_mean(steps) * choices.step_time(batch_size)

    best = min(
        seconds(b, factor * t.lr)
        for b, t in tuned.items()
        if t.steps * choices.step_time(b) < 1.6 * fastest
        for factor in (0.5, 0.7, 1.0, 1.4, 2.0)
    )

    def needed(batch_size: int, lr: float, _: int) -> tuple[float, float]:
        if lr >= model.highest_lr:
            return math.inf, math.inf
        milestone = replace(model, target_share=model.target_share**0.7)
        passages = (
            each.sampled_steps_to_target(batch_size, lr, seed=seed + batch_size, max_steps=most)
            for each in (milestone, model)
        )
        to_milestone, to_target = (float(steps[0]) for steps in passages)
        return to_milestone, to_target

    first = first_size(choices)
    ceiling = CEILING * model.tuned(first).lr
    played = play(needed, choices, ceiling=ceiling, first_size=first, seed=seed)
    return seconds(played.decision.batch_size, played.decision.lr) / best, played.seconds / best


def test_noisy_quadratic_truths_are_found_although_the_law_is_not_theirs() -> None:
    """32 searches over eight models gave a regret of 1.18, and 1.92 in the worst tenth, for 5.4 and 19 trainings.

    With momentum 1.04 typically; without it 1.32, because the best rate stands at the edge beyond which training
    breaks, and the search keeps a tenth away from it on purpose. Such models train in ten to twenty steps, and a run
    that diverges, which is counted as 30 steps, costs two or three trainings.
    """
    models = [
        NoisyQuadratic(
            dimensions=40, exponent=exponent, noise=noise, noise_level=level, momentum=momentum, target_share=0.03,
            resolution=20,
        )
        for exponent, noise, level, momentum in (
            (1.0, "hessian", 4.0, 0.9),
            (1.0, "identity", 1.0, 0.0),
            (1.5, "hessian", 4.0, 0.9),
            (1.0, "identity", 1.0, 0.9),
        )
    ]  # fmt: skip
    regrets, prices = zip(
        *(searched_quadratic(model, KNEES[i % 3], seed=i) for i, model in enumerate(models)), strict=True
    )
    assert np.median(regrets) < 1.3
    assert max(regrets) < 2.3
    assert np.median(prices) < 6
