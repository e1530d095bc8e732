"""Models and windows of which the per-example source makes no row, with the reason."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from batchscope.live.sources.per_example import PerExampleSource

from .example_models import (
    Twice,
    assert_row,
    covered,
    cross_entropy,
    exact,
    leave_out,
    make_mlp,
    prepare,
    vectors,
    window,
)

pytestmark = pytest.mark.usefixtures("seeded")


def test_batch_normalisation_is_refused_in_training_only() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    source, row = leave_out(model, vectors(8))
    assert row is None
    assert source.reason.startswith("1 is batch normalisation")
    model.zero_grad()
    source, row = leave_out(model.eval(), vectors(8))
    assert "there is no rule for BatchNorm1d" in source.left_out["1.weight"]
    assert row is not None


def test_compiled_model_is_refused() -> None:
    model = make_mlp()
    source, optimizer = PerExampleSource(), torch.optim.SGD(model.parameters(), lr=0.0)
    source.attach(torch.compile(model, backend="eager"), optimizer)  # pyright: ignore
    assert source.take(window(8)) is None
    assert "before torch.compile" in source.reason
    model.compile(backend="eager")
    source.attach(nn.Sequential(model), optimizer)
    assert source.take(window(8)) is None
    assert "compiled" in source.left_out["0.0.weight"]


@pytest.mark.parametrize("before", [True, False])
def test_compiled_function_runs_on_undisturbed(before: bool) -> None:
    """Compiled before the hooks were put on or with them: no graph is broken, and no layer is taken for measured."""
    torch._dynamo.reset()
    model, (x, y) = make_mlp(), vectors(8)
    step: Any = torch.compile(lambda: cross_entropy(model, x, y), backend="eager", fullgraph=True)
    plain = copy.deepcopy(model)
    cross_entropy(plain, x, y).backward()
    if before:
        step()
    source, _ = prepare(model)
    step().backward()
    assert source.take(window(8)) is None
    assert "the pass is compiled" in source.reason
    for a, b in zip(plain.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_reentrant_checkpointing_is_refused() -> None:
    class Reentrant(Twice):
        def forward(self, x: Tensor) -> Tensor:
            inner: Any = checkpoint(self.inner, x.requires_grad_(), use_reentrant=True)
            return self.head(inner)

    source, row = leave_out(Reentrant(), vectors(8))
    assert row is None
    assert "use_reentrant=False" in source.reason


@pytest.mark.parametrize(
    ("passes", "facts", "why"),
    [
        (0, {}, "no backward pass"),
        (1, {"batch_size": 16}, "saw 8 rows where the micro-batch has 16 examples"),
        (3, {"batch_size": 8}, "unequal size"),
        (2, {"examples": (8,)}, "called 1 times, and the step had 2"),
        (1, {"weights": (80.0,)}, "had a weight without examples"),
        (1, {"examples": (8,), "weights": (80.0,)}, "one weight does not tell"),
        (2, {"examples": (8, 8), "weights": (80.0, 72.0)}, "weigh 9 to 10 each"),
    ],
)
def test_window_that_says_nothing(passes: int, facts: dict[str, Any], why: str) -> None:
    model, (x, y) = make_mlp(), vectors(8)
    source, _ = prepare(model)
    for _ in range(passes):
        (cross_entropy(model, x, y) / passes).backward()
    assert source.take(window(**{"batch_size": 8 * max(1, passes), **facts})) is None
    assert why in source.reason
    assert source.left_out == {}


def test_same_terms_in_every_micro_batch_are_taken() -> None:
    model, (x, y) = make_mlp().double(), vectors(8)
    source, optimizer = prepare(model)
    for sizes, weights in (((8,), (80.0,)), ((5, 3), (50.0, 30.0))):
        model.zero_grad()
        source.attach(model, optimizer)
        for a, b in zip(x.double().split(sizes), y.split(sizes), strict=True):
            (cross_entropy(model, a, b) * len(a) / 8).backward()
        row = source.take(window(8, examples=sizes, weights=weights))
    assert_row(row, exact(model, x, y, covered(model, source)))


def test_gradients_left_from_before_are_refused() -> None:
    model, (x, y) = make_mlp(), vectors(8)
    cross_entropy(model, x, y).backward()
    source, row = leave_out(model, (x, y))
    assert row is None
    assert "zero them" in source.reason
    model.zero_grad()
    source.attach(model, torch.optim.SGD(model.parameters(), lr=0.0))
    cross_entropy(model, x, y).backward()
    assert source.take(window(8)) is not None


def test_step_skipped_on_overflow_begins_anew() -> None:
    model, (x, y) = make_mlp().double(), vectors(8)
    source, _ = prepare(model)
    (cross_entropy(model, x.double(), y) * math.inf).backward()
    model.zero_grad()
    cross_entropy(model, x.double(), y).backward()
    assert_row(source.take(window(8)), exact(model, x, y, covered(model, source)))


def test_gradients_that_are_not_finite_give_no_row() -> None:
    model, (x, y) = make_mlp(), vectors(8)
    source, row = leave_out(model, (x * math.nan, y))
    assert row is None
    assert source.reason == "a gradient of the step was not finite"
    assert source.left_out == {}


def test_batch_of_one_is_refused() -> None:
    source, row = leave_out(make_mlp(), vectors(1))
    assert row is None
    assert "one example" in source.reason


def test_evaluation_inside_a_window_does_not_count() -> None:
    model, (x, y) = make_mlp().double(), vectors(8)
    source, _ = prepare(model)
    with torch.no_grad():
        model(x.double()[:3])
    model(x.double()[:5])
    cross_entropy(model, x.double(), y).backward()
    assert_row(source.take(window(8)), exact(model, x, y, covered(model, source)))
