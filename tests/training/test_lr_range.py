"""The range test against a problem whose edge of stability is known, and against trainings that have none."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.data import TensorDataset

from batchscope.tasks.protocol import Task, task
from batchscope.tasks.workload import Workload
from batchscope.testing.small_trainings import SMALL_TRAININGS, Lion, SmallTraining
from batchscope.training.lr_range import measure_rate_range


def quadratic(
    curvature: float, *, optimizer: type[torch.optim.Optimizer] = torch.optim.SGD, examples: int = 64
) -> Task:
    """Loss ½ h ⟨‖w - 1 - x‖²⟩ with scattered x: gradient descent at a constant rate diverges beyond 2 / h."""
    return task(
        model=lambda: torch.nn.Linear(8, 1, bias=False),
        train=TensorDataset(torch.linspace(-1.0, 1.0, examples)[:, None]),
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


class OwnSGD(torch.optim.SGD):
    """Of a class that is not torch's own, so that how it answers to the scale of the gradient is measured."""


class OwnAdam(torch.optim.Adam):
    """The same."""


def test_the_optimizers_kind_is_known_or_measured() -> None:
    kinds = {
        kind: measure_rate_range(Workload(quadratic(1.0, optimizer=kind)), batch_size=8, micro_batch_size=8).normalised
        for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop, torch.optim.RAdam, OwnSGD, OwnAdam, Lion)
    }
    assert [kind for kind, normalised in kinds.items() if not normalised] == [torch.optim.SGD, OwnSGD]


def test_a_first_gradient_that_is_nearly_zero_does_not_begin_the_test_beyond_the_edge() -> None:
    """Begun where the weight moves by a ten-thousandth it would start at a learning rate of 10; the edge is 2."""

    class One(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

    made = task(
        model=One,
        train=TensorDataset(torch.zeros(64, 1)),
        loss=lambda model, batch: 0.5 * (model.weight - 1.0 - 1e-5 - batch[0]).square().mean(),
        optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
        evaluate=lambda model: {"val_loss": 1.0},
    )
    found = measure_rate_range(Workload(made), batch_size=8, micro_batch_size=8)
    assert found.broke
    assert found.lrs[0] < 0.1
    assert 2.0 < found.ceiling_lr < 100.0
    assert found.steps > len(found.lrs) + 3


def test_clipping_does_not_hide_how_the_optimizer_answers_to_the_scale() -> None:
    made = quadratic(100.0, optimizer=OwnSGD)
    made.before_update = lambda model: torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)  # type: ignore[attr-defined]
    assert not measure_rate_range(Workload(made), batch_size=8, micro_batch_size=8).normalised


def regression(*, dear: bool) -> Task:
    """Linear regression with SGD whose targets are mostly noise, a few of them far away with `dear` ones."""
    drawn = torch.Generator().manual_seed(0)
    x, weight = torch.randn(1000, 10, generator=drawn), torch.randn(10, generator=drawn) / math.sqrt(10.0)
    noise = 1.5 * torch.randn(1000, generator=drawn)
    if dear:
        noise = noise / torch.rand(1000, generator=drawn).sqrt().clamp(min=0.1)
    return task(
        model=lambda: torch.nn.Linear(10, 1),
        train=TensorDataset(x, x @ weight + noise),
        loss=lambda model, batch: (model(batch[0])[:, 0] - batch[1]).square().mean(),
        optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
        evaluate=lambda model: {"val_loss": 1.0},
    )


@pytest.mark.parametrize("dear", [False, True])
@pytest.mark.parametrize("size", [6, 8, 16])
def test_small_noisy_batches_do_not_break_training_by_chance(size: int, dear: bool) -> None:
    """Good is 0.1 to 0.3; batches of 6 tested alone were up to a thousand times lower in two of sixteen seeds."""
    workload = Workload(regression(dear=dear))
    for seed in range(16):
        found = measure_rate_range(workload, batch_size=size, micro_batch_size=size, seed=seed)
        assert 0.1 / 30 < found.pilot_lr < 0.3 * 30
        assert found.tested_batch_size is not None
        assert 32 <= found.tested_batch_size < 32 + size


def test_two_batches_in_a_row_with_dear_examples_are_no_break() -> None:
    """One example in 200 costs 1,000 more whatever the weights are; the edge is 2."""
    x = torch.linspace(-1.0, 1.0, 2000)
    made = task(
        model=lambda: torch.nn.Linear(8, 1, bias=False),
        train=TensorDataset(x[:, None], 1000.0 * (torch.arange(2000) % 200 == 0)),
        loss=lambda model, batch: (
            0.5 * (next(model.parameters()) - 1.0 - batch[0]).square().sum(1).mean() + batch[1].mean()
        ),
        optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
        evaluate=lambda model: {"val_loss": 1.0},
    )
    workload = Workload(made)
    for seed in range(16):
        found = measure_rate_range(workload, batch_size=32, micro_batch_size=32, seed=seed)
        assert not found.broke or found.ceiling_lr > 2.0


def test_no_batch_is_larger_than_the_data() -> None:
    found = measure_rate_range(Workload(quadratic(1.0, examples=20)), batch_size=8, micro_batch_size=8)
    assert (found.batch_size, found.tested_batch_size) == (8, 16)


class Grouped(torch.nn.Module):
    """Two weights with a quadratic loss each."""

    def __init__(self) -> None:
        super().__init__()
        self.free, self.fixed = (torch.nn.Parameter(torch.zeros(8)) for _ in range(2))


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_a_parameter_group_with_its_own_learning_rate_neither_shifts_nor_follows(
    kind: type[torch.optim.SGD | torch.optim.Adam],
) -> None:
    made_at: list[torch.optim.Optimizer] = []

    def optimizer(model: Grouped, lr: float, *, own: bool) -> torch.optim.Optimizer:
        groups = [{"params": [model.free], "lr": lr}, {"params": [model.fixed], "lr": 1e-3}]
        made_at.append(kind(groups if own else groups[:1], lr=lr))
        return made_at[-1]

    def pilot(*, own: bool) -> float:
        made = task(
            model=Grouped,
            train=TensorDataset(torch.linspace(-1.0, 1.0, 64)[:, None]),
            loss=lambda model, batch: torch.stack(
                [0.5 * (each - 1.0 - batch[0]).square().sum(1).mean() for each in model.parameters()]
            ).sum(),
            optimizer=lambda model, lr: optimizer(model, lr, own=own),
            evaluate=lambda model: {"val_loss": 1.0},
        )
        return measure_rate_range(Workload(made), batch_size=32, micro_batch_size=32).pilot_lr

    alone = pilot(own=False)
    assert alone / 3 < pilot(own=True) < 3 * alone
    assert {made.param_groups[1]["lr"] for made in made_at if len(made.param_groups) == 2} == {1e-3}


@pytest.mark.parametrize("training", SMALL_TRAININGS, ids=lambda training: training.name)
def test_a_first_look_is_within_a_factor_of_ten_of_a_good_learning_rate(training: SmallTraining) -> None:
    """What is good was found by a grid (`benchmarks/search/first_learning_rates.py`)."""
    workload = Workload(training.make(), name=training.name)
    lowest, highest = training.good
    for seed in range(3):
        size = training.batch_size
        found = measure_rate_range(workload, batch_size=size, micro_batch_size=size, seed=seed)
        assert lowest / 10 <= found.pilot_lr <= 10 * highest
        assert found.steps <= 25
        assert lowest / 10 <= found.highest_lr


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
    found = measure_rate_range(Workload(quadratic(1.0)), batch_size=32, micro_batch_size=8)
    confirmed = 1
    assert found.steps == len(found.lrs) + 1 + confirmed == len(found.losses) + 1 + confirmed
    assert found.steps <= 25
    assert found.examples == 32 * found.steps
    assert math.isclose(found.lrs[1] / found.lrs[0], 2.0)
    assert found.pilot_lr == pytest.approx(found.ceiling_lr / 12, rel=1e-2)


def test_the_order_of_the_data_is_drawn_no_second_time_for_a_test_without_a_bad_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    workload = Workload(quadratic(1.0))
    monkeypatch.setattr(workload, "indices_of", lambda *of: asked.append(1))
    found = measure_rate_range(workload, batch_size=8, micro_batch_size=8)
    assert None not in found.losses
    assert not asked
