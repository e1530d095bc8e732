"""What probes share: gradients that float16 would lose, and means over parts of unequal weight."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from batchscope.probes.averaging import Averaging, measure_averaging
from batchscope.probes.base import flat, gradients, mean_gradient, shares, square_norm
from batchscope.probes.fixed_loss import FixedLoss
from batchscope.probes.gradient_statistics import measure_gradients
from batchscope.probes.hessian import measure_curvature
from batchscope.probes.sequential_gradients import measure_sequential_gradients
from batchscope.store.not_applicable import NotApplicable
from batchscope.tasks.protocol import Task, task
from batchscope.tasks.workload import Workload

from ..tasks.tokens import Tokens, Unweighted


def small(precision: str, factor: float) -> Task:
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(1))
    part = TensorDataset(x, x[:, :2] * 3)
    return task(
        model=lambda: nn.Linear(6, 2),
        train=part,
        val=part,
        loss=lambda model, batch: factor * (model(batch[0]).float() - batch[1]).square().mean(),
        optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
        precision=precision,  # pyright: ignore[reportArgumentType]
    )


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("factor", [1e-7, 1.0, 1e4])
def test_gradients_in_float16_are_neither_lost_nor_infinite(factor: float) -> None:
    def found(precision: str) -> Tensor:
        workload = Workload(small(precision, factor))
        model = workload.model(0)
        return flat(gradients(workload, model, workload.batch(torch.arange(16)), model.parameters()))

    assert apart(found("float16"), found("float32")) < 5e-3


def test_complex_numbers_count_whole() -> None:
    x = torch.tensor([3.0 + 4.0j, 1.0 - 2.0j])
    assert flat([x]).tolist() == [3.0, 4.0, 1.0, -2.0]
    assert float(flat([x]).square().sum()) == pytest.approx(float(square_norm(x)))


def test_a_parameter_that_the_loss_does_not_depend_on_has_a_gradient_of_zeros() -> None:
    workload = Workload(small("float32", 1.0))
    model = workload.model(0)
    other = nn.Parameter(torch.ones(3))
    found = gradients(workload, model, workload.batch(torch.arange(4)), [*model.parameters(), other])
    assert found[-1].tolist() == [0.0, 0.0, 0.0]
    assert not any(each.requires_grad for each in found)


def test_means_over_parts_of_unequal_tokens_are_that_of_the_whole() -> None:
    workload = Workload(Tokens())
    model, indices = workload.model(0), torch.arange(30)
    parameters = list(model.parameters())
    whole = flat(gradients(workload, model, workload.batch(indices), parameters))
    assert apart(mean_gradient(workload, model, indices, parameters, at_once=7), whole) < 1e-12
    assert sum(shares(workload, indices.split(7))) == pytest.approx(1.0)
    without = Workload(Unweighted())
    assert shares(without, indices.split(7)) == pytest.approx([7 / 30] * 4 + [2 / 30])
    assert apart(mean_gradient(without, model, indices, parameters, at_once=7), whole) > 1e-2


def test_the_average_of_parts_and_the_spread_of_gradients_count_tokens() -> None:
    workload = Workload(Tokens())
    workload.independent = True
    model = workload.model(0)
    averaged: Any = measure_averaging(workload, model, batch_size=12, parts=4)
    assert isinstance(averaged, Averaging)
    assert averaged.gradient_of_parts < 1e-10
    assert averaged.loss_of_parts < 1e-10
    statistics: Any = measure_gradients(workload, model, batch_sizes=[60], repeats=2, at_once=9, replacement=False)
    assert statistics[0].variance.value == pytest.approx(0.0, abs=1e-20)


def test_plain_steps_without_a_scaler_are_not_measured_in_float16() -> None:
    workload = Workload(small("float16", 1.0))
    found = measure_sequential_gradients(workload, workload.model(0), batch_sizes=[4], repeats=1, lr=0.1, samples=8)
    assert isinstance(found, NotApplicable)
    assert "gradient scaler" in found.reason


def test_the_fixed_loss_and_its_curvature_are_those_of_the_mean_over_all_tokens() -> None:
    workload = Workload(Tokens())
    parts, whole = (FixedLoss(workload, workload.model(0), at_once=n) for n in (7, 1000))
    (value, slope), (expected, of_all) = parts.value_and_gradient(), whole.value_and_gradient()
    assert value == pytest.approx(expected, rel=1e-12)
    assert abs(slope - of_all).max() < 1e-12
    traces = [cast(Any, measure_curvature(workload, workload.model(0), at_once=n)).trace.value for n in (7, 1000)]
    assert traces[0] == pytest.approx(traces[1], rel=1e-9)
