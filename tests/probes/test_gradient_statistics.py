"""Norm, variance and cosine of batch gradients, against gradients taken one example at a time in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.utils.data import TensorDataset

from batchscope.errors import UsageError
from batchscope.probes.gradient_statistics import GradientStatistics, measure_gradients
from batchscope.store.not_applicable import NotApplicable
from batchscope.tasks.protocol import task
from batchscope.tasks.workload import Workload

EXAMPLES = 40
SIZES = (1, 2, 8, 30)


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(EXAMPLES, 4, generator=generator, dtype=torch.float64)
    return x, (x[:, 0] + 0.5 * torch.randn(EXAMPLES, generator=generator) > 0).long()


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()


def ready(model: Any = mlp) -> Workload:
    part = TensorDataset(*data())
    return Workload(
        task(
            model=model,
            train=part,
            val=part,
            loss=lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1]),
            optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
        )
    )


def example_gradients(model: nn.Module, only: str = "") -> Tensor:
    """Shape (examples, weights)."""
    weights = {name: p.detach() for name, p in model.named_parameters()}

    def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(functional_call(model, weights, (x[None],)), y[None])

    each = vmap(grad(loss), in_dims=(None, 0, 0))(weights, *data())
    return torch.cat([g.flatten(1) for name, g in each.items() if name.startswith(only)], dim=1)


def measured(**changes: Any) -> tuple[tuple[GradientStatistics, ...], nn.Module]:
    workload = ready()
    model = workload.model(3)
    arguments: dict[str, Any] = {"batch_sizes": SIZES, "repeats": 150, "seed": 1, **changes}
    found = measure_gradients(workload, model, **arguments)
    assert not isinstance(found, NotApplicable)
    return found, model


@pytest.mark.parametrize("replacement", [True, False])
def test_variance_is_that_of_the_examples_over_the_batch_size(replacement: bool) -> None:
    """Row 27: 1/B with replacement, with the finite population's factor without."""
    records, model = measured(replacement=replacement)
    each = example_gradients(model)
    mean = each.mean(0)
    trace = float((each - mean).square().sum(1).mean())
    for record in records:
        share = 1.0 if replacement else (EXAMPLES - record.batch_size) / (EXAMPLES - 1)
        assert record.full_norm == pytest.approx(float(mean.norm()), rel=1e-12)
        for estimate, true in ((record.variance, trace / record.batch_size * share), (record.example_variance, trace)):
            assert estimate.value is not None
            assert estimate.low is not None
            error = (estimate.value - estimate.low) / 1.65
            assert abs(estimate.value - true) < 3 * error
            assert error < 0.15 * true


def test_norm_and_cosine_of_single_examples_against_all_of_them() -> None:
    records, model = measured(batch_sizes=[1], repeats=400)
    each = example_gradients(model)
    norms, cosines = each.norm(dim=1), torch.cosine_similarity(each, each.mean(0, keepdim=True))
    for estimate, values in ((records[0].norm, norms), (records[0].cosine, cosines)):
        error = float(values.std()) / math.sqrt(400)
        assert estimate.value == pytest.approx(float(values.mean()), abs=4 * error)
    assert records[0].norm_sd == pytest.approx(float(norms.std(correction=0)), rel=0.15)


def test_cosine_rises_and_norm_falls_with_the_batch() -> None:
    records, _ = measured(repeats=50)
    cosines = [record.cosine.value or 0.0 for record in records]
    norms = [record.norm.value or 0.0 for record in records]
    assert cosines == sorted(cosines)
    assert norms == sorted(norms, reverse=True)


def test_the_whole_sample_is_the_full_gradient() -> None:
    records, _ = measured(batch_sizes=[EXAMPLES], repeats=3, replacement=False)
    assert records[0].variance.value == pytest.approx(0.0, abs=1e-28)
    assert records[0].cosine.value == pytest.approx(1.0, rel=1e-12)
    assert records[0].example_variance.value is None


def test_one_layer_in_small_passes_over_a_part() -> None:
    records, model = measured(layer="2", at_once=7, sample=None, batch_sizes=[16], repeats=2)
    assert records[0].full_norm == pytest.approx(float(example_gradients(model, "2.weight").mean(0).norm()), rel=1e-12)
    part, _ = measured(sample=10, batch_sizes=[4], repeats=1)
    assert (part[0].sample, part[0].norm_sd, part[0].variance.low) == (10, None, None)


def test_a_zero_gradient_has_no_cosine() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(2))

        def forward(self, x: Tensor) -> Tensor:
            return 0 * self.w * x[:, :2]

    workload = ready(Flat)
    found = measure_gradients(workload, workload.model(0), batch_sizes=[2], repeats=2)
    assert isinstance(found, tuple)
    assert (found[0].cosine.value, found[0].cosine.n, found[0].full_norm) == (None, 0, 0.0)


def test_the_model_its_gradients_and_the_generators_are_left_alone() -> None:
    workload = ready()
    model = workload.model(3)
    before, state = [p.detach().clone() for p in model.parameters()], torch.get_rng_state()
    first, again = (measure_gradients(workload, model, batch_sizes=[3], repeats=2, seed=5) for _ in range(2))
    assert first == again
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, model.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_examples_that_depend_on_their_batch_have_no_such_variance() -> None:
    workload = ready(lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)).double())
    found = measure_gradients(workload, workload.model(0), batch_sizes=[1], repeats=2)
    assert isinstance(found, NotApplicable)
    assert found.reason.startswith("1 is batch normalisation")
    other = ready()
    other.independent = False
    assert isinstance(measure_gradients(other, other.model(0), batch_sizes=[1], repeats=2), NotApplicable)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_sizes": [41], "replacement": False}, "a batch of 41 cannot be drawn without replacement from 40"),
        ({"repeats": 0}, "0 repeats"),
        ({"layer": "7"}, "no trained layer '7'; it has 0.weight, 0.bias"),
    ],
)
def test_impossible_requests(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        measured(**changes)
