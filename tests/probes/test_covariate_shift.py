"""Covariate shift, on two scalar layers by hand and against the definition written out."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from batchscope.probes.covariate_shift import LayerShift, measure_covariate_shift
from batchscope.store.not_applicable import NotApplicable
from batchscope.tasks.protocol import task
from batchscope.tasks.workload import Workload

EXAMPLES = 24


def ready(model: Callable[[], nn.Module], *, adam: bool = False, shape: tuple[int, ...] = (4,)) -> Workload:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(EXAMPLES, *shape, generator=generator, dtype=torch.float64)
    part = TensorDataset(x, torch.randint(3, (EXAMPLES,), generator=generator))
    return Workload(
        task(
            model=lambda: model().double(),
            train=part,
            val=part,
            loss=lambda model, batch: functional.cross_entropy(model(batch[0]), batch[1]),
            optimizer=lambda params, lr: (torch.optim.Adam if adam else torch.optim.SGD)(params, lr=lr),
        )
    )


def perceptron() -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.3), nn.Linear(6, 5), nn.Linear(5, 3)
    )


def fixed(workload: Workload) -> Any:
    return workload.batch(torch.arange(min(16, workload.examples)))


class Product(nn.Module):
    """`v (u x)`: the gradient of v is `x u · residual`, that of u `x v · residual`."""

    def __init__(self) -> None:
        super().__init__()
        self.lower, self.upper = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        self.lower.weight.data.fill_(2.0)
        self.upper.weight.data.fill_(3.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.upper(self.lower(x))


def product() -> Workload:
    """Loss ½ (v u − 1)² at x = 1."""
    part = TensorDataset(torch.ones(4, 1, dtype=torch.float64))
    return Workload(
        task(
            model=lambda: Product().double(),
            train=part,
            val=part,
            loss=lambda model, batch: 0.5 * (model(batch[0]) - 1.0).square().mean(),
            optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr, momentum=0.9),
        )
    )


def shifts(workload: Workload, model: nn.Module, **changes: Any) -> tuple[LayerShift, ...]:
    found = measure_covariate_shift(workload, model, fixed(workload), **{"lr": 0.1, **changes})
    assert isinstance(found, tuple)
    return found


def test_two_scalar_layers_by_hand() -> None:
    """u = 2, v = 3: residual 5, u's gradient 15, v's 10. After u ← 2 − 1.5 = 0.5, v's is 0.5 (1.5 − 1) = 0.25."""
    workload = product()
    (found,) = shifts(workload, workload.model(0))
    assert found.layer == "upper"
    assert found.norm_before == pytest.approx(10.0)
    assert found.norm_after == pytest.approx(0.25)
    assert found.difference == pytest.approx(9.75)
    assert found.relative == pytest.approx(0.975)
    assert found.cosine == pytest.approx(1.0)


def test_momentum_is_taken_over_and_left_alone() -> None:
    """A momentum of 10 in u makes its step 0.1 (15 + 9) = 2.4: u = −0.4, v's gradient −0.4 (−1.2 − 1) = 0.88."""
    workload = product()
    model = workload.model(0)
    optimizer = workload.optimizer(model, 0.7)
    for parameter, momentum in zip(model.parameters(), (10.0, 0.0), strict=True):
        optimizer.state[parameter]["momentum_buffer"] = torch.full_like(parameter, momentum)
    state = optimizer.state_dict()
    before = copy.deepcopy(state)
    (found,) = shifts(workload, model, optimizer_state=state)
    assert found.norm_after == pytest.approx(0.88)
    assert str(state) == str(before)
    assert float(model.get_parameter("lower.weight").detach()) == 2.0


def test_the_step_is_the_tasks_clipping_included() -> None:
    """The norm of both gradients is √(15² + 10²); clipped to 1, u becomes 2 − 0.1 · 15 ÷ √325."""
    part = TensorDataset(torch.ones(4, 1, dtype=torch.float64))
    workload = Workload(
        task(
            model=lambda: Product().double(),
            train=part,
            val=part,
            loss=lambda model, batch: 0.5 * (model(batch[0]) - 1.0).square().mean(),
            optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
            before_update=lambda model: nn.utils.clip_grad_norm_(model.parameters(), 1.0),
            ema_decay=0.9,
        )
    )
    (found,) = shifts(workload, workload.model(0))
    u = 2.0 - 0.1 * 15.0 / math.sqrt(325.0)
    assert found.norm_after == pytest.approx(u * (3.0 * u - 1.0), rel=1e-6)


@pytest.mark.parametrize("adam", [False, True])
def test_a_network_against_the_definition(adam: bool) -> None:
    """Every layer in turn, with dropout and batch normalisation, by a model that is built anew each time."""
    workload = ready(perceptron, adam=adam)
    model = workload.model(4)
    found = shifts(workload, model, seed=8)
    assert [shift.layer for shift in found] == ["1", "4", "5"]

    def gradient(net: nn.Module) -> dict[str, Tensor]:
        torch.manual_seed(8)
        net.zero_grad()
        workload.loss(net, fixed(workload)).backward()
        return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}

    stepped = workload.model(4)
    start = gradient(stepped)
    workload.optimizer(stepped, 0.1).step()
    after = dict(stepped.named_parameters())
    for shift in found:
        mixed = workload.model(4)
        for name, parameter in mixed.named_parameters():
            if name.partition(".")[0] < shift.layer:
                parameter.data.copy_(after[name].detach())
        g, g2 = (
            torch.cat([v.flatten() for name, v in grads.items() if name.partition(".")[0] == shift.layer])
            for grads in (start, gradient(mixed))
        )
        assert shift.difference == pytest.approx(float((g - g2).norm()), rel=1e-9)
        assert shift.cosine == pytest.approx(float(torch.cosine_similarity(g, g2, dim=0)), rel=1e-9)


def test_a_step_of_nothing_shifts_nothing_and_nothing_is_left_changed() -> None:
    workload = ready(perceptron)
    model = workload.model(4)
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    for shift in shifts(workload, model, lr=0.0):
        assert (shift.difference, shift.relative) == (0.0, 0.0)
        assert shift.cosine == pytest.approx(1.0)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_where_no_layer_is_below_another() -> None:
    workload = ready(lambda: nn.Linear(4, 3))
    found = measure_covariate_shift(workload, workload.model(0), fixed(workload), lr=0.1)
    assert isinstance(found, NotApplicable)
    assert "runs 1 layer" in found.reason
    normed = ready(perceptron)
    alone = measure_covariate_shift(normed, normed.model(0), normed.batch(torch.arange(1)), lr=0.1)
    assert isinstance(alone, NotApplicable)
    assert "cannot be run on the batch" in alone.reason


def test_a_zero_gradient_has_no_cosine() -> None:
    workload = product()
    model = workload.model(0)
    model.get_parameter("lower.weight").data.fill_(0.0)
    model.get_parameter("upper.weight").data.fill_(0.0)
    (found,) = shifts(workload, model)
    assert (found.norm_before, found.relative, found.cosine) == (0.0, None, None)
    assert math.isfinite(found.difference)
