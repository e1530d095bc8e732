"""The box sharpness against corners, linear losses, and the rescaling of ReLU layers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from batchscope.errors import UsageError
from batchscope.probes.sharpness import BoxSharpness, measure_box_sharpness
from batchscope.store.codec import encode
from batchscope.store.not_applicable import NotApplicable
from batchscope.tasks.protocol import task
from batchscope.tasks.workload import Workload

FEATURES, EXAMPLES = 5, 60


def make_data(classes: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(EXAMPLES, FEATURES, generator=generator)
    noise = torch.randn(EXAMPLES, generator=generator)
    return TensorDataset(x, torch.arange(EXAMPLES) % classes if classes else x.sum(dim=1) + noise)


def workload_of(model: Callable[[], nn.Module], loss: Callable[[nn.Module, Any], Tensor], classes: int = 0) -> Workload:
    return Workload(
        task(
            model=model,
            train=make_data(classes),
            loss=loss,
            optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
            evaluate=lambda model: {"val_loss": 1.0},
        )
    )


def squared_error(model: nn.Module, batch: Any) -> Tensor:
    return F.mse_loss(model(batch[0])[:, 0], batch[1])


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def make_linear() -> nn.Module:
    return nn.Linear(FEATURES, 1, bias=False)


def make_mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), nn.Linear(8, 3))


def measured(*args: Any, **kwargs: Any) -> tuple[BoxSharpness, ...]:
    found = measure_box_sharpness(*args, **kwargs)
    assert not isinstance(found, NotApplicable), found.reason
    return found


def reason_of(*args: Any, **kwargs: Any) -> str:
    found = measure_box_sharpness(*args, **kwargs)
    assert isinstance(found, NotApplicable)
    return found.reason


def highest_corner(workload: Workload, model: nn.Module, half_widths: Tensor) -> float:
    """The loss of a convex function is highest at a corner of the box."""
    x, y = (t.double() for t in workload.batch(torch.arange(EXAMPLES)))
    centre = next(model.parameters()).detach().double().flatten()
    corners = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=FEATURES)), dtype=torch.float64)
    weights = centre + corners * half_widths
    return float((x @ weights.T - y[:, None]).square().mean(dim=0).max())


@pytest.mark.parametrize("neighbourhood", ["keskar", "relative"])
@pytest.mark.parametrize("eps", [1e-3, 0.5])
def test_a_quadratic_is_highest_at_the_corner_that_enumeration_finds(neighbourhood: Any, eps: float) -> None:
    workload = workload_of(make_linear, squared_error)
    model = workload.model(0)
    centre = next(model.parameters()).detach().double().flatten()
    half_widths = eps * (centre.abs() + (neighbourhood == "keskar"))
    truth = highest_corner(workload, model, half_widths)
    (found,) = measured(workload, model, neighbourhood=neighbourhood, eps=[eps], random_starts=6)
    assert found.highest_loss == pytest.approx(truth, rel=1e-9)
    assert found.value == pytest.approx(100 * (truth - found.loss) / (1 + found.loss), rel=1e-6)
    assert (found.examples, found.training_examples, found.weights) == (EXAMPLES, EXAMPLES, FEATURES)


def test_several_starts_find_what_the_start_at_the_minimiser_does_not() -> None:
    """At the exact minimiser the gradient is zero, and a search that begins there ends there, with a φ of 0."""
    workload = workload_of(make_linear, squared_error)
    model = workload.model(0).double()
    x, y = (t.double() for t in workload.batch(torch.arange(EXAMPLES)))
    with torch.no_grad():
        next(model.parameters()).copy_(torch.linalg.lstsq(x, y[:, None]).solution.T)
    workload = workload_of(lambda: make_linear().double(), squared_error)
    (found,) = measured(workload, model, eps=[1e-3])
    values = {ascent.start: ascent.value for ascent in found.starts}
    assert values["at the weights, as published"] < 0.01 * found.value
    assert values["at random 1"] > 0.5 * found.value
    assert found.value == max(values.values()) > 0


@pytest.mark.parametrize("subspace", [None, 3])
def test_a_linear_loss_rises_by_the_slopes_times_the_half_widths(subspace: int | None) -> None:
    workload = workload_of(make_linear, lambda model, batch: 5 + model(batch[0]).mean())
    model = workload.model(0)
    centre = next(model.parameters()).detach().double().numpy().ravel()
    slope = workload.batch(torch.arange(EXAMPLES))[0].double().mean(dim=0).numpy()
    eps, coordinates, basis = 0.01, centre, np.eye(FEATURES)
    if subspace:
        basis = np.random.default_rng(0).standard_normal((FEATURES, subspace))
        coordinates = np.linalg.pinv(basis) @ centre
    truth = float(np.abs(basis.T @ slope) @ (eps * (np.abs(coordinates) + 1)))
    (found,) = measured(workload, model, eps=[eps], subspace=subspace)
    assert found.highest_loss - found.loss == pytest.approx(truth, rel=1e-6)
    assert found.dimensions == (subspace or FEATURES)


def test_a_local_maximum_is_flat_and_no_value_is_negative() -> None:
    workload = workload_of(make_linear, lambda model, batch: 50 - squared_error(model, batch))
    model = workload.model(0)
    x, y = workload.batch(torch.arange(EXAMPLES))
    with torch.no_grad():
        next(model.parameters()).copy_(torch.linalg.lstsq(x, y[:, None]).solution.T)
    for found in measured(workload, model):
        assert 0 <= min(ascent.value for ascent in found.starts) <= found.value < 1e-6


@pytest.mark.parametrize("neighbourhood", ["keskar", "relative"])
def test_never_lower_in_a_larger_box_and_the_same_each_time(neighbourhood: Any) -> None:
    workload = workload_of(make_mlp, cross_entropy, classes=3)
    model = workload.model(3)
    eps = (0.2, 1e-3, 0.01, 0.05)
    found = measured(workload, model, neighbourhood=neighbourhood, eps=eps, random_starts=1, iterations=3)
    assert [box.eps for box in found] == list(eps)
    values = [box.value for box in sorted(found, key=lambda box: box.eps)]
    assert values == sorted(values)
    assert values[0] > 0
    again = measured(workload, model, neighbourhood=neighbourhood, eps=eps, random_starts=1, iterations=3)
    assert encode(again) == encode(found)


def test_rescaled_relu_layers_change_keskars_value_and_not_the_relative_one() -> None:
    """Dinh et al. 2017: (α θ₁, θ₂ / α) is the same function."""
    workload = workload_of(make_mlp, cross_entropy, classes=3)
    model = workload.model(0)
    same = workload.model(0)
    with torch.no_grad():
        for name, parameter in same.named_parameters():
            parameter.mul_(8.0 if name.startswith("0.") else 0.125 if name == "2.weight" else 1.0)
    found: dict[Any, list[float]] = {}
    for neighbourhood in ("keskar", "relative"):
        boxes = [measured(workload, m, neighbourhood=neighbourhood, eps=[0.01])[0] for m in (model, same)]
        assert boxes[0].loss == pytest.approx(boxes[1].loss, rel=1e-6)
        found[neighbourhood] = [box.value for box in boxes]
    assert found["relative"][1] == pytest.approx(found["relative"][0], rel=1e-4)
    assert found["keskar"][1] > 1.5 * found["keskar"][0]


def test_a_fixed_part_of_the_data_whatever_its_chunks() -> None:
    workload = workload_of(make_mlp, cross_entropy, classes=3)
    model = workload.model(0)
    (part,) = measured(workload, model, eps=[0.01], examples=20)
    (other,) = measured(workload, model, eps=[0.01], examples=20, seed=1)
    (whole,) = measured(workload, model, eps=[0.01], examples=10_000)
    (chunks,) = measured(workload, model, eps=[0.01], examples=10_000, at_once=7)
    assert chunks.value == pytest.approx(whole.value, rel=1e-6)
    assert (part.examples, whole.examples, whole.training_examples) == (20, EXAMPLES, EXAMPLES)
    assert len({part.loss, other.loss, whole.loss}) == 3


def test_the_model_is_left_alone_and_measured_in_evaluation_mode() -> None:
    def make_model() -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3))

    workload = workload_of(make_model, cross_entropy, classes=3)
    model = workload.model(0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    (found,) = measured(workload, model, eps=[0.01], iterations=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.eval()
    with torch.no_grad():
        loss = cross_entropy(model, workload.batch(torch.arange(EXAMPLES)))
    assert found.loss == pytest.approx(float(loss), rel=1e-6)


def test_a_loss_that_is_not_repeatable_is_refused() -> None:
    def noisy(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(F.dropout(model(batch[0]), 0.3), batch[1])

    workload = workload_of(make_mlp, noisy, classes=3)
    reason = reason_of(workload, workload.model(0))
    assert "not repeatable" in reason
    assert "F.dropout(x, training=self.training)" in reason


def test_losses_for_which_the_measure_means_nothing_are_refused() -> None:
    negative = workload_of(make_linear, lambda model, batch: model(batch[0]).mean() - 9)
    assert "must be above 0" in reason_of(negative, negative.model(0))
    broken = workload_of(make_linear, lambda model, batch: model(batch[0]).mean() * torch.nan)
    assert "the loss at these weights is nan" in reason_of(broken, broken.model(0))
    own = torch.ones(3)
    single = workload_of(make_mlp, lambda m, b: F.cross_entropy(m(b[0]), b[1], weight=own), classes=3)
    assert "weights.to(output)" in reason_of(single, single.model(0))
    steep = workload_of(
        make_linear, lambda model, batch: (1e6 * model(batch[0])).exp().mean().clamp(max=1e308) * 1e-300
    )
    model = steep.model(0)
    nn.init.zeros_(next(model.parameters()))
    assert "take a smaller eps" in reason_of(steep, model, eps=[100.0])


def test_numbers_that_make_no_sense() -> None:
    workload = workload_of(make_linear, squared_error)
    model = workload.model(0)
    for wrong in ({"eps": []}, {"eps": [0.0]}, {"iterations": 0}, {"subspace": 0}, {"random_starts": -1}):
        with pytest.raises(UsageError):
            measure_box_sharpness(workload, model, **wrong)  # pyright: ignore[reportArgumentType]


def test_a_record_is_plain_data() -> None:
    workload = workload_of(make_linear, squared_error)
    (found,) = measured(workload, workload.model(0), eps=[0.01], random_starts=0)
    data = encode(found)
    assert data["neighbourhood"] == "keskar"
    assert data["starts"][0]["passes"] >= 2
    assert replace(found) == found
