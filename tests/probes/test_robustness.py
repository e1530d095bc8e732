"""Disturbed inputs against closed forms of an affine model, and against the disturbance written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from batchscope.errors import UsageError
from batchscope.probes.robustness import OUTLIER, Disturbed, measure_robustness
from batchscope.store.not_applicable import NotApplicable
from batchscope.tasks.loading import load_task
from batchscope.tasks.protocol import task
from batchscope.tasks.workload import Workload

EXAMPLES = 4000
X = 3.0 * torch.randn(EXAMPLES, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1.0
SIGMA, MEAN = float(X.std(correction=0)), float(X.mean())
WEIGHT = torch.tensor([[0.5, -0.2]], dtype=torch.float64)
SQUARE = float(WEIGHT.square().sum())


def affine() -> nn.Module:
    model = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    model.weight.data.copy_(WEIGHT)
    return model


def ready(run: Callable[[nn.Module, Tensor], Tensor] = lambda model, x: model(x), x: Tensor = X) -> Workload:
    """Targets are the model's own answers, so that the loss of the undisturbed model is 0."""
    part = TensorDataset(x, x.double() @ WEIGHT.T)
    return Workload(
        task(
            model=affine,
            train=part,
            val=part,
            loss=lambda model, batch: F.mse_loss(run(model, batch[0]), batch[1]),
            optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
        )
    )


def measured(workload: Workload, model: nn.Module | None = None, **how: Any) -> tuple[Disturbed, ...]:
    found = measure_robustness(workload, model or affine(), **how)
    assert not isinstance(found, NotApplicable)
    return found


def losses(workload: Workload, **how: Any) -> list[float]:
    return [record.metrics["val_loss"] for record in measured(workload, **how)]


def test_a_shift_by_closed_form() -> None:
    """`w·(x + sσ)` is off by `sσ Σw`, everywhere."""
    none, *shifted = losses(ready(), strengths={"shift": (0.5, 2.0)})
    assert none == pytest.approx(0.0, abs=1e-20)
    expected = [(s * SIGMA * float(WEIGHT.sum())) ** 2 for s in (0.5, 2.0)]
    assert shifted == pytest.approx(expected, rel=1e-9)


def test_noise_by_closed_form() -> None:
    """The mean square error is `s² σ² |w|²`; over n examples it has a relative deviation of √(2/n)."""
    found = losses(ready(), strengths={"noise": (0.5, 2.0)})[1:]
    tolerance = 4 * (2 / EXAMPLES) ** 0.5
    assert found == pytest.approx([(s * SIGMA) ** 2 * SQUARE for s in (0.5, 2.0)], rel=tolerance)
    assert found[1] == pytest.approx(16 * found[0], rel=1e-9)


def test_outliers_by_closed_form() -> None:
    """A replaced number is off by `±5σ − (x − m)`, in the mean square 26 σ²; a share s is replaced."""
    share = 0.1
    found = losses(ready(), strengths={"outliers": (share,)})[1]
    assert found == pytest.approx(share * (OUTLIER**2 + 1) * SIGMA**2 * SQUARE, rel=0.1)


def test_what_the_model_receives_is_the_rule_written_out() -> None:
    seen: list[Tensor] = []

    def run(model: nn.Module, x: Tensor) -> Tensor:
        handle = model.register_forward_hook(lambda module, args, output: seen.append(args[0]))
        answer = model(x)
        handle.remove()
        return answer

    measured(ready(run), strengths={"outliers": (0.3,), "noise": (1.0,)}, seed=4)
    x, outliers, noisy = (torch.cat(part) for part in zip(*[iter(seen)] * 4, strict=True))
    assert torch.equal(x, X)
    replaced = outliers != X
    assert float(replaced.double().mean()) == pytest.approx(0.3, abs=0.03)
    distances = (outliers[replaced] - MEAN) / SIGMA
    torch.testing.assert_close(distances.abs(), torch.full_like(distances, OUTLIER))
    assert float((distances > 0).double().mean()) == pytest.approx(0.5, abs=0.05)
    generator = torch.Generator().manual_seed(4)
    drawn = torch.cat([torch.randn(1000, 2, generator=generator) for _ in range(4)])
    torch.testing.assert_close(noisy, X + SIGMA * drawn.double())


def test_every_model_receives_the_same_disturbance_and_is_left_as_it_was() -> None:
    workload, model = ready(), affine().train()
    before = torch.get_rng_state()
    first, second = measured(workload, model), measured(workload, model)
    assert first == second
    assert first != measured(workload, model, seed=1)
    assert [r.kind for r in first] == ["none", *["noise"] * 3, *["shift"] * 3, *["outliers"] * 3]
    assert model.training
    assert not model._forward_pre_hooks
    assert torch.equal(torch.get_rng_state(), before)


class Pair(NamedTuple):
    codes: Tensor
    values: Tensor


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = affine()

    def forward(self, named: Any) -> Tensor:
        return self.inner((named["pair"] if isinstance(named, dict) else named).values)


@pytest.mark.parametrize("wrap", [lambda pair: pair, lambda pair: {"n": 1, "pair": pair}])
@pytest.mark.parametrize("named", [True, False])
def test_inputs_are_found_however_deep(wrap: Callable[[Any], Any], named: bool) -> None:
    def run(model: nn.Module, x: Tensor) -> Tensor:
        given = wrap(Pair(torch.zeros(len(x), dtype=torch.int64), x))
        return model(named=given) if named else model(given)

    strengths = {"shift": (0.5,)}
    assert measured(ready(run), Nested(), strengths=strengths) == measured(ready(), strengths=strengths)


def test_all_metrics_of_a_task_are_there() -> None:
    workload = Workload(load_task("digits").task)
    model = workload.model(0)
    found = measured(workload, model, strengths={"noise": (0.5,), "outliers": (0.0,)})
    assert found[0].metrics == found[2].metrics == workload.evaluate(model)
    assert set(found[1].metrics) == {"val_loss", "val_accuracy", "test_loss", "test_accuracy"}
    assert found[1].metrics["val_loss"] != found[0].metrics["val_loss"]


def test_what_cannot_be_disturbed_is_said() -> None:
    def reason(workload: Workload, model: nn.Module) -> str:
        found = measure_robustness(workload, model)
        assert isinstance(found, NotApplicable)
        return found.reason

    codes = torch.arange(8).reshape(4, 2)
    assert "whole numbers" in reason(ready(x=codes), Codes())
    assert "all alike" in reason(ready(x=torch.ones(4, 2, dtype=torch.float64)), affine())


class Codes(nn.Module):
    def forward(self, codes: Tensor) -> Tensor:
        return codes.double() @ WEIGHT.T


@pytest.mark.parametrize("strengths", [{"noise": (-1.0,)}, {"outliers": (1.5,)}, {"blur": (1.0,)}])
def test_strengths_that_make_no_sense(strengths: Any) -> None:
    with pytest.raises(UsageError, match=r"no sense|not known"):
        measure_robustness(ready(), affine(), strengths=strengths)
