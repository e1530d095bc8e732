"""Gradient competition, on pairs of examples whose gradients and second gradients are known by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from batchscope.errors import UsageError
from batchscope.probes.competition import Competition, measure_competition
from batchscope.store.codec import encode
from batchscope.store.not_applicable import NotApplicable
from batchscope.tasks.protocol import task
from batchscope.tasks.workload import Workload


class Point(nn.Module):
    def __init__(self, *start: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(start, dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        return 0.5 * (self.w - z).square().sum(1)


def ready(z: list[list[float]], start: tuple[float, ...]) -> Workload:
    """Loss ½ |w − z|²: gradient `w − z`, and after a step on the other example `w − lr (w − z₁) − z₂`."""
    part = TensorDataset(torch.tensor(z, dtype=torch.float64))
    return Workload(
        task(
            model=lambda: Point(*start),
            train=part,
            val=part,
            loss=lambda model, batch: model(batch[0]).mean(),
            optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
        )
    )


def measured(workload: Workload, **changes: Any) -> tuple[Competition, ...]:
    arguments: dict[str, Any] = {"lr": 0.5, "pairs": 4, **changes}
    found = measure_competition(workload, workload.model(0), **arguments)
    assert isinstance(found, tuple)
    return found


def classifier(*between: nn.Module) -> Workload:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(20, 4, generator=generator, dtype=torch.float64)
    part = TensorDataset(x, torch.randint(3, (20,), generator=generator))
    return Workload(
        task(
            model=lambda: nn.Sequential(nn.Linear(4, 6), *between, nn.Tanh(), nn.Linear(6, 3)).double(),
            train=part,
            val=part,
            loss=lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1]),
            optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
        )
    )


def test_two_examples_at_a_right_angle_by_hand() -> None:
    """Gradients at w = 0: −z. After half a step on one of the examples, the other's is `−z₂ + z₁/2`."""
    for found in measured(ready([[-3.0, 0.0], [0.0, -4.0]], (0.0, 0.0))):
        at_once, in_turn = found.at_once, found.in_turn
        assert {at_once.norm_a, at_once.norm_b} == {3.0, 4.0}
        assert (at_once.norm_of_sum, at_once.kept, at_once.cosine) == (5.0, pytest.approx(5 / 7), 0.0)
        assert found.norm_as_one == 2.5
        a, b = at_once.norm_a, at_once.norm_b
        assert in_turn.norm_b == pytest.approx(math.hypot(b, a / 2))
        assert in_turn.cosine == pytest.approx(-a / 2 / math.hypot(b, a / 2))
        arrows = found.arrows
        assert arrows.first == pytest.approx((a, 0.0))
        assert arrows.second == pytest.approx((-a / 2, b))
        assert arrows.both == pytest.approx((a / 2, b))
        assert arrows.as_one == pytest.approx((a / 2, b / 2))
        assert arrows.as_one_outside == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(("other", "kept", "cosine"), [(2.0, 1.0, 1.0), (-1.0, 0.0, -1.0), (-3.0, 0.5, -1.0)])
def test_gradients_along_one_line(other: float, kept: float, cosine: float) -> None:
    for found in measured(ready([[1.0, 1.0], [other, other]], (0.0, 0.0))):
        assert found.at_once.kept == pytest.approx(kept, abs=1e-12)
        assert found.at_once.cosine == pytest.approx(cosine)
        assert found.arrows.second[1] == 0.0
        assert found.arrows.as_one_outside in (None, pytest.approx(0.0, abs=1e-12))


def test_zero_gradients_have_no_angle() -> None:
    found = measured(ready([[1.0], [1.0]], (1.0,)))[0]
    assert (found.at_once.kept, found.at_once.cosine, found.arrows.as_one_outside) == (None, None, None)
    assert found.arrows.both == (0.0, 0.0)
    assert encode(found)["arrows"]["first"] == [0.0, 0.0]


def test_batches_of_a_network_against_autograd() -> None:
    workload = classifier()
    model = workload.model(0)
    found = measure_competition(workload, model, lr=0.3, batch_size=3, pairs=2, seed=9)
    assert isinstance(found, tuple)
    generator = torch.Generator().manual_seed(9)
    torch.randperm(20, generator=generator)
    order = torch.randperm(20, generator=generator)

    def gradient(indices: Tensor, net: nn.Module) -> Tensor:
        net.zero_grad()
        workload.loss(net, workload.batch(indices)).backward()
        return torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])

    net = workload.model(0)
    a, b, one = gradient(order[:3], net), gradient(order[3:6], net), gradient(order[:6], net)
    gradient(order[:3], net)
    torch.optim.SGD(net.parameters(), lr=0.3).step()
    later = gradient(order[3:6], net)
    first = found[0]
    assert first.at_once.norm_of_sum == pytest.approx(float((a + b).norm()), rel=1e-12)
    assert first.norm_as_one == pytest.approx(float(one.norm()), rel=1e-12)
    assert first.norm_as_one == pytest.approx(first.at_once.norm_of_sum / 2, rel=1e-12)
    assert first.in_turn.norm_b == pytest.approx(float(later.norm()), rel=1e-12)
    assert first.in_turn.cosine == pytest.approx(float(torch.cosine_similarity(a, later, dim=0)), rel=1e-10)
    plane = torch.linalg.qr(torch.stack([a, later], dim=1)).Q
    inside = plane @ (plane.T @ one)
    assert math.hypot(*first.arrows.as_one) == pytest.approx(float(inside.norm()), rel=1e-10)
    assert first.arrows.as_one_outside == pytest.approx(float((one - inside).norm() / one.norm()), rel=1e-8)
    assert math.hypot(*first.arrows.second) == pytest.approx(first.in_turn.norm_b, rel=1e-12)
    assert math.hypot(*first.arrows.both) == pytest.approx(first.in_turn.norm_of_sum, rel=1e-12)


def test_the_triangle_inequality_and_what_is_left_alone() -> None:
    workload = classifier()
    model = workload.model(0)
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    found = measure_competition(workload, model, lr=0.3, pairs=10)
    assert isinstance(found, tuple)
    assert all(0 <= (s.kept or 0.0) <= 1 + 1e-12 for record in found for s in (record.at_once, record.in_turn))
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert measure_competition(workload, model, lr=0.3, pairs=10) == found


def test_chance_in_the_loss_and_batches_too_small_are_said() -> None:
    for module, reason in ((nn.Dropout(0.5), "would count as competition"), (nn.BatchNorm1d(6), "has no loss")):
        workload = classifier(module)
        found = measure_competition(workload, workload.model(0), lr=0.1)
        assert isinstance(found, NotApplicable)
        assert reason in found.reason


def test_batch_normalisation_makes_one_batch_differ_from_two() -> None:
    found = measured(classifier(nn.BatchNorm1d(6)), batch_size=4)[0]
    assert found.norm_as_one != pytest.approx(found.at_once.norm_of_sum / 2, rel=1e-3)


@pytest.mark.parametrize("bad", [{"batch_size": 11}, {"batch_size": 0}, {"pairs": 0}])
def test_impossible_requests(bad: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="two batches must fit into"):
        measured(classifier(), **bad)
