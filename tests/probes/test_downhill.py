"""Single steps and the loss of all data, on quadratic bowls whose falls are known by hand, and against SGD itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from batchscope.errors import UsageError
from batchscope.probes.downhill import Downhill, measure_downhill
from batchscope.store.not_applicable import NotApplicable
from batchscope.tasks.protocol import task
from batchscope.tasks.workload import Workload


class Point(nn.Module):
    def __init__(self, *start: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(start, dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        return 0.5 * (self.w - z).square().sum(1)


def ready(data: TensorDataset, model: Callable[[], nn.Module], loss: Callable[[nn.Module, Any], Tensor]) -> Workload:
    return Workload(
        task(model=model, train=data, val=data, loss=loss, optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr))
    )


def bowl(z: Tensor, *start: float) -> Workload:
    """Loss ½ |w − z|²; with m the mean of z, the loss over all is ½ |w − m|² and a constant."""
    return ready(TensorDataset(z), lambda: Point(*start), lambda model, batch: model(batch[0]).mean())


def pair(spread: float) -> Workload:
    """Examples at ±spread around 0, and the weight at 1: a step of 0.5 on one of them leads to 0.5 ± spread / 2."""
    return bowl(torch.tensor([[spread], [-spread]], dtype=torch.float64), 1.0)


def measured(workload: Workload, **changes: Any) -> tuple[Downhill, ...]:
    arguments: dict[str, Any] = {"batch_sizes": [1], "lr": 0.5, **changes}
    found = measure_downhill(workload, workload.model(0), **arguments)
    assert isinstance(found, tuple)
    return found


def classifier(*between: Callable[[], nn.Module]) -> Workload:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    return ready(
        TensorDataset(x, torch.randint(3, (30,), generator=generator)),
        lambda: nn.Sequential(nn.Linear(4, 6), *(make() for make in between), nn.Tanh(), nn.Linear(6, 3)).double(),
        lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1]),
    )


def test_examples_all_alike_always_lower_the_loss_by_the_same() -> None:
    """From 1 to 0.5: by ½ (1 − 0.25), for every batch."""
    for found in measured(pair(0.0), batch_sizes=[1, 3], repeats=10):
        assert (found.loss, found.lowered, found.repeats, found.sample) == (0.5, 10, 10, 2)
        assert (found.share.value, found.share.high) == (1.0, pytest.approx(1.0))
        assert (found.fall.value, found.fall.low, found.fall.high) == (0.375, 0.375, 0.375)


def test_examples_far_apart_never_lower_it() -> None:
    """From 1 to 2.5 or −1.5."""
    found = measured(pair(4.0))[0]
    assert (found.lowered, found.share.value, found.repeats) == (0, 0.0, 60)
    assert found.fall.value is not None
    assert found.fall.value < -0.5


def test_one_of_two_examples_lowers_it() -> None:
    """From 1 to −0.5 (a fall of 0.375) or to 1.5 (of −0.625), by the toss of a coin."""
    found = measured(pair(2.0), repeats=100)[0]
    assert 35 <= found.lowered <= 65
    assert found.fall.value == pytest.approx((0.375 * found.lowered - 0.625 * (100 - found.lowered)) / 100)


def test_the_mean_fall_on_a_bowl_is_known_and_its_share_rises_with_the_batch() -> None:
    """With d = w − m: `½ |d|² (1 − (1 − lr)²) − ½ lr² tr(Σ)/B`."""
    z = torch.randn(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    trace, d2 = float(z.var(0, correction=0).sum()), float((z.mean(0) - 0.5).square().sum())
    records = measured(bowl(z, 0.5, 0.5, 0.5), batch_sizes=[1, 4, 16, 256], repeats=400)
    for record in records:
        true = 0.5 * d2 * (1 - 0.5**2) - 0.5 * 0.25 * trace / record.batch_size
        assert record.fall.value is not None
        assert record.fall.low is not None
        assert abs(record.fall.value - true) < 3 * (record.fall.value - record.fall.low) / 1.65
        assert record.loss == pytest.approx(0.5 * (d2 + trace))
    shares = [record.share.value or 0.0 for record in records]
    assert shares == sorted(shares)
    assert shares[0] < 0.7 < shares[-1] == 1.0


@pytest.mark.parametrize("at_once", [7, 1024])
def test_a_network_against_an_optimizer(at_once: int) -> None:
    workload = classifier()
    found = measured(workload, batch_sizes=[2, 20], lr=0.8, repeats=5, sample=25, seed=9, at_once=at_once)
    generator = torch.Generator().manual_seed(9)
    pool = torch.randperm(30, generator=generator)[:25]
    for record in found:
        falls: list[float] = []
        for _ in range(5):
            net = workload.model(0)
            before = float(workload.loss(net, workload.batch(pool)).detach())
            chosen = pool[torch.randint(25, (record.batch_size,), generator=generator)]
            workload.loss(net, workload.batch(chosen)).backward()
            torch.optim.SGD(net.parameters(), lr=0.8).step()
            falls.append(before - float(workload.loss(net, workload.batch(pool)).detach()))
        assert record.lowered == sum(fall > 0 for fall in falls)
        assert record.fall.value == pytest.approx(sum(falls) / 5, rel=1e-9)
        assert record.loss == pytest.approx(before, rel=1e-12)


def test_the_interval_is_wilsons() -> None:
    """Its ends are the shares p from which the one found is just 1.645 standard errors of p away."""
    share = measured(pair(2.0), repeats=40)[0].share
    for end in (share.low, share.high):
        assert share.value is not None
        assert end is not None
        assert abs(share.value - end) == pytest.approx(1.6448536 * math.sqrt(end * (1 - end) / 40), rel=1e-6)
    always = measured(pair(0.0), repeats=10)[0].share
    assert always.low == pytest.approx(1 - 2.705543 / 12.705543, rel=1e-6)


def test_a_step_out_of_the_range_of_numbers_lowers_nothing() -> None:
    found = measured(pair(2.0), lr=1e300, repeats=4)[0]
    assert (found.lowered, found.share.value, found.fall.value, found.fall.low) == (0, 0.0, None, None)
    assert found.fall.method == "4 of 4 steps led to a loss that is not a number"


def test_the_weights_and_the_generators_are_left_alone() -> None:
    workload = classifier(lambda: nn.BatchNorm1d(6))
    model, state = workload.model(0), torch.get_rng_state()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    first, again = (measure_downhill(workload, model, batch_sizes=[4], lr=0.3, repeats=3) for _ in range(2))
    assert first == again
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_batch_with_batch_normalisation_goes_through_in_one_pass() -> None:
    workload = classifier(lambda: nn.BatchNorm1d(6))
    found = measured(workload, batch_sizes=[20], lr=0.8, repeats=1, seed=9, at_once=15)[0]
    generator = torch.Generator().manual_seed(9)
    pool = torch.randperm(30, generator=generator)
    net = workload.model(0)

    def loss() -> float:
        return sum(float(workload.loss(net, workload.batch(half)).detach()) for half in pool.split(15)) / 2

    before = loss()
    workload.loss(net, workload.batch(pool[torch.randint(30, (20,), generator=generator)])).backward()
    torch.optim.SGD(net.parameters(), lr=0.8).step()
    assert found.fall.value == pytest.approx(before - loss(), rel=1e-9)


def test_chance_in_the_loss_and_batches_too_small_are_said() -> None:
    for workload, reason in (
        (classifier(nn.Dropout), "without any step"),
        (classifier(lambda: nn.BatchNorm1d(6)), "a batch of 1 has no loss"),
    ):
        found = measure_downhill(workload, workload.model(0), batch_sizes=[8, 1], lr=0.1)
        assert isinstance(found, NotApplicable)
        assert reason in found.reason


@pytest.mark.parametrize("bad", [{"batch_sizes": []}, {"batch_sizes": [0]}, {"repeats": 0}, {"sample": 0}])
def test_impossible_requests(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="at least 1 of each"):
        measured(pair(1.0), **bad)
