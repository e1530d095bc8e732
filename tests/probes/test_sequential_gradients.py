"""Shen's sums: against his published loop written out, a recursion, and the gradient of the whole batch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from batchscope.errors import UsageError
from batchscope.probes.sequential_gradients import SequentialNorms, measure_sequential_gradients
from batchscope.store.codec import encode
from batchscope.store.not_applicable import NotApplicable
from batchscope.tasks.protocol import task
from batchscope.tasks.workload import Workload

EXAMPLES = 50


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()


def ready(model: Any = perceptron) -> Workload:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(EXAMPLES, 4, generator=generator, dtype=torch.float64)
    part = TensorDataset(x, torch.randint(3, (EXAMPLES,), generator=generator))
    return Workload(
        task(
            model=model,
            train=part,
            val=part,
            loss=lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1]),
            optimizer=lambda params, lr: torch.optim.Adam(params, lr=lr),
        )
    )


def measured(workload: Workload, model: nn.Module, **changes: Any) -> SequentialNorms:
    arguments: dict[str, Any] = {"batch_sizes": (1, 3, 16), "repeats": 3, "lr": 0.2, "samples": 16, **changes}
    found = measure_sequential_gradients(workload, model, **arguments)
    assert isinstance(found, SequentialNorms)
    return found


def published(workload: Workload, model: nn.Module, indices: Tensor, batch_size: int, lr: float) -> Tensor:
    """The published experiment: reload, go through the samples, add up the last layer's gradients, scale."""
    copy = workload.model(0)
    copy.load_state_dict(model.state_dict())
    optimizer = torch.optim.SGD(copy.parameters(), lr=lr)
    total = torch.zeros(3, 6, dtype=torch.float64)
    for i in range(len(indices) // batch_size):
        optimizer.zero_grad()
        workload.loss(copy, workload.batch(indices[i * batch_size : (i + 1) * batch_size])).backward()
        gradient = copy.get_parameter("2.weight").grad
        assert gradient is not None
        total += gradient
        optimizer.step()
    return total * batch_size / len(indices)


def test_norms_against_the_published_loop() -> None:
    workload = ready()
    model = workload.model(3)
    sums: list[tuple[int, Tensor]] = []
    found = measured(workload, model, seed=7, repeats=2, on_sum=lambda size, total: sums.append((size, total)))
    assert found.layer == "2.weight"
    for repeat in range(2):
        torch.manual_seed(7 * 1_000_003 + repeat)
        indices = torch.randint(EXAMPLES, (16,))
        for i, batch_size in enumerate((1, 3, 16)):
            expected = published(workload, model, indices, batch_size, 0.2)
            assert sums[3 * repeat + i][0] == batch_size
            torch.testing.assert_close(sums[3 * repeat + i][1], expected, rtol=1e-9, atol=1e-12)
            assert found.norms[i][repeat] == pytest.approx(float(expected.norm()), rel=1e-9)


def test_weights_that_do_not_move_give_the_same_mean_at_every_batch_size() -> None:
    """At rate 0 the scaled sum is the mean gradient of the samples, whatever B, where B divides M."""
    workload = ready()
    found = measured(workload, workload.model(1), lr=0.0, batch_sizes=(1, 2, 8, 16))
    for norms in found.norms[1:]:
        assert norms == pytest.approx(found.norms[0], rel=1e-12)


def test_deferred_updates_change_nothing_but_the_rounding() -> None:
    workload = ready()
    deferred, at_once = (measured(workload, workload.model(1), defer=defer) for defer in (True, False))
    for norms, expected in zip(deferred.norms, at_once.norms, strict=True):
        assert norms == pytest.approx(expected, rel=1e-9)


def test_a_bowl_by_hand() -> None:
    """Loss ½ (w − z)² with z = 1 for all: `g_s = (1 − lr)^s (w − 1)`."""

    class Bowl(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.full((1, 1), 3.0, dtype=torch.float64))

        def forward(self, z: Tensor) -> Tensor:
            return self.w - z

    part = TensorDataset(torch.ones(9, 1, dtype=torch.float64))
    workload = Workload(
        task(
            model=Bowl,
            train=part,
            val=part,
            loss=lambda model, batch: 0.5 * model(batch[0]).square().mean(),
            optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
        )
    )
    found = measured(workload, workload.model(0), lr=0.1, samples=10, batch_sizes=(1, 4, 10), repeats=1)
    expected = [size / 10 * sum(2 * 0.9**s for s in range(10 // size)) for size in (1, 4, 10)]
    assert [norms[0] for norms in found.norms] == pytest.approx(expected, rel=1e-12)
    assert [spread.steps for spread in found.spreads()] == [10, 2, 1]


def norms_of(*rows: tuple[float, ...], seconds: tuple[float, ...], first: int = 0) -> SequentialNorms:
    repeats = tuple(range(first, first + len(rows[0])))
    sizes = (1, 4)
    return SequentialNorms(
        layer="w", samples=8, lr=0.1, seed=0, batch_sizes=sizes, repeats=repeats, norms=rows, seconds=seconds
    )


def test_spreads_by_hand() -> None:
    small, large = norms_of((1.0, 2.0, 3.0), (4.0, 8.0, 6.0), seconds=(9.0, 1.0, 2.0)).spreads()
    assert (small.norm.value, small.sd, small.steps) == (2.0, 1.0, 8)
    assert small.relative_error == pytest.approx(1 / math.sqrt(3) / 2)
    assert small.rescaled_sd == pytest.approx(3.0)
    assert large.rescaled_sd == large.sd == 2.0


def test_time_is_predicted_from_the_repeats_after_the_first() -> None:
    predicted = norms_of((1.0,) * 4, (1.0,) * 4, seconds=(9.0, 1.0, 2.0, 3.0)).predicted_seconds(100)
    assert (predicted.value, predicted.n, predicted.unit) == (200.0, 3, "s")
    assert predicted.low is not None
    assert predicted.low < 200.0
    one = norms_of((1.0,), (1.0,), seconds=(2.0,)).predicted_seconds(10)
    assert (one.value, one.low) == (20.0, None)


def test_repeats_in_parts_are_the_repeats_in_one_go() -> None:
    workload = ready(lambda: nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 3)).double())
    model = workload.model(3)
    whole = measured(workload, model, repeats=4)
    later, first = measured(workload, model, repeats=2, first_repeat=2), measured(workload, model, repeats=2)
    joined = later.joined(first)
    assert (joined.norms, joined.repeats) == (whole.norms, whole.repeats)
    assert joined.seconds == first.seconds + later.seconds
    assert encode(joined)["repeats"] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="cannot be joined"):
        first.joined(first)


def test_the_model_and_the_generators_are_left_alone() -> None:
    workload = ready()
    model = workload.model(3)
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    measured(workload, model)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_where_it_does_not_apply() -> None:
    bias_only = ready(lambda: nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 3).requires_grad_(False)).double())
    found = measure_sequential_gradients(bias_only, bias_only.model(0), batch_sizes=[1], repeats=1, lr=0.1)
    assert isinstance(found, NotApplicable)
    assert "no trained weight matrix" in found.reason
    normed = ready(lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).double())
    found = measure_sequential_gradients(normed, normed.model(0), batch_sizes=[4, 1], repeats=1, lr=0.1, samples=8)
    assert isinstance(found, NotApplicable)
    assert "a batch of 1 cannot be trained on" in found.reason
    assert measured(normed, normed.model(0), batch_sizes=(2, 16)).norms[0][0] > 0


@pytest.mark.parametrize("bad", [{"batch_sizes": (17,)}, {"batch_sizes": ()}, {"repeats": 0}, {"first_repeat": -1}])
def test_impossible_requests(bad: dict[str, Any]) -> None:
    workload = ready()
    with pytest.raises(UsageError, match="no batch larger than the samples"):
        measured(workload, workload.model(0), **bad)
