"""What is measured on models with batch normalisation, against the same written out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from batchscope.laboratory.studies.batch_norm.measure import (
    measured_definition,
    measured_robustness,
    measured_shift,
    refusal,
)
from batchscope.probes.covariate_shift import measure_covariate_shift
from batchscope.tasks.batches import index_stream
from batchscope.tasks.protocol import task
from batchscope.tasks.workload import Workload

BATCH = 12


def ready(*layers: nn.Module, codes: bool = False) -> Workload:
    generator = torch.Generator().manual_seed(2)
    x = 3 * torch.randn(40, 4, generator=generator) + 1
    part = TensorDataset((x > 0).long() if codes else x, torch.randint(3, (40,), generator=generator))
    return Workload(
        task(
            model=lambda: copy.deepcopy(nn.Sequential(*layers)),
            train=part,
            val=part,
            loss=lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
            optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
        )
    )


def trained_norm() -> nn.BatchNorm1d:
    """Scales and shifts as after training, and running statistics of another batch."""
    norm = nn.BatchNorm1d(5)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, -2.0, 1.5, 0.0, 1.0]))
        norm.bias.copy_(torch.tensor([1.0, 0.0, -3.0, 0.2, 0.0]))
        assert norm.running_mean is not None
        norm.running_mean.fill_(0.3)
    return norm


def test_the_definition_is_measured_in_front_of_scale_and_shift() -> None:
    torch.manual_seed(0)
    first = nn.Linear(4, 5)
    workload = ready(first, norm := trained_norm(), nn.Tanh(), nn.Linear(5, 3))
    evaluation, training = measured_definition(workload, workload.model(0), BATCH)
    assert (evaluation["mode"], training["mode"], training["layer"]) == ("evaluation", "training", "1")
    assert (training["channels"], training["flat"]) == (5, 1)
    assert training["mean"] < 1e-6
    assert training["deviation"] < 1e-4
    h = first(workload.batch(next(index_stream(40, BATCH, 0)))[0]).detach()[:, [0, 1, 2, 4]]
    normal = (h - 0.3) / (1 + norm.eps) ** 0.5
    assert evaluation["mean"] == pytest.approx(float(normal.mean(0).abs().max()), rel=1e-4)
    assert evaluation["deviation"] == pytest.approx(float((normal.std(0, correction=0) - 1).abs().max()), rel=1e-4)


def test_a_step_on_one_example_is_refused_or_not() -> None:
    torch.manual_seed(0)
    phrase = refusal(ready(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)), 1)
    assert phrase is not None
    assert "Expected more than 1 value per channel" in phrase
    assert refusal(ready(nn.Linear(4, 5), nn.Linear(5, 3)), 1) is None


def test_the_shift_of_gradients_is_a_mean_over_two_batches() -> None:
    torch.manual_seed(0)
    workload = ready(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    model = workload.model(0)
    stream = index_stream(40, BATCH, 1)
    shifts: list[Any] = []
    for _ in range(2):
        found = measure_covariate_shift(workload, model, workload.batch(next(stream)), lr=0.5)
        assert isinstance(found, tuple)
        shifts.append(found[0])
    expected = {n: pytest.approx(sum(getattr(s, n) for s in shifts) / 2) for n in ("relative", "cosine")}
    assert measured_shift(workload, model, batch_size=BATCH, lr=0.5) == {"2": expected}


def test_what_does_not_apply_is_a_reason() -> None:
    workload = ready(nn.Linear(4, 3))
    found = measured_shift(workload, workload.model(0), batch_size=BATCH, lr=0.5)
    assert "none is below another" in str(found["not_applicable"])
    codes = ready(nn.Embedding(2, 3), nn.Flatten(), nn.Linear(12, 3), codes=True)
    robustness = measured_robustness(codes, codes.model(0))
    assert isinstance(robustness, dict)
    assert "whole numbers" in robustness["not_applicable"]
