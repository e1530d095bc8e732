"""A batch that is split beside the training: right against per-example gradients, and nothing of the training moves."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from batchscope.fits.noise_scale import Readings
from batchscope.live.beside import is_beside
from batchscope.live.geometry import DualNorms
from batchscope.live.sources.split import SplitSource
from batchscope.tasks.model_state import fingerprint

from .split_batches import Trained, make_batch, make_model, mean_square, per_example, row_of, sgd, window


def test_against_per_example_gradients() -> None:
    """Over random halves of one batch the estimates are those of its own examples (without replacement)."""
    model, batch = make_model(), make_batch(32)
    exact = per_example(model, batch)
    trace, square = float(exact.var(0).sum()), float(exact.mean(0).square().sum())
    source = SplitSource(mean_square, layers=True)
    rows = [row_of(source, model, batch, 32) for _ in range(300)]
    assert (rows[0]["groups"], rows[0]["group_size"]) == (2, 16)
    for row in rows[:5]:
        assert row["square_norm_of_mean"] == pytest.approx(square, rel=1e-12)
        assert sum(layer[0] for layer in row["layers"].values()) == pytest.approx(row["mean_square_norm"])
    found = Readings.of(rows).trace
    error = float(found.std()) / math.sqrt(found.size)
    assert abs(float(found.mean()) - trace) < 3 * error
    assert error < 0.07 * trace


@pytest.mark.parametrize("groups", [2, 3, 4])
def test_parts_are_equal_and_what_is_over_is_left_out(groups: int) -> None:
    model = make_model()
    row = row_of(SplitSource(mean_square, groups=groups), model, make_batch(11), 11)
    assert (row["groups"], row["group_size"]) == (groups, 11 // groups)


def test_token_weights() -> None:
    """With the number of terms of each part its share is right: the mean of the parts is the gradient of the batch."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(12, 5, 4, generator=generator, dtype=torch.float64)
    mask = torch.rand(12, 5, generator=generator) < torch.linspace(0.15, 1.0, 12)[:, None]
    batch = {"x": x, "y": x.sum(-1), "mask": mask | (torch.arange(5) == 0)}

    def loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
        return (model(batch["x"]).squeeze(-1) - batch["y"])[batch["mask"]].square().mean()

    model = make_model()
    row = row_of(SplitSource(loss, loss_weight=lambda batch: float(batch["mask"].sum())), model, batch, 12)
    whole = torch.autograd.grad(loss(model, batch), list(model.parameters()))
    assert row["square_norm_of_mean"] == pytest.approx(sum(float(g.square().sum()) for g in whole), rel=1e-12)

    plain = SplitSource(loss)
    plain.attach(model, sgd(model))
    plain.micro_batch(batch)
    assert plain.take(window(12)) is None
    assert "give loss_weight=" in plain.reason  # and the advice works, as above


class Counting(nn.Module):
    """A layer with buffers that each forward pass changes, in place and anew."""

    passes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))
        self.register_buffer("last", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.passes.add_(1)
        self.last = x.detach().mean()
        return x


@pytest.mark.parametrize("inside", ["nothing", "autocast", "no_grad"])
def test_nothing_of_the_training_is_touched(inside: str) -> None:
    model = make_model(nn.Dropout(0.3), Counting(), nn.BatchNorm1d(6).eval())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    fired = list[str]()
    for p in model.parameters():
        p.register_hook(lambda gradient: fired.append("hook"))
    mean_square(model, make_batch(8)).backward()
    optimizer.step()
    fired.clear()

    def noisy(model: Any, batch: Any) -> Tensor:
        scale = 1 + 1e-3 * random.random() + 1e-3 * np.random.rand()  # noqa: NPY002
        return mean_square(model, batch) * scale

    source = SplitSource(noisy)
    source.attach(model, optimizer)
    context: Any = {
        "autocast": torch.autocast("cpu", torch.bfloat16),
        "no_grad": torch.no_grad(),
        "nothing": torch.enable_grad(),
    }[inside]
    with context:
        before = Trained(model, optimizer)
        source.micro_batch(make_batch(16))
        assert before.same_as(Trained(model, optimizer))
        assert source.take(window(16)) is not None
        assert before.same_as(Trained(model, optimizer))
    assert fired == []


def test_dropout_draws_do_not_shift_and_a_training_is_bit_for_bit_the_same() -> None:
    def train(*, measured: bool) -> tuple[dict[str, float], float]:
        torch.manual_seed(5)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1)).double()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        source = SplitSource(mean_square)
        for step in range(6):
            batch = make_batch(16, seed=step)
            optimizer.zero_grad()
            if measured:
                source.attach(model, optimizer)
                source.micro_batch(batch)
            mean_square(model, batch).backward()
            optimizer.step()
            if measured:
                assert source.take(window(16, step)) is not None
                source.detach()
        return fingerprint(model), float(torch.rand(()))

    assert train(measured=True) == train(measured=False)


def test_the_two_parts_have_their_own_dropout() -> None:
    """Noise of dropout is noise of the gradient; with the same mask for both parts it would be missing."""
    model = make_model(nn.Dropout(0.5))
    batch = (torch.ones(4, 4).double(), torch.ones(4, 1).double())  # all examples alike
    rows = [row_of(SplitSource(mean_square), model, batch, 4) for _ in range(1)]
    assert rows[0]["mean_square_norm"] > 1.001 * rows[0]["square_norm_of_mean"]


def test_autocast_of_the_training_counts_and_its_cache_does_not() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    batch = make_batch(16, dtype=torch.float32)
    seen = set[torch.dtype]()
    model[2].register_forward_hook(lambda module, args, output: seen.add(output.dtype))
    source = SplitSource(mean_square)
    source.attach(model, sgd(model))
    with torch.autocast("cpu", torch.bfloat16):
        source.micro_batch(batch)
        assert seen == {torch.bfloat16}
        mean_square(model, batch).backward()  # the cast weights of the graph beside are not found
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.parameters())
    assert source.take(window(16)) is not None


def test_only_the_gradients_of_what_the_optimizer_changes_count() -> None:
    model = make_model()
    first, last = (module for module in model if isinstance(module, nn.Linear))
    first.bias.requires_grad_(False)
    optimizer = torch.optim.SGD([first.weight, first.bias, last.weight], lr=0.1)
    source = SplitSource(mean_square, layers=True)
    source.attach(model, optimizer)
    batch = make_batch(8)
    source.micro_batch(batch)
    row = source.take(window(8))
    assert row is not None
    exact = torch.autograd.grad(mean_square(model, batch), [first.weight, last.weight])
    assert row["square_norm_of_mean"] == pytest.approx(sum(float(g.square().sum()) for g in exact))


class Tied(nn.Module):
    """An embedding that is also the output layer, used twice, and a layer that nothing uses."""

    def __init__(self, *, sparse: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 5, sparse=sparse)
        self.head = nn.Linear(5, 7, bias=False)
        self.unused = nn.Linear(3, 3)
        if not sparse:
            self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embedding(tokens).mean(1))


@pytest.mark.parametrize("sparse", [False, True])
def test_tied_sparse_and_unused_parameters(sparse: bool) -> None:
    torch.manual_seed(0)
    model = Tied(sparse=sparse).double()
    generator = torch.Generator().manual_seed(0)
    batch = {
        "tokens": torch.randint(7, (10, 3), generator=generator),
        "y": torch.randint(7, (10,), generator=generator),
    }

    def loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch["tokens"]), batch["y"])

    row = row_of(SplitSource(loss), model, batch, 10)
    loss(model, batch).backward()
    exact = sum(float(p.grad.to_dense().square().sum()) for p in model.parameters() if p.grad is not None)
    assert row["square_norm_of_mean"] == pytest.approx(exact, rel=1e-12)


class Checkpointed(nn.Module):
    """A model that computes its first half again in the backward pass."""

    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self._reentrant = nn.Linear(4, 6), nn.Linear(6, 1), reentrant

    def forward(self, x: Tensor) -> Any:
        inner = checkpoint(lambda x: torch.tanh(self.first(x)), x.requires_grad_(), use_reentrant=self._reentrant)
        return self.last(inner)


def test_checkpoints_compute_again_with_the_same_tensors() -> None:
    model = Checkpointed(reentrant=False).double()
    batch = make_batch(8)
    row = row_of(SplitSource(mean_square), model, batch, 8)
    assert all(p.grad is None for p in model.parameters())
    exact = torch.autograd.grad(mean_square(model, batch), list(model.parameters()))
    assert row["square_norm_of_mean"] == pytest.approx(sum(float(g.square().sum()) for g in exact), rel=1e-12)


def test_reentrant_checkpoints_are_refused() -> None:
    source = SplitSource(mean_square)
    model = Checkpointed(reentrant=True).double()
    source.attach(model, sgd(model))
    source.micro_batch(make_batch(8))
    assert source.take(window(8)) is None
    assert "use_reentrant=False" in source.reason
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: torch.compile(model, backend="eager"),
        lambda model: (model.compile(backend="eager"), model)[1],
    ],
)
def test_compiled_models(wrap: Callable[[nn.Module], Any]) -> None:
    model, batch = make_model(), make_batch(8)
    exact = row_of(SplitSource(mean_square), model, batch, 8)
    found = row_of(SplitSource(mean_square), wrap(model), batch, 8)
    assert found == exact


def test_a_compiled_training_goes_on_without_compiling_again() -> None:
    counted = CompileCounter()
    model = make_model()
    compiled: Any = torch.compile(model, backend=counted)
    batch = make_batch(8)
    optimizer = sgd(model)
    source = SplitSource(mean_square)
    for step in range(4):
        optimizer.zero_grad()
        if step:
            source.attach(compiled, optimizer)
            source.micro_batch(batch)
        mean_square(compiled, batch).backward()
        optimizer.step()
        assert not step or source.take(window(8)) is not None
    assert counted.frame_count == 1


def test_hooks_of_others_can_tell_a_pass_beside() -> None:
    model, seen = make_model(), list[bool]()
    model[0].register_forward_hook(lambda module, args, output: seen.append(is_beside()))
    row_of(SplitSource(mean_square), model, make_batch(8), 8)
    assert seen
    assert all(seen)
    mean_square(model, make_batch(8))
    assert seen[-1] is False


@pytest.mark.parametrize("geometry", ["sign", "spectral"])
def test_dual_norms_stand_in_the_row(geometry: Any) -> None:
    model, batch = make_model(), make_batch(8)
    source = SplitSource(mean_square, norms=lambda parameters, optimizer: DualNorms(geometry, parameters, optimizer))
    row = row_of(source, model, batch, 8)
    exact = torch.autograd.grad(mean_square(model, batch), list(model.parameters()))
    expected = sum(
        float(torch.linalg.svdvals(g).sum() if geometry == "spectral" and g.ndim == 2 else g.abs().sum()) for g in exact
    )
    assert row["geometry"] == geometry
    assert row["norm_of_mean"] == pytest.approx(expected, rel=1e-9)
    assert row["aligned"] < row["norm_of_mean"]
