"""Where batch normalisation is put into a model, and ghost batches against a loop over the parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from batchscope.errors import UsageError
from batchscope.probes.base import coupled
from batchscope.store.not_applicable import NotApplicable
from batchscope.tasks.batch_norm import GhostBatchNorm, Where, normalised, normalised_places
from batchscope.tasks.loading import load_task
from batchscope.tasks.protocol import task
from batchscope.tasks.workload import Workload


def ready(model: Callable[[], nn.Module], *, shape: tuple[int, ...] = (4,)) -> Workload:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(12, *shape, generator=generator)
    part = TensorDataset(x, torch.randint(3, (12,), generator=generator))
    return Workload(
        task(
            model=model,
            train=part,
            val=part,
            loss=lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
            optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
        )
    )


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def convolutions() -> nn.Module:
    body = nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(inplace=True))
    return nn.Sequential(body, nn.Flatten(), nn.Linear(12, 7), nn.GELU(), nn.Linear(7, 3))


def made(workload: Workload, where: Where, *, ghost: int | None = None, seed: int = 0) -> nn.Module:
    factory = normalised(workload, where, ghost=ghost)
    assert not isinstance(factory, NotApplicable), factory.reason
    torch.manual_seed(seed)
    return factory()


def kinds(model: nn.Module) -> list[str]:
    return [type(m).__name__ for m in model.modules() if not list(m.children()) and not isinstance(m, nn.Identity)]


def reason(model: Callable[[], nn.Module], **how: Any) -> str:
    found = normalised(ready(model, **how), "before")
    assert isinstance(found, NotApplicable)
    return found.reason


def test_none_takes_out_what_the_model_has() -> None:
    assert kinds(made(ready(perceptron), "none")) == ["Linear", "Tanh", "Linear", "ReLU", "Linear"]


def test_before_and_after_each_activation_and_nowhere_else() -> None:
    workload = ready(convolutions, shape=(2, 4, 4))
    assert normalised_places(workload) == {"0.2": (4, 3), "3": (2, 7)}
    assert kinds(made(workload, "before")) == (
        ["Conv2d", "BatchNorm2d", "ReLU", "Flatten", "Linear", "BatchNorm1d", "GELU", "Linear"]
    )
    assert kinds(made(workload, "after")) == (
        ["Conv2d", "ReLU", "BatchNorm2d", "Flatten", "Linear", "GELU", "BatchNorm1d", "Linear"]
    )
    assert kinds(made(workload, "before", ghost=2)).count("GhostBatchNorm") == 2


@pytest.mark.parametrize("where", ["none", "before", "after"])
def test_the_models_own_weights_are_the_same_for_a_seed(where: Where) -> None:
    workload = ready(convolutions, shape=(2, 4, 4))
    torch.manual_seed(5)
    own = {n: p for n, p in convolutions().named_parameters() if p.ndim > 1}
    model = made(workload, where, seed=5)
    ours = dict(model.named_parameters())
    assert own.keys() <= ours.keys()
    assert all(torch.equal(ours[name], value) for name, value in own.items())
    added = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert all(bool((m.weight == 1).all() and (m.bias == 0).all()) for m in added)


def test_the_forward_pass_written_out() -> None:
    workload = ready(perceptron)
    model = made(workload, "after")
    x = workload.batch(torch.arange(12))[0]
    first, second, third = (m for m in model.modules() if isinstance(m, nn.Linear))

    def normal(h: Tensor) -> Tensor:
        return (h - h.mean(0)) / (h.var(0, correction=0) + 1e-5).sqrt()

    expected = third(normal(torch.relu(second(normal(torch.tanh(first(x)))))))
    torch.testing.assert_close(model(x), expected)


def test_a_task_can_be_trained_with_it() -> None:
    workload = Workload(load_task("digits", ["model=cnn", "norm=batch"]).task)
    for where in ("none", "before", "after"):
        model = made(workload, where)
        workload.loss(model, workload.batch(torch.arange(8))).backward()
        assert all(p.grad is not None for p in model.parameters())
        assert (coupled(workload, model) is None) == (where == "none")


def test_an_activation_that_is_the_output_is_left_alone() -> None:
    workload = ready(lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3), nn.Softplus(), nn.Flatten()))
    assert normalised_places(workload) == {"1": (2, 6)}
    assert "no place" in reason(lambda: nn.Sequential(nn.Linear(4, 3), nn.Sigmoid()))


def test_one_activation_at_two_places_of_a_sequence_becomes_two() -> None:
    def model() -> nn.Module:
        act = nn.ReLU()
        return nn.Sequential(nn.Linear(4, 6), act, nn.Linear(6, 5), act, nn.Linear(5, 3))

    assert normalised_places(ready(model)) == {"1": (2, 6), "3": (2, 5)}
    assert kinds(made(ready(model), "before")).count("BatchNorm1d") == 2


class Reused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 3)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.act(self.second(self.act(self.first(x)))))


class Calls(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))


class Steps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.second = nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.act(self.first(x))).mean(1)


def test_what_cannot_be_configured_is_said_with_its_reason() -> None:
    assert "used 2 times in a forward pass, with inputs of shape (4, 6) and (4, 5)" in reason(Reused)
    assert "function calls cannot be seen" in reason(Calls)
    assert "shape (4, 2, 6)" in reason(Steps, shape=(2, 4))
    none = normalised(ready(Calls), "none")
    assert not isinstance(none, NotApplicable)


def test_a_loss_that_runs_the_model_twice_is_no_second_place() -> None:
    workload = ready(perceptron)
    once = workload.task.loss
    workload.task = task(
        model=perceptron,
        train=workload.task.train_data(),
        loss=lambda model, batch: once(model, batch) + once(model, batch),
        optimizer=workload.task.optimizer,
    )
    assert normalised_places(workload) == {"2": (2, 6), "4": (2, 5)}


def test_configurations_that_make_no_sense() -> None:
    workload = ready(perceptron)
    for where, ghost in (("none", 4), ("before", 0), ("under", None)):
        with pytest.raises(UsageError, match=r"no sense|not known"):
            normalised(workload, where, ghost=ghost)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="no sense"):
        GhostBatchNorm(3, ghost=0)


# --- ghost batches ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("examples", "parts"), [(12, [4, 4, 4]), (14, [4, 4, 6]), (7, [7]), (8, [4, 4]), (3, [3])])
@pytest.mark.parametrize("shape", [(5,), (5, 3, 2)])
def test_each_part_has_statistics_of_its_own(examples: int, parts: list[int], shape: tuple[int, ...]) -> None:
    x = torch.randn(examples, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours = GhostBatchNorm(5, ghost=4).double()
    mean, variance = torch.zeros(5, dtype=torch.float64), torch.ones(5, dtype=torch.float64)
    expected: list[Tensor] = []
    for part in x.split(parts):
        table = part.movedim(1, -1).reshape(-1, 5)
        normal = (table - table.mean(0)) / (table.var(0, correction=0) + 1e-5).sqrt()
        expected.append(normal.reshape(part.movedim(1, -1).shape).movedim(-1, 1))
        mean = 0.9 * mean + 0.1 * table.mean(0)
        variance = 0.9 * variance + 0.1 * table.var(0)
    torch.testing.assert_close(ours(x), torch.cat(expected))
    torch.testing.assert_close(ours.running_mean, mean)
    torch.testing.assert_close(ours.running_var, variance)


def test_in_evaluation_mode_a_ghost_is_plain_batch_normalisation() -> None:
    x = torch.randn(20, 5)
    ghost, plain = GhostBatchNorm(5, ghost=4), nn.BatchNorm1d(5)
    ghost(x)
    plain.load_state_dict(ghost.state_dict())
    assert torch.equal(ghost.eval()(x), plain.eval()(x))
    with pytest.raises(ValueError, match="at least 2 dimensions"):
        ghost.train()(torch.zeros(3))
