"""Histograms of gradient values, against NumPy, the normal distribution, and gradients known by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from batchscope.errors import UsageError
from batchscope.probes.gradient_histogram import (
    GradientHistogram,
    Histogram,
    Shape,
    measure_histograms,
    symmetric_limit,
)
from batchscope.store.codec import decode, encode
from batchscope.store.not_applicable import NotApplicable
from batchscope.tasks.protocol import task
from batchscope.tasks.workload import Workload

EXAMPLES = 200


def ready(model: Any) -> Workload:
    """Loss `mean_i w·z_i`, whose gradient is the mean of the `z_i`: standard normal values."""
    generator = torch.Generator().manual_seed(6)
    part = TensorDataset(torch.randn(EXAMPLES, 5, generator=generator, dtype=torch.float64))
    return Workload(
        task(
            model=model,
            train=part,
            val=part,
            loss=lambda model, batch: model(batch[0]).mean(),
            optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
        )
    )


def linear() -> nn.Module:
    return nn.Linear(5, 1).double()


def measured(workload: Workload, **changes: Any) -> tuple[GradientHistogram, ...]:
    found = measure_histograms(workload, workload.model(0), **{"batch_sizes": (1, 16), "repeats": 40, **changes})
    assert isinstance(found, tuple)
    return found


def normal(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_counts_are_those_of_numpy() -> None:
    values = normal(5000)
    found = Histogram.empty(limit=2.0, bins=21).with_values(values.view(50, 100))
    expected, _ = np.histogram(values.numpy(), bins=21, range=(-2.0, 2.0))
    assert list(found.counts) == expected.tolist()
    assert (found.below, found.above) == (int((values < -2).sum()), int((values > 2).sum()))
    assert found.total == 5000


def test_parts_add_up_to_the_whole() -> None:
    empty = Histogram.empty(limit=2.0, bins=11, marks=(0.5, -1.0))
    a, b = normal(300, 1), normal(200, 2)
    whole = empty.with_values(torch.cat([a, b]))
    assert empty.with_values(a) + empty.with_values(b) == whole == empty.with_values(a).with_values(b)
    assert decode(Histogram, encode(whole)) == whole
    with pytest.raises(ValueError, match="cannot be added"):
        _ = whole + Histogram.empty(limit=2.0, bins=13, marks=(0.5, -1.0))


def test_peak_and_width_of_a_normal_distribution() -> None:
    """Its full width at half maximum is `2 √(2 ln 2) σ`; here at equally spaced quantiles, so without chance."""
    uniform = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    found = Histogram.empty(limit=3.0, bins=101).with_values(0.3 + 0.5 * torch.special.ndtri(uniform))
    assert (shape := found.shape()) is not None
    assert shape.mode == pytest.approx(0.3, abs=found.bin_width)
    assert shape.full_width_at_half_maximum == pytest.approx(2 * math.sqrt(2 * math.log(2)) * 0.5, rel=0.01)
    assert shape.resolution == pytest.approx(found.bin_width)


@pytest.mark.parametrize("count", [300, 3000, 100_000])
def test_chance_makes_no_peak_and_no_dip(count: int) -> None:
    found = Histogram.empty(limit=5.0).with_values(normal(count)).shape()
    assert found is not None
    assert found.full_width_at_half_maximum == pytest.approx(2.355, rel=0.25 if count == 300 else 0.1)
    assert found.mode == pytest.approx(0.0, abs=0.6 if count == 300 else 0.4)


def test_width_by_hand() -> None:
    """Bins of width 2: half of the peak is crossed a third of the way on the left, three quarters on the right."""
    found = Histogram(limit=5.0, counts=(100, 400, 600, 200, 0), below=0, above=0, zeros=9, tails=())
    expected = Shape(mode=0.0, full_width_at_half_maximum=2.0 * ((1 + 1 / 3) + 3 / 4), resolution=2.0)
    assert found.shape() == expected


def test_a_peak_at_a_limit_and_no_values() -> None:
    assert Histogram.empty(limit=1.0, bins=3).shape() is None
    cut = Histogram(limit=1.5, counts=(5, 4, 1), below=0, above=0, zeros=0, tails=()).shape()
    assert cut == Shape(mode=-1.0, full_width_at_half_maximum=None, resolution=1.0)


def test_tails_zeros_and_what_is_no_number() -> None:
    values = torch.tensor([-3.0, -1.0, 0.0, 0.0, 1.0, 1.5, 9.0, math.inf, math.nan])
    found = Histogram.empty(limit=2.0, bins=5, marks=(1.0, -1.0, 5.0)).with_values(values)
    assert [(t.count, t.count_of_both_signs) for t in found.tails] == [(4, 6), (2, 6), (2, 2)]
    assert (found.zeros, found.below, found.above, sum(found.counts), found.total) == (2, 1, 2, 3, 8)


def test_the_gradient_of_a_linear_loss_is_the_mean_of_its_examples() -> None:
    """For B = 1 all values are those of the data; the width falls as 1/√B."""
    workload = ready(linear)
    one, sixteen = measured(workload, repeats=400, marks=(1.0,))
    assert (one.layer, one.repeats, one.histogram.total) == ("weight", 400, 2000)
    data = workload.tensors[0]
    share = one.histogram.tails[0].count / 2000
    assert share == pytest.approx(float((data >= 1).double().mean()), abs=0.04)
    widths = [r.shape.full_width_at_half_maximum or 0.0 for r in (one, sixteen) if r.shape]
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.2)
    assert one.histogram.limit == sixteen.histogram.limit


def test_calls_with_one_limit_can_be_added() -> None:
    workload = ready(linear)
    first, second = (measured(workload, limit=4.0, seed=seed, bins=11)[0].histogram for seed in (1, 2))
    assert (first + second).total == first.total + second.total == 400
    assert first != second


def test_the_model_and_the_generators_are_left_alone() -> None:
    workload = ready(linear)
    model = workload.model(0)
    state = torch.get_rng_state()
    first, again = (measure_histograms(workload, model, batch_sizes=[3], repeats=2, seed=5) for _ in range(2))
    assert first == again
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_where_it_does_not_apply() -> None:
    class Nothing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(1, 5, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return 0 * self.w * x

    workload = ready(Nothing)
    found = measure_histograms(workload, workload.model(0), batch_sizes=[2])
    assert isinstance(found, NotApplicable)
    assert "the gradient of w is zero" in found.reason
    flat = ready(lambda: nn.LayerNorm(5).double())
    assert isinstance(measure_histograms(flat, flat.model(0), batch_sizes=[2]), NotApplicable)
    assert symmetric_limit([torch.tensor([math.nan, 0.0])]) is None


@pytest.mark.parametrize("bad", [{"bins": 10}, {"repeats": 0}, {"batch_sizes": ()}, {"layer": "weigth"}])
def test_impossible_requests(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"odd number of bins|no trained layer 'weigth'"):
        measured(ready(linear), **bad)


def test_impossible_bins() -> None:
    with pytest.raises(ValueError, match="an odd number of bins"):
        Histogram.empty(limit=math.inf)
