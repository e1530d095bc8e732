"""The Hessian's largest eigenvalue and trace against closed forms and against `torch.func.hessian` in float64."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, hessian
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import TensorDataset

from batchscope.errors import UsageError
from batchscope.probes.hessian import Curvature, measure_curvature
from batchscope.store.codec import encode
from batchscope.store.not_applicable import NotApplicable
from batchscope.tasks.builtin.models import Transformer
from batchscope.tasks.protocol import task
from batchscope.tasks.workload import Workload

EXAMPLES = 40

needs_curvlinops = pytest.mark.skipif(
    importlib.util.find_spec("curvlinops") is None,
    reason='curvlinops is not installed: pip install -c constraints.txt ".[hessian]"',
)


def workload_of(model: Callable[[], nn.Module], loss: Callable[[nn.Module, Any], Tensor], data: Any) -> Workload:
    return Workload(
        task(
            model=model,
            train=data,
            loss=loss,
            optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
            evaluate=lambda model: {"val_loss": 1.0},
        )
    )


def vectors_and_labels(features: int, classes: int = 3) -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    return TensorDataset(torch.randn(EXAMPLES, features, generator=generator), torch.arange(EXAMPLES) % classes)


def half_squared_error(model: nn.Module, batch: Any) -> Tensor:
    return 0.5 * F.mse_loss(model(batch[0])[:, 0], batch[1].to(batch[0]))


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def measured(*args: Any, **kwargs: Any) -> Curvature:
    found = measure_curvature(*args, **kwargs)
    assert not isinstance(found, NotApplicable), found.reason
    return found


def reason_of(*args: Any, **kwargs: Any) -> str:
    found = measure_curvature(*args, **kwargs)
    assert isinstance(found, NotApplicable)
    return found.reason


def close(found: float | None, truth: float, rel: float = 2e-3) -> bool:
    return found == pytest.approx(truth, rel=rel)


@needs_curvlinops
@pytest.mark.parametrize(("features", "vectors"), [(40, 10), (12, 30), (1, 2)])
def test_linear_regression_has_the_hessian_of_its_inputs(features: int, vectors: int) -> None:
    """XᵀX / N, whatever the weights; few weights: the whole matrix and no estimate."""
    data = vectors_and_labels(features)
    workload = workload_of(lambda: nn.Linear(features, 1, bias=False), half_squared_error, data)
    x = data.tensors[0].double().numpy()
    truth = x.T @ x / EXAMPLES
    found = measured(workload, workload.model(0), vectors=vectors)
    assert close(found.sharpness.value, float(np.linalg.eigvalsh(truth)[-1]))
    trace, low, high = found.trace.value, found.trace.low, found.trace.high
    assert trace is not None
    assert low is not None
    assert high is not None
    if features > vectors:
        assert low < trace < high
        assert abs(trace - np.trace(truth)) < 2 * (high - low)
    else:
        assert trace == low == high == pytest.approx(float(np.trace(truth)), rel=1e-6)
    assert (found.weights, found.examples, found.training_examples) == (features, EXAMPLES, EXAMPLES)


@needs_curvlinops
def test_logistic_regression_at_zero_has_a_quarter_of_it() -> None:
    data = vectors_and_labels(50, classes=2)

    def logistic(model: nn.Module, batch: Any) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(batch[0])[:, 0], batch[1].to(batch[0]))

    workload = workload_of(lambda: nn.Linear(50, 1, bias=False), logistic, data)
    model = workload.model(0)
    nn.init.zeros_(next(model.parameters()))
    x = data.tensors[0].double().numpy()
    found = measured(workload, model, vectors=2)
    assert close(found.sharpness.value, float(np.linalg.eigvalsh(x.T @ x / EXAMPLES / 4)[-1]))
    assert found.loss == pytest.approx(float(np.log(2)))


def make_convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 4, 4)),
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.GELU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(12, 3),
    )


class Codes(nn.Module):
    """Attention, embeddings and layer normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Transformer(vocab=5, context=4, width=4, depth=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner((x[:, :4] > 0).long())[:, -1, :3]


class Encoder(nn.Module):
    """The layer that has a fused path of its own in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(x.unflatten(1, (4, 4))).mean(dim=1))


@needs_curvlinops
@pytest.mark.parametrize("make_model", [make_convolutions, Codes, Encoder])
def test_small_nets_against_the_whole_hessian(make_model: Callable[[], nn.Module]) -> None:
    workload = workload_of(make_model, cross_entropy, vectors_and_labels(16))
    model = workload.model(0)
    found = measured(workload, model, vectors=8, examples=None, seed=1)

    copy = workload.model(0).double().eval()
    state = {name: p.detach() for name, p in copy.named_parameters()}
    x, y = workload.batch(torch.arange(EXAMPLES))

    def loss(flat: Tensor) -> Tensor:
        parts = flat.split([p.numel() for p in state.values()])
        values = {name: part.view_as(p) for (name, p), part in zip(state.items(), parts, strict=True)}
        return F.cross_entropy(functional_call(copy, values, (x.double(),)), y)

    with sdpa_kernel(SDPBackend.MATH):
        whole = hessian(loss)(torch.cat([p.flatten() for p in state.values()]))
    assert isinstance(whole, Tensor)
    eigenvalues = torch.linalg.eigvalsh(whole)
    assert close(found.sharpness.value, float(eigenvalues[-1]))
    assert found.trace.value is not None
    assert found.trace.high is not None
    assert abs(found.trace.value - float(whole.trace())) < 2.5 * (found.trace.high - found.trace.value)
    assert model.training


@needs_curvlinops
def test_the_trace_is_unbiased_within_its_interval() -> None:
    data = vectors_and_labels(8)
    workload = workload_of(lambda: nn.Linear(8, 1, bias=False), half_squared_error, data)
    model = workload.model(0)
    truth = float(data.tensors[0].double().square().sum() / EXAMPLES)
    values: list[float] = []
    inside = 0
    for seed in range(12):
        trace = measured(workload, model, vectors=5, tolerance=0.5, seed=seed).trace
        assert trace.value is not None
        assert trace.low is not None
        assert trace.high is not None
        values.append(trace.value)
        inside += trace.low <= truth <= trace.high
    assert abs(np.mean(values) - truth) < 3 * np.std(values, ddof=1) / np.sqrt(len(values))
    assert inside >= 8  # 90 % of 12 are 11; fewer than 8 have a probability of 0.4 %


@needs_curvlinops
def test_an_uneven_last_chunk_counts_by_its_examples() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 40, generator=generator)
    x[256:] *= 5
    data = TensorDataset(x, torch.zeros(300))
    workload = workload_of(lambda: nn.Linear(40, 1, bias=False), half_squared_error, data)
    found = measured(workload, workload.model(0), vectors=2, at_once=256)
    assert close(found.sharpness.value, float(torch.linalg.eigvalsh((x.T @ x / 300).double())[-1]))


@needs_curvlinops
def test_a_loss_without_curvature() -> None:
    workload = workload_of(lambda: nn.Linear(16, 3), lambda m, b: m(b[0]).mean(), vectors_and_labels(16))
    found = measured(workload, workload.model(0), vectors=3)
    assert (found.sharpness.value, found.trace.value) == (0.0, 0.0)
    assert found.gradient_norm > 0


@needs_curvlinops
def test_parameters_that_are_frozen_or_not_used() -> None:
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused, self.frozen = nn.Linear(16, 3, bias=False), nn.Linear(5, 5), nn.Linear(3, 3)
            self.frozen.requires_grad_(False)
            nn.init.eye_(self.frozen.weight)

        def forward(self, x: Tensor) -> Tensor:
            return self.frozen(self.used(x))

    workload = workload_of(Partly, half_squared_error, vectors_and_labels(16))
    found = measured(workload, workload.model(0), vectors=3)
    x = workload.batch(torch.arange(EXAMPLES))[0].double()
    assert close(found.sharpness.value, float(torch.linalg.eigvalsh(x.T @ x / EXAMPLES)[-1]))
    assert found.weights == 48 + 30


@needs_curvlinops
def test_the_same_each_time_and_nothing_left_changed() -> None:
    workload = workload_of(make_convolutions, cross_entropy, vectors_and_labels(16))
    model = workload.model(0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    first, again = (measured(workload, model, vectors=2, examples=20, seed=3) for _ in range(2))
    assert encode(first) == encode(again)
    assert (first.examples, first.training_examples) == (20, EXAMPLES)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Once(torch.autograd.Function):
    """What torch.func knows nothing of."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return value.clone()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return slope


@needs_curvlinops
def test_refusals_say_why() -> None:
    def noisy(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(F.dropout(model(batch[0]), 0.3), batch[1])

    def opaque(model: nn.Module, batch: Any) -> Tensor:
        return cast(Tensor, Once.apply(cross_entropy(model, batch)))

    for loss, words in ((noisy, "not repeatable"), (opaque, "cannot be differentiated twice")):
        workload = workload_of(lambda: nn.Linear(16, 3), loss, vectors_and_labels(16))
        assert words in reason_of(workload, workload.model(0))


def test_without_the_library_the_reason_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "curvlinops", None)
    workload = workload_of(lambda: nn.Linear(16, 3), cross_entropy, vectors_and_labels(16))
    assert 'pip install -c constraints.txt ".[hessian]"' in reason_of(workload, workload.model(0))


def test_numbers_that_make_no_sense() -> None:
    workload = workload_of(lambda: nn.Linear(16, 3), cross_entropy, vectors_and_labels(16))
    for wrong in ({"vectors": 1}, {"tolerance": 0.0}):
        with pytest.raises(UsageError, match="make no sense"):
            measure_curvature(workload, workload.model(0), **wrong)  # pyright: ignore[reportArgumentType]
