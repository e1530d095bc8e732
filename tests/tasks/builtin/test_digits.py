"""The shipped task: its split, its two models, its optimizers, and that it learns."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from batchscope.errors import TaskError
from batchscope.store.records import RunConfig
from batchscope.tasks.builtin.digits import digits
from batchscope.tasks.workload import Workload
from batchscope.training.loop import train


def test_the_split_is_fixed_disjoint_and_complete() -> None:
    parts = digits().parts
    assert {name: len(x) for name, (x, _) in parts.items()} == {"train": 1437, "val": 180, "test": 180}
    assert all(torch.equal(a, b) for name in parts for a, b in zip(parts[name], digits().parts[name], strict=True))
    whole = torch.cat([x for x, _ in parts.values()])
    assert len(whole.unique(dim=0)) == 1797  # every image is another one, so none stands in two parts
    assert 0.0 == whole.min() < whole.max() == 1.0
    assert torch.cat([y for _, y in parts.values()]).bincount().tolist() == [
        178,
        182,
        177,
        183,
        181,
        182,
        181,
        179,
        174,
        180,
    ]  # fmt: skip - the class counts that the data set's documentation gives


@pytest.mark.parametrize(("hidden", "parameters"), [(128, 9610), (16, 64 * 16 + 16 + 16 * 10 + 10)])
def test_perceptron(hidden: int, parameters: int) -> None:
    model = digits(hidden=hidden).model()
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model(torch.zeros(3, 64)).shape == (3, 10)


@pytest.mark.parametrize(("norm", "kind"), [("none", None), ("batch", nn.BatchNorm2d), ("group", nn.GroupNorm)])
def test_cnn(norm: str, kind: type[nn.Module] | None) -> None:
    task = digits(model="cnn", norm=norm)  # pyright: ignore[reportArgumentType]
    model = task.model()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)]
    assert len(norms) == (2 if kind else 0)
    assert all(kind is not None and isinstance(m, kind) for m in norms)
    assert model(task.train_data()[0][0][None]).shape == (1, 10)


def test_vgg() -> None:
    task = digits(model="vgg", dropout=0.2, norm="group")
    assert task.model()(task.train_data()[0][0][None]).shape == (1, 10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "batch"}, "norm=batch needs model=cnn or model=vgg; model=mlp"),
        ({"depth": 0}, "depth=0 must be at least 1"),
        ({"momentum": 1.0}, r"momentum=1.0 must be at least 0 \(plain SGD\) and below 1"),
        ({"momentum": -0.5}, r"momentum=-0.5 must be at least 0"),
        ({"momentum": float("nan")}, r"momentum=nan must be at least 0"),
        ({"momentum": 0.0, "optimizer": "adamw"}, r"momentum=0.0 is of optimizer=sgd; optimizer=adamw has its own"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        digits(**settings)


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_standard_pixels(model: Literal["mlp", "cnn"]) -> None:
    """The deviation of the training pixels is that of the bytes, over 16; the other parts are scaled by it too."""
    unit, standard = digits(model=model), digits(model=model, scale="standard")
    pixels = unit.parts["train"][0].double()
    assert unit.parts["train"][0].shape == standard.parts["train"][0].shape
    for part, (x, _) in standard.parts.items():
        expected = (unit.parts[part][0].double() - pixels.mean()) / pixels.std(correction=0)
        torch.testing.assert_close(x.double(), expected, atol=1e-6, rtol=1e-5)


def test_plain_sgd_by_hand() -> None:
    """Two steps against the same gradient move by -lr g each; with momentum 0.5 the second by -1.5 lr g."""
    for momentum, moved in ((0.0, 2.0), (0.5, 2.5)):
        weights = nn.Parameter(torch.tensor([1.0, -2.0]))
        optimizer = digits(momentum=momentum).optimizer([weights], 0.1)
        for _ in range(2):
            weights.grad = torch.tensor([3.0, 4.0])
            optimizer.step()
        torch.testing.assert_close(weights.detach(), torch.tensor([1.0 - moved * 0.3, -2.0 - moved * 0.4]))


def test_optimizers() -> None:
    weights = [nn.Parameter(torch.zeros(2))]
    sgd, adamw = digits().optimizer(weights, 0.1), digits(optimizer="adamw").optimizer(weights, 0.01)
    assert sgd.defaults | {"lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 0} == sgd.defaults
    assert adamw.defaults | {"lr": 0.01, "betas": (0.9, 0.999), "weight_decay": 0.01} == adamw.defaults


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_fused_optimizer_makes_the_plain_ones_steps(name: str) -> None:
    """The update is torch's own, step for step, in float64."""
    ours, plain = (nn.Parameter(torch.linspace(-1, 1, 7, dtype=torch.float64)) for _ in range(2))
    task = digits(optimizer=name)  # pyright: ignore[reportArgumentType]
    fused = task.optimizer([ours], 0.05)
    if name == "sgd":
        reference: torch.optim.Optimizer = torch.optim.SGD([plain], lr=0.05, momentum=0.9, foreach=False)
    else:
        reference = torch.optim.AdamW([plain], lr=0.05, weight_decay=0.01, foreach=False)
    for step in range(5):
        for weights, optimizer in ((ours, fused), (plain, reference)):
            weights.grad = torch.sin(weights.detach() * 3 + step)
            optimizer.step()
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=0)


def test_metrics_are_those_of_the_parts() -> None:
    task = digits()
    torch.manual_seed(0)
    model = task.model()
    with torch.no_grad():
        metrics = task.evaluate(model)
        for part in ("val", "test"):
            x, y = task.parts[part]
            assert metrics[f"{part}_loss"] == pytest.approx(F.cross_entropy(model(x), y).item(), rel=1e-6)
            assert metrics[f"{part}_accuracy"] == pytest.approx((model(x).argmax(1) == y).sum().item() / 180)
    assert sorted(metrics) == ["test_accuracy", "test_loss", "val_accuracy", "val_loss"]


@pytest.mark.parametrize(
    ("model", "optimizer", "lr"), [("mlp", "sgd", 0.05), ("mlp", "adamw", 3e-3), ("cnn", "sgd", 0.05)]
)
def test_it_learns(model: str, optimizer: str, lr: float) -> None:
    workload = Workload(digits(model=model, optimizer=optimizer))  # pyright: ignore[reportArgumentType]
    assert workload.in_memory
    result = train(workload, RunConfig(task="digits", batch_size=32, micro_batch_size=32, lr=lr, max_steps=300))
    assert result.best["val_accuracy"] > 0.93
    assert result.best["test_accuracy"] > 0.93


def test_the_deep_narrow_network_learns() -> None:
    """Far above chance, 0.1: five blocks made for 128 pixels are slow on 8, and need weights that let signals pass."""
    workload = Workload(digits(model="vgg", optimizer="adamw", init="xavier", scale="standard"))
    result = train(workload, RunConfig(task="digits", batch_size=32, micro_batch_size=32, lr=3e-3, max_steps=300))
    assert result.best["val_accuracy"] > 0.5
