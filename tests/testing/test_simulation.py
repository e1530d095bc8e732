"""The noisy quadratic model against a naive simulation, step by step, and against closed forms."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest

from batchscope.testing.simulation import NoisyQuadratic


def train_naively(model: NoisyQuadratic, batch_size: float, lr: float, steps: int, runs: int) -> np.ndarray:
    """The losses of many runs, one step and one draw at a time, shape (runs, steps + 1)."""
    generator = np.random.default_rng(5)
    theta, velocity = np.ones((runs, model.dimensions)), np.zeros((runs, model.dimensions))
    losses = [0.5 * theta**2 @ model.curvature]
    for _ in range(steps):
        noise = generator.standard_normal(theta.shape) * np.sqrt(model.variance / batch_size)
        velocity = model.momentum * velocity + model.curvature * theta + noise
        theta = theta - lr * velocity
        losses.append(0.5 * theta**2 @ model.curvature)
    return np.stack(losses, axis=-1)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("noise", ["hessian", "identity"])
def test_expected_loss_is_the_mean_of_naive_runs(momentum: float, noise: Literal["hessian", "identity"]) -> None:
    model = NoisyQuadratic(dimensions=20, noise=noise, momentum=momentum, noise_level=3.0, resolution=8)
    lr = 0.4 * (1 - momentum)
    losses = train_naively(model, 4, lr, steps=150, runs=600)
    course = model.expected(4, lr, max_steps=150)
    at = course.steps[course.steps <= 150].astype(int)
    error = losses[:, at].std(axis=0, ddof=1) / math.sqrt(600)
    deviation = (losses[:, at].mean(axis=0) - course.loss[0, : at.size]) / np.maximum(error, 1e-12)
    assert np.abs(deviation[1:]).max() < 4.0
    assert np.abs(deviation[1:].mean()) < 2.5


def test_sampled_runs_are_distributed_as_naive_runs() -> None:
    model = NoisyQuadratic(dimensions=10, momentum=0.8, noise_level=5.0, resolution=4)
    naive = train_naively(model, 8, 0.1, steps=64, runs=800)
    sampled = model.sample(8, 0.1, seeds=800, max_steps=64)
    final = sampled.loss[:, list(sampled.steps).index(64)]
    for share in (0.1, 0.5, 0.9):
        assert np.quantile(final, share) == pytest.approx(np.quantile(naive[:, 64], share), rel=0.1)


def test_without_noise_the_loss_has_a_closed_form() -> None:
    model = NoisyQuadratic(dimensions=30, exponent=1.5)
    course = model.expected(math.inf, 0.7, max_steps=500)
    contraction = (1 - 0.7 * model.curvature[:, None]) ** (2 * course.steps)
    np.testing.assert_allclose(course.loss[0], 0.5 * model.curvature @ contraction, rtol=1e-10)


def test_first_passage_without_noise_has_a_closed_form() -> None:
    model = NoisyQuadratic(dimensions=1, target_share=1e-3)
    truth = math.log(1e-3) / (2 * math.log(1 - 0.01))
    assert model.steps_to_target(math.inf, 0.01)[0] == pytest.approx(truth, rel=2e-3)


def test_stationary_loss_has_a_closed_form() -> None:
    model = NoisyQuadratic(dimensions=3)
    course = model.expected(2, 0.5, max_steps=20_000)
    h = model.curvature
    second_moment = 0.25 * (model.variance / 2) / (1 - (1 - 0.5 * h) ** 2)
    assert course.loss[0, -1] == pytest.approx(0.5 * float(h @ second_moment), rel=1e-9)


def test_a_rate_above_the_ceiling_never_arrives() -> None:
    model = NoisyQuadratic(momentum=0.9)
    assert np.isinf(model.steps_to_target(64, [1.01 * model.highest_lr], max_steps=5_000)).all()
    assert np.isfinite(model.steps_to_target(math.inf, [0.5 * model.highest_lr])).all()


@pytest.mark.parametrize("noise", ["hessian", "identity"])
def test_best_rate_is_the_minimum_and_the_law_has_its_three_parts(noise: Literal["hessian", "identity"]) -> None:
    model = NoisyQuadratic(noise=noise, noise_level=2.0)
    tuned = {size: model.tuned(size) for size in (1, 4, 64, 256, 4096, math.inf)}
    lr, steps = tuned[64]
    around = model.steps_to_target(64, lr * np.array([0.9, 0.97, 1.03, 1.1]))
    assert (around >= steps * 0.999).all()
    assert tuned[1].steps / tuned[4].steps == pytest.approx(4.0, rel=0.05)
    assert 1.5 < tuned[64].steps / tuned[256].steps < 3.8
    assert tuned[4096].steps == pytest.approx(tuned[math.inf].steps, rel=0.1)


def test_noise_scale_is_the_trace_over_the_squared_gradient() -> None:
    model = NoisyQuadratic(dimensions=50, noise_level=7.0)
    course = model.expected(8, 0.1, max_steps=100)
    assert course.square_gradient[0, 0] == pytest.approx(float((model.curvature**2).sum()))
    scale = model.noise_scale(course.square_gradient)[0]
    assert scale[0] == pytest.approx(7 * model.curvature.sum() / (model.curvature**2).sum())
    assert scale[-1] > scale[0]


def test_same_seed_same_first_passage() -> None:
    model = NoisyQuadratic(noise_level=4.0)
    first, again, other = (model.sampled_steps_to_target(8, 0.05, seeds=5, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert 0.005 < first.std() / first.mean() < 0.3


@pytest.mark.parametrize("bad", [{"momentum": 1.0}, {"target_share": 1.0}])
def test_impossible_models_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="outside"):
        NoisyQuadratic(**bad)
