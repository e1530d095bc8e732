"""Layers that the per-example source cannot measure: they are left out, with the reason, and the rest is right."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .example_models import (
    Gpt,
    Twice,
    assert_row,
    covered,
    cross_entropy,
    exact,
    images,
    leave_out,
    make_cnn,
    make_mlp,
    prepare,
    texts,
    vectors,
    window,
)

pytestmark = pytest.mark.usefixtures("seeded")


def test_tied_weights_are_left_out() -> None:
    model, batch = Gpt(tied=True).double(), texts(5)
    source, row = leave_out(model, batch)
    assert source.left_out["words.weight"] == "it is shared: words.weight and head.weight are one parameter"
    assert_row(row, exact(model, *batch, covered(model, source)))


class ByFunction(Twice):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.linear(torch.tanh(self.inner(x)), self.inner.weight))


class OnlyByFunction(Twice):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.linear(torch.tanh(x), self.inner.weight, self.inner.bias))


class Checkpointed(Twice):
    def forward(self, x: Tensor) -> Tensor:
        inner: Any = checkpoint(self.inner, x.requires_grad_(), use_reentrant=False)
        return self.head(inner)


class TimeFirst(Twice):
    batch_first = False


class Rows(Twice):
    """Its inner layer sees two rows an example."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(x.repeat(2, 1)).unflatten(0, (2, -1)).sum(0))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (Twice, "used 2 times in one backward pass"),
        (ByFunction, "is not what the examples add up to"),
        (OnlyByFunction, "came from elsewhere than one forward pass of its module"),
        (Checkpointed, "activation checkpointing"),
        (Rows, "saw 16 rows for 8 examples"),
    ],
)
def test_layer_that_cannot_be_measured_is_left_out(make: type[Twice], why: str) -> None:
    model, (x, y) = make().double(), vectors(8)
    source, row = leave_out(model, (x.double(), y))
    assert why in source.left_out["inner.weight"]
    assert covered(model, source)[-2:] == ["head.weight", "head.bias"]
    truth = exact(model, x, y, covered(model, source))
    assert_row(row, truth)


def test_penalty_in_the_loss_is_noticed() -> None:
    def penalised(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(model, x, y) + 0.1 * sum(p.square().sum() for p in model[0].parameters())  # pyright: ignore

    model, (x, y) = make_mlp(), vectors(32)
    source, row = leave_out(model, (x, y), penalised)
    assert "penalised in the loss" in source.left_out["0.weight"]
    assert_row(row, exact(model, x, y, ["2.weight", "2.bias"]), rtol=1e-4)


def test_frozen_parameters_do_not_count() -> None:
    model, (x, y) = make_cnn().double(), images(6)
    for parameter in model[0].parameters():  # pyright: ignore
        parameter.requires_grad_(False)
    model[3].weight.requires_grad_(False)  # pyright: ignore
    source, row = leave_out(model, (x.double(), y))
    assert_row(row, exact(model, x, y, covered(model, source)))
    assert source.name == "per-example norms (100 % of the parameters)"


def test_layer_whose_bias_gets_no_gradient_to_speak_of() -> None:
    """A bias in front of a norm layer has a gradient of rounding errors alone; it must not be taken for a mistake."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    source, _ = leave_out(model, images(8))
    assert source.left_out == {}


def test_unused_layer_counts_as_zero() -> None:
    class Unused(Twice):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(x)

    model, (x, y) = Unused().double(), vectors(8)
    source, row = leave_out(model, (x.double(), y))
    assert_row(row, exact(model, x, y, ["head.weight", "head.bias"]))
    assert source.left_out == {}


def test_positions_are_left_out_even_where_they_are_as_many_as_the_examples() -> None:
    model, batch = Gpt().double(), texts(6)
    source, row = leave_out(model, batch)
    assert "positions" in source.left_out["places.weight"]
    assert_row(row, exact(model, *batch, covered(model, source)))


def test_modules_with_time_first_are_left_out() -> None:
    source, row = leave_out(TimeFirst(), vectors(4))
    assert row is None
    assert "batch_first=False" in source.reason


def test_attention_of_torch_is_left_out_and_the_rest_is_right() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.layer(x)).mean(1)

    model, x, y = Encoder().double(), torch.randn(5, 7, 4), torch.randint(3, (5,))
    source, row = leave_out(model, (x.double(), y))
    assert {name for name in source.left_out if "self_attn" not in name} == set()
    assert len(source.left_out) == 4
    assert_row(row, exact(model, x, y, covered(model, source)))


def test_what_was_left_out_stays_left_out() -> None:
    model, (x, y) = Twice(), vectors(8)
    source, optimizer = prepare(model)
    cross_entropy(model, x, y).backward()
    source.take(window(8))
    source.attach(model, optimizer)
    assert not model.inner._forward_hooks
    assert model.head._forward_hooks
