"""Accumulated micro-batches inside a running training, against gradients in float64 taken apart from it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from batchscope.fits.noise_scale import Readings

from .trainings import (
    assert_equal_groups,
    cut,
    examples,
    gradient,
    group_gradients,
    mean_loss,
    mlp,
    rows,
    step,
    watch,
)


def sgd(model: nn.Module, **options: Any) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), **{"lr": 0.1, **options})


@pytest.mark.parametrize("set_to_none", [True, False])
def test_a_row_holds_the_norms_of_each_micro_batch_and_of_their_mean(set_to_none: bool) -> None:
    model = mlp()
    optimizer = sgd(model)
    with watch(model, optimizer) as monitor:
        for number in range(3):
            parts = cut(examples(12, seed=number), [4, 4, 4])
            truth = group_gradients(model, parts)
            for part in parts:
                (mean_loss(model, part) / 3).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=set_to_none)
            assert_equal_groups(rows(monitor)[-1], truth, 4)
        assert [(row["step"], row["examples"]) for row in rows(monitor)] == [(0, 0), (1, 12), (2, 24)]
        assert monitor.read().reason == ""


def test_unbiased_against_per_example_gradients() -> None:
    """Signal and noise apart, within three standard errors of the truth over the data set that is drawn from."""
    model, data = mlp(), examples(60)
    optimizer = sgd(model, lr=0.0)
    each = group_gradients(model, cut(data, [1] * 60))
    trace, square = float((each - each.mean(0)).square().sum(1).mean()), float(each.mean(0).square().sum())
    generator = torch.Generator().manual_seed(3)
    with watch(model, optimizer) as monitor:
        for _ in range(600):
            drawn = torch.randint(60, (12,), generator=generator)
            for part in cut((data[0][drawn], data[1][drawn]), [4, 4, 4]):
                (mean_loss(model, part) / 3).backward()
            optimizer.step()
            optimizer.zero_grad()
        found = Readings.of(rows(monitor))
        reading = monitor.read()
    for values, true in ((found.trace, trace), (found.square, square)):
        error = values.std(ddof=1) / math.sqrt(found.n)
        assert abs(values.mean() - true) < 3 * error
        assert error < 0.1 * true
    scale = reading.gradient_noise_scale
    assert scale.low is not None
    assert scale.high is not None
    assert scale.value == pytest.approx((reading.noise.value or 0) / (reading.signal.value or 1))
    assert 0.8 * scale.low < trace / square < 1.25 * scale.high


def test_unequal_micro_batches_that_were_told_of() -> None:
    """Shares as the examples: the estimates are those of the formula for unequal groups, and B is their sum."""
    model = mlp()
    optimizer = sgd(model)
    sizes = [2, 3, 7]
    parts = cut(examples(12), sizes)
    shares = [size / 12 for size in sizes]
    with watch(model, optimizer) as monitor:
        for size in sizes:
            monitor.micro_batch(examples=size)
        truth = step(model, optimizer, parts, shares=shares)
        row = rows(monitor)[0]
    weighted = truth * torch.tensor(shares, dtype=torch.float64)[:, None]
    whole, pieces = float(weighted.sum(0).square().sum()), float(weighted.square().sum())
    signal = (whole - pieces) / (1 - sum(share**2 for share in shares))
    found = Readings.of([row])
    assert found.square[0] == pytest.approx(signal, rel=1e-9)
    assert found.trace[0] == pytest.approx(12 * (whole - signal), rel=1e-9)
    assert found.weight[0] == pytest.approx(12)


def test_means_of_unequal_micro_batches_that_count_the_same() -> None:
    """A loop that divides by the number of micro-batches whatever their size: weight=1, unbiased by simulation."""
    model, data = mlp(), examples(60)
    optimizer = sgd(model, lr=0.0)
    each = group_gradients(model, cut(data, [1] * 60))
    trace, square = float((each - each.mean(0)).square().sum(1).mean()), float(each.mean(0).square().sum())
    generator = torch.Generator().manual_seed(3)
    with watch(model, optimizer) as monitor:
        for _ in range(800):
            drawn = torch.randint(60, (12,), generator=generator)
            for part in cut((data[0][drawn], data[1][drawn]), [2, 10]):
                monitor.micro_batch(batch=part, weight=1)
                (mean_loss(model, part) / 2).backward()
            optimizer.step()
            optimizer.zero_grad()
        found = Readings.of(rows(monitor))
    assert found.weight[0] == pytest.approx(1 / (0.25 / 2 + 0.25 / 10))
    for values, true in ((found.trace, trace), (found.square, square)):
        assert abs(values.mean() - true) < 3 * values.std(ddof=1) / math.sqrt(found.n)


def test_token_weights() -> None:
    """Micro-batches are parts of one sum over tokens, divided by the tokens of the window, as transformers does it."""
    model, (x, y) = mlp(), examples(12)
    optimizer = sgd(model)
    tokens = torch.arange(1, 13, dtype=torch.float64)
    total = float(tokens.sum())

    def summed(model: nn.Module, part: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return (nn.functional.cross_entropy(model(part[0]), part[1], reduction="none") * part[2]).sum()

    parts = list(zip(x.split(4), y.split(4), tokens.split(4), strict=True))
    shares = [float(part[2].sum()) / total for part in parts]
    weighted = torch.stack([gradient(model, summed(model, part) / total) for part in parts])
    with watch(model, optimizer) as monitor:
        for part in parts:
            monitor.micro_batch(examples=4, weight=float(part[2].sum()))
            (summed(model, part) / total).backward()
        optimizer.step()
        found = Readings.of(rows(monitor))
    whole, pieces = float(weighted.sum(0).square().sum()), float(weighted.square().sum())
    signal = (whole - pieces) / (1 - sum(share**2 for share in shares))
    assert found.square[0] == pytest.approx(signal, rel=1e-9)
    assert found.trace[0] == pytest.approx(12 * (whole - signal), rel=1e-9)


def test_a_summed_loss_has_the_same_noise_scale() -> None:
    model = mlp()
    optimizer = sgd(model, lr=0.0)
    found = []
    for factor in (1 / 3, 1.0):
        with watch(model, optimizer) as monitor:
            for number in range(40):
                step(model, optimizer, cut(examples(12, seed=number), [4, 4, 4]), shares=[factor] * 3)
            found.append(monitor.read())
    assert found[1].gradient_noise_scale.value == pytest.approx(found[0].gradient_noise_scale.value, rel=1e-9)
    assert found[1].signal.value == pytest.approx(9 * (found[0].signal.value or 0), rel=1e-9)


def test_a_short_window_is_left_out_unless_it_is_told_of() -> None:
    model = mlp()
    optimizer = sgd(model)
    with watch(model, optimizer) as monitor:
        step(model, optimizer, cut(examples(12), [4, 4, 4]))
        step(model, optimizer, cut(examples(8), [4, 4]))
        assert len(rows(monitor)) == 1
        assert "2 backward passes where 3 make the 12 examples" in monitor.read().reason
        monitor.micro_batch(examples=4)
        monitor.micro_batch(examples=4)
        truth = step(model, optimizer, cut(examples(8), [4, 4]))
        assert_equal_groups(rows(monitor)[-1], truth, 4)
        assert rows(monitor)[-1]["examples"] == 24
        assert monitor.read().examples == 32


def test_a_micro_batch_size_that_changes() -> None:
    model = mlp()
    optimizer = sgd(model)
    with watch(model, optimizer) as monitor:
        for size in (2, 4, 8):
            parts = cut(examples(3 * size), [size] * 3)
            for part in parts:
                monitor.micro_batch(batch=part)
            truth = step(model, optimizer, parts)
            assert_equal_groups(rows(monitor)[-1], truth, size)
        assert [row["examples"] for row in rows(monitor)] == [0, 6, 18]


def test_too_few_calls_of_micro_batch_are_said() -> None:
    model = mlp()
    optimizer = sgd(model)
    with watch(model, optimizer) as monitor:
        monitor.micro_batch(examples=4)
        step(model, optimizer, cut(examples(12), [4, 4, 4]))
        assert "called 1 times, and the step had 3 backward passes" in monitor.read().reason
        monitor.micro_batch(examples=4, weight=0)
        monitor.micro_batch(examples=4, weight=5)
        step(model, optimizer, cut(examples(8), [4, 4]))
        assert "weight above 0" in monitor.read().reason
        assert rows(monitor) == []


def test_measured_before_clipping() -> None:
    model = mlp()
    optimizer = sgd(model)
    parts = cut(examples(12), [4, 4, 4])
    truth = group_gradients(model, parts)
    with watch(model, optimizer) as monitor:
        for part in parts:
            (mean_loss(model, part) / 3).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        optimizer.step()
        assert_equal_groups(rows(monitor)[0], truth, 4)


def test_clipping_between_two_backward_passes_is_said() -> None:
    model = mlp()
    optimizer = sgd(model)
    with watch(model, optimizer) as monitor:
        for part in cut(examples(12), [4, 4, 4]):
            (mean_loss(model, part) / 3).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        optimizer.step()
        assert "changed between two backward passes" in monitor.read().reason
        optimizer.zero_grad()
        step(model, optimizer, cut(examples(12), [4, 4, 4]))
        assert len(rows(monitor)) == 1


def test_gradients_that_are_never_zeroed_are_said() -> None:
    model = mlp()
    optimizer = sgd(model)
    with watch(model, optimizer) as monitor:
        for _ in range(2):
            for part in cut(examples(12), [4, 4, 4]):
                (mean_loss(model, part) / 3).backward()
            optimizer.step()
        assert len(rows(monitor)) == 1
        assert "zero them after each step" in monitor.read().reason


class Odd(nn.Module):
    """A frozen, a tied, a twice-used, a sparse and an unused parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 5, sparse=True)
        self.frozen = nn.Linear(5, 5)
        self.twice = nn.Linear(5, 5)
        self.tied = nn.Linear(5, 5)
        self.tied.weight = self.twice.weight
        self.unused = nn.Linear(3, 3)
        self.head = nn.Linear(5, 2)
        self.frozen.requires_grad_(False)

    def forward(self, codes: Tensor) -> Tensor:
        x = self.frozen(self.table(codes).mean(1))
        return self.head(self.tied(torch.tanh(self.twice(torch.tanh(self.twice(x))))))


@pytest.mark.parametrize("set_to_none", [True, False])
def test_frozen_tied_twice_used_sparse_and_unused_parameters(set_to_none: bool) -> None:
    torch.manual_seed(0)
    model = Odd().double()
    optimizer = sgd(model)
    generator = torch.Generator().manual_seed(2)
    with watch(model, optimizer, layers=True) as monitor:
        for _ in range(5):
            codes = torch.randint(9, (12, 4), generator=generator)
            parts = cut((codes, codes[:, 0] % 2), [4, 4, 4])
            truth = group_gradients(model, parts)
            for part in parts:
                (mean_loss(model, part) / 3).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=set_to_none)
            row = rows(monitor)[-1]
            assert_equal_groups(row, truth, 4)
            assert sum(mean for _, mean in row["layers"].values()) == pytest.approx(row["square_norm_of_mean"])
            assert sum(each for each, _ in row["layers"].values()) == pytest.approx(row["mean_square_norm"])
        assert set(monitor.read().layers) == {"table", "twice", "tied", "unused", "head"}


def test_layers_are_measured_as_the_whole_is() -> None:
    model = mlp()
    optimizer = sgd(model)
    parts = cut(examples(12), [4, 4, 4])
    with watch(model, optimizer, layers=True) as monitor:
        truth = step(model, optimizer, parts)
        layers = rows(monitor)[0]["layers"]
    for name, columns in {"0": slice(0, 42), "2": slice(42, None)}.items():
        expected = [truth[:, columns].square().sum(1).mean(), truth[:, columns].mean(0).square().sum()]
        assert layers[name] == pytest.approx([float(e) for e in expected], rel=1e-10)


def test_one_backward_pass_is_no_micro_batches() -> None:
    model = mlp()
    optimizer = sgd(model)
    with watch(model, optimizer) as monitor:
        step(model, optimizer, cut(examples(12), [12]))
        reading = monitor.read()
    assert reading.reason == "one backward pass in the step"
    assert reading.gradient_noise_scale.value is None
    assert reading.max_speedup(100).value is None


def test_two_losses_of_the_same_examples_are_no_micro_batches() -> None:
    """One forward pass, two backward passes: on parameters apart, and on all of them."""
    model = mlp()
    optimizer = sgd(model)
    with watch(model, optimizer) as monitor:
        x, y = examples(12)
        out = model(x)
        nn.functional.cross_entropy(out, y).backward(retain_graph=True)
        out.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert "one forward pass" in monitor.read().reason
        model[0](x).square().mean().backward()  # pyright: ignore
        model[2](torch.ones(1, 7, dtype=torch.float64)).mean().backward()  # pyright: ignore
        optimizer.step()
        assert "no parameter in common" in monitor.read().reason


def test_a_gradient_that_is_computed_apart_is_no_micro_batch() -> None:
    model = mlp()
    optimizer = sgd(model)
    parts = cut(examples(12), [4, 4, 4])
    with watch(model, optimizer) as monitor:
        truth = group_gradients(model, parts)
        for part in parts:
            (mean_loss(model, part) / 3).backward()
            gradient(model, mean_loss(model, part))
        optimizer.step()
        assert_equal_groups(rows(monitor)[0], truth, 4)


@pytest.mark.parametrize("reentrant", [True, False])
def test_recomputed_activations(reentrant: bool) -> None:
    from torch.utils.checkpoint import checkpoint

    class Recomputed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList([nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 2)])

        def forward(self, x: Tensor) -> Tensor:
            x = x.clone().requires_grad_()
            for part in self.parts[:2]:
                x = checkpoint(part, x, use_reentrant=reentrant)
            return self.parts[2](x)

    torch.manual_seed(0)
    model = Recomputed().double()
    optimizer = sgd(model)
    parts = cut(examples(12), [4, 4, 4])
    with watch(model, optimizer) as monitor:
        for part in parts:
            (mean_loss(model, part) / 3).backward()
        sums = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        optimizer.step()
        if reentrant:
            assert "use_reentrant=False" in monitor.read().reason
        else:
            assert rows(monitor)[0]["square_norm_of_mean"] == pytest.approx(float(sums.square().sum()), rel=1e-10)
            assert rows(monitor)[0]["groups"] == 3


def test_a_backward_pass_that_fails_half_way() -> None:
    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            raise RuntimeError("out of memory")

    model = mlp()
    optimizer = sgd(model)
    parts = cut(examples(12), [4, 4, 4])
    with watch(model, optimizer) as monitor:
        with pytest.raises(RuntimeError, match="out of memory"):
            model[2](Fails.apply(model[0](parts[0][0]))).mean().backward()  # pyright: ignore
        optimizer.zero_grad()
        truth = step(model, optimizer, parts)
        assert "before the last one had ended" in monitor.read().reason
        truth = step(model, optimizer, parts)
        assert_equal_groups(rows(monitor)[0], truth, 4)
