"""Whether loss and gradient are means: on losses that are, by hand in float64, and on three that are not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from batchscope.errors import UsageError
from batchscope.probes.averaging import Averaging, measure_averaging
from batchscope.store.not_applicable import NotApplicable
from batchscope.tasks.protocol import task
from batchscope.tasks.workload import Workload

EXAMPLES = 40


def data(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, targets, and a weight for each example."""
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(EXAMPLES, 3, generator=generator, dtype=torch.float64)
    y = x.sum(1, keepdim=True) + torch.randn(EXAMPLES, 1, generator=generator, dtype=torch.float64)
    return x.to(dtype), y.to(dtype), torch.rand(EXAMPLES, 1, generator=generator, dtype=torch.float64).to(dtype) + 0.5


def squares(model: nn.Module, batch: Any) -> Tensor:
    return (model(batch[0]) - batch[1]).square()


def ready(
    loss: Callable[[nn.Module, Any], Tensor] = lambda model, batch: squares(model, batch).mean(),
    model: Callable[[], nn.Module] = lambda: nn.Linear(3, 1, bias=False).double(),
    train: Dataset[Any] | None = None,
) -> Workload:
    part = train or TensorDataset(*data())
    return Workload(
        task(
            model=model,
            train=part,
            val=part,
            loss=loss,
            optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
        )
    )


def measured(workload: Workload, **changes: Any) -> Averaging:
    found = measure_averaging(workload, workload.model(1), **{"batch_size": 20, **changes})
    assert isinstance(found, Averaging)
    return found


def differences(found: Averaging) -> list[float]:
    return [found.loss_twice, found.gradient_twice, found.loss_of_parts, found.gradient_of_parts]


@pytest.mark.parametrize("parts", [1, 4, 20])
def test_a_mean_of_squares_of_a_linear_model(parts: int) -> None:
    workload = ready()
    found = measured(workload, parts=parts, seed=7)
    chosen = torch.randperm(EXAMPLES, generator=torch.Generator().manual_seed(7))[:20]
    x, y, _ = (t[chosen] for t in data())
    residual = x @ workload.model(1).state_dict()["weight"].T - y
    assert found.loss == pytest.approx(float(residual.square().mean()), rel=1e-12)
    assert found.gradient_norm == pytest.approx(float((2 / 20 * x.T @ residual).norm()), rel=1e-12)
    assert max(differences(found)) < 20 * found.rounding
    assert (found.batch_size, found.parts, found.rounding) == (20, parts, torch.finfo(torch.float64).eps)


def test_a_sum_is_seen_in_all_four() -> None:
    found = measured(ready(lambda model, batch: squares(model, batch).sum()))
    assert differences(found) == pytest.approx([1.0, 1.0, 0.75, 0.75], rel=1e-12)


def test_a_mean_over_something_else_is_seen_in_the_parts() -> None:
    """Weights that differ from example to example, as texts of different length have them in a mean over tokens."""

    def weighted(model: nn.Module, batch: Any) -> Tensor:
        return (batch[2] * squares(model, batch)).sum() / batch[2].sum()

    workload = ready(weighted)
    found = measured(workload, parts=2)
    assert max(found.loss_twice, found.gradient_twice) < 1e-13
    chosen = torch.randperm(EXAMPLES, generator=torch.Generator().manual_seed(0))[:20]
    losses = [float(weighted(workload.model(1), workload.batch(part)).detach()) for part in (chosen[:10], chosen[10:])]
    assert found.loss_of_parts == pytest.approx(abs(sum(losses) / 2 / found.loss - 1), rel=1e-9)
    assert min(found.loss_of_parts, found.gradient_of_parts) > 1e-3


def test_differences_in_float32_are_its_rounding() -> None:
    found = measured(
        ready(
            model=lambda: nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)),
            train=TensorDataset(*data(torch.float32)),
        )
    )
    assert 0 < max(differences(found)) < 20 * found.rounding
    assert found.rounding == torch.finfo(torch.float32).eps


def test_nothing_to_divide_by() -> None:
    found = measured(ready(lambda model, batch: squares(model, batch).mean() * 0))
    assert (found.loss, found.gradient_norm, differences(found)) == (0.0, 0.0, [0.0] * 4)
    shifted = measured(ready(lambda model, batch: squares(model, batch).mean() * 0 + len(batch[0]) - 20.0))
    assert (shifted.loss, shifted.loss_twice, shifted.gradient_twice) == (0.0, math.inf, 0.0)


class Noisy(Dataset[Any]):
    """Augmented differently each time."""

    def __len__(self) -> int:
        return EXAMPLES

    def __getitem__(self, index: int) -> Any:
        x, y, weight = (t[index] for t in data())
        return x + torch.randn(3, dtype=torch.float64), y, weight


def test_what_the_difference_would_otherwise_be_about() -> None:
    def network(between: nn.Module) -> Callable[[], nn.Module]:
        return lambda: nn.Sequential(nn.Linear(3, 6), between, nn.Linear(6, 1)).double()

    for workload, reason in (
        (ready(model=network(nn.BatchNorm1d(6))), "1 is batch normalisation"),
        (ready(model=network(nn.Dropout(0.5))), "chance in it"),
        (ready(train=Noisy()), "chance in it"),
    ):
        found = measure_averaging(workload, workload.model(0), batch_size=20)
        assert isinstance(found, NotApplicable)
        assert reason in found.reason
    contrastive = ready()
    contrastive.independent = False
    assert isinstance(measure_averaging(contrastive, contrastive.model(0), batch_size=20), NotApplicable)


def test_the_model_its_gradients_and_the_generators_are_left_alone() -> None:
    workload = ready()
    model, state = workload.model(3), torch.get_rng_state()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    first, again = (measure_averaging(workload, model, batch_size=20, seed=5) for _ in range(2))
    assert first == again
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("bad", [{"batch_size": 44}, {"batch_size": 0}, {"parts": 3}, {"parts": 0}])
def test_impossible_requests(bad: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="out of 40 examples"):
        measured(ready(), **bad)
