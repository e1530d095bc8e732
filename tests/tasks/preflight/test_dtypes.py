"""Numbers of every type and layout: the preflight takes what torch trains on, and tells what torch does not mix."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from batchscope.errors import TaskError
from batchscope.hardware.capacity import measure_capacity
from batchscope.tasks.preflight.check import check
from batchscope.tasks.preflight.inputs import telling_examples
from batchscope.tasks.workload import Workload
from batchscope.training.lr_range import measure_rate_range

from .parts import CLASSES, Parts, run

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) % CLASSES
WHOLE = ["uint8", "int8", "int16", "int32", "uint16", "uint32", "uint64"]
FRACTIONS = ["float16", "bfloat16", "float64", "float8_e4m3fn"]


def converted(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0].float()), batch[1].long())


@pytest.mark.parametrize("name", ["bool", *WHOLE, *FRACTIONS])
def test_inputs_and_labels_of_any_type(name: str) -> None:
    dtype = getattr(torch, name)
    labels = Y.clamp(max=1) if name == "bool" else Y
    for data in (TensorDataset((X.abs() * 3).to(dtype), Y), TensorDataset(X, labels.to(dtype))):
        check(Workload(Parts(data=data, compute_loss=converted)))


@pytest.mark.parametrize("name", ["bool", *WHOLE])
def test_the_smallest_and_the_largest_label_are_tried(name: str) -> None:
    labels = torch.ones(60, dtype=torch.int64)
    labels[[17, 41]] = torch.tensor([0, 1 if name == "bool" else 100])
    data = TensorDataset(X, labels.to(getattr(torch, name)))
    assert 17 in telling_examples(Workload(Parts(data=data)), 8)
    assert name == "bool" or 41 in telling_examples(Workload(Parts(data=data)), 8)


LAYOUTS: dict[str, tuple[Tensor, Tensor]] = {
    "labels that are a column": (X, torch.stack([Y, Y], 1)[:, 0]),
    "inputs that are transposed": (X.t().contiguous().t(), Y),
    "labels that are one number": (X, Y[:1].expand(60)),
    "inputs without numbers": (X[:, :0], Y),
    "complex": (torch.complex(X, X), Y),
}


@pytest.mark.parametrize("tensors", LAYOUTS.values(), ids=LAYOUTS)
def test_any_layout(tensors: tuple[Tensor, Tensor]) -> None:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        x = batch[0].abs() if batch[0].is_complex() else F.pad(batch[0], (0, 4 - batch[0].shape[1]))
        return F.cross_entropy(model(x), batch[1])

    check(Workload(Parts(data=TensorDataset(*tensors), compute_loss=loss)))


def test_pictures_with_channels_last() -> None:
    pictures = torch.randn(60, 3, 6, 6).to(memory_format=torch.channels_last)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, CLASSES))
    run(make_model=lambda: _copy(model), data=TensorDataset(pictures, Y))


def _copy(model: nn.Sequential) -> nn.Module:
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, CLASSES))
    made.load_state_dict(model.state_dict())
    return made.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, CLASSES, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.weight).abs()


@pytest.mark.filterwarnings("error:Casting complex values to real")
def test_complex_weights_count_whole() -> None:
    data = TensorDataset(torch.complex(X, X), Y)
    workload = Workload(Parts(data=data, make_model=Complex, metrics=lambda model: {"val_loss": 1.0}))
    check(workload)
    measure_capacity(workload, top=8, limit_bytes=10**9)
    found = measure_rate_range(workload, batch_size=8, micro_batch_size=4)
    assert found.expected_lr is not None
    assert found.expected_lr > 0
    with pytest.raises(TaskError, match=r"returned a complex tensor.*loss\.abs\(\) or loss\.real"):
        run(data=data, make_model=Complex, compute_loss=lambda m, batch: (batch[0] @ m.weight).mean())


def test_buffers_of_any_kind_are_watched() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, CLASSES)
            self.register_buffer("mask", torch.ones(3, dtype=torch.bool))
            self.register_buffer("codes", torch.ones(3, dtype=torch.uint16))
            self.register_buffer("edges", torch.eye(3).to_sparse())
            self.register_buffer("small", torch.ones(3).to(torch.float8_e4m3fn))

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x)

    run(make_model=Odd, metrics=lambda model: {"val_loss": 1.0})


@dataclasses.dataclass(frozen=True)
class Fields:
    x: Tensor
    y: Tensor


def test_batches_that_are_data_classes() -> None:
    parts = Parts(data=[(x, y) for x, y in zip(X, Y, strict=True)], compute_loss=lambda m, b: _cross_entropy(m, b))
    setattr(parts, "collate", lambda e: Fields(torch.stack([x for x, _ in e]), torch.stack([y for _, y in e])))  # noqa: B010
    workload = Workload(parts)
    check(workload)
    assert workload.disposable(0).draw(3).x.shape == (3, 4)


def _cross_entropy(model: nn.Module, batch: Fields) -> Tensor:
    return F.cross_entropy(model(batch.x), batch.y)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            TensorDataset(X.double(), Y),
            r"\(16, 4\) float64, .*batch\[0\] is float64 and .*float32.*batch\[0\]\.to\(torch\.float32\)",
        ),
        (TensorDataset((X * 9).long(), Y), r"batch\[0\] is int64 and the model's weights are float32"),
        ([(x.double().numpy(), 0) for x in X], r"batch\[0\] is float64 and the model's weights are float32"),
        ([(x.tolist(), 0) for x in X], r"batch\[0\] is a list of tensors.*torch\.tensor\(\.\.\.\)"),
        ([{"x": x.tolist()} for x in X], r"batch\['x'\] is a list of tensors"),
    ],
    ids=["float64", "whole numbers", "arrays", "lists", "lists in dicts"],
)
def test_what_torch_does_not_mix_is_told_with_what_to_write(data: Any, message: str) -> None:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        return model(batch["x"] if isinstance(batch, dict) else batch[0]).square().mean()

    with pytest.raises(TaskError, match=message):
        run(data=data, compute_loss=loss)


@pytest.mark.parametrize("value", [torch.ones(3), 10**400, 1j, None])
def test_metrics_that_are_no_numbers(value: Any) -> None:
    with pytest.raises(TaskError, match=r"evaluate\(\) returned .* for 'val_loss', which is not a number"):
        run(metrics=lambda model: {"val_loss": value})


def test_a_backward_pass_that_fails_is_the_users() -> None:
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            raise ZeroDivisionError("no gradient")

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return Broken.apply(converted(model, batch))  # pyright: ignore

    with pytest.raises(TaskError, match=r"the backward pass of loss\(model, batch\) raised ZeroDivisionError"):
        run(compute_loss=loss)
