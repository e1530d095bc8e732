"""The range test against a problem whose edge of stability is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.data import TensorDataset

from batchscope.tasks.protocol import Task, task
from batchscope.tasks.workload import Workload
from batchscope.training.lr_range import measure_rate_range


def quadratic(curvature: float, *, optimizer: type[torch.optim.Optimizer] = torch.optim.SGD) -> Task:
    """Loss ½ h ⟨‖w - 1 - x‖²⟩ with scattered x: gradient descent at a constant rate diverges beyond 2 / h."""
    return task(
        model=lambda: torch.nn.Linear(8, 1, bias=False),
        train=TensorDataset(torch.linspace(-1.0, 1.0, 64)[:, None]),
        loss=lambda model, batch: 0.5 * curvature * (next(model.parameters()) - 1.0 - batch[0]).square().sum(1).mean(),
        optimizer=lambda params, lr: optimizer(params, lr=lr),
        evaluate=lambda model: {"val_loss": 1.0},
    )


@pytest.mark.parametrize("curvature", [0.01, 1.0, 100.0])
def test_the_ceiling_follows_the_edge_of_stability(curvature: float) -> None:
    found = measure_rate_range(Workload(quadratic(curvature)), batch_size=8, micro_batch_size=8)
    edge = 2.0 / curvature
    assert found.broke
    # The rate doubles every step, and has passed the edge a few times over before the loss shows it.
    assert edge < found.ceiling_lr <= 16 * edge


def test_the_optimizers_kind_is_measured() -> None:
    kinds = {
        kind: measure_rate_range(Workload(quadratic(1.0, optimizer=kind)), batch_size=8, micro_batch_size=8).normalised
        for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop)
    }
    assert kinds == {torch.optim.SGD: False, torch.optim.Adam: True, torch.optim.AdamW: True, torch.optim.RMSprop: True}


def test_accumulation_changes_nothing() -> None:
    workload = Workload(quadratic(1.0))
    whole = measure_rate_range(workload, batch_size=16, micro_batch_size=16)
    cut = measure_rate_range(workload, batch_size=16, micro_batch_size=4)
    assert cut.lrs == pytest.approx(whole.lrs, rel=1e-5)
    assert cut.losses == pytest.approx(whole.losses, rel=1e-4)


def test_f24_the_callers_random_state_is_left_as_it_was() -> None:
    workload = Workload(quadratic(1.0))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    measure_rate_range(workload, batch_size=8, micro_batch_size=8)
    assert torch.equal(before, torch.get_rng_state())


def test_the_cost_is_the_steps_it_counts() -> None:
    found = measure_rate_range(Workload(quadratic(1.0)), batch_size=8, micro_batch_size=8)
    assert found.steps == len(found.lrs) + 2 == len(found.losses) + 2
    assert found.steps < 40
    assert math.isclose(found.lrs[1] / found.lrs[0], 2.0)
    assert found.pilot_lr == pytest.approx(found.ceiling_lr / 12, rel=1e-2)
