"""Norms of gradients of every kind, against float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from batchscope.live.norms import any_nonzero, norm, square_norms


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize(
    "gradient",
    [
        drawn(7),
        drawn(),
        drawn(3_000_001) * 1e-3 + 1e-3,
        drawn(300, 400).t(),
        drawn(500, dtype=torch.float16) * 200,
        drawn(90_000, dtype=torch.bfloat16),
        drawn(9, dtype=torch.float64),
        torch.complex(drawn(5), drawn(5)),
        torch.zeros(0),
        drawn(64, 3, 3, 200).to(memory_format=torch.channels_last),
    ],
    ids=lambda gradient: f"{tuple(gradient.shape)} {gradient.dtype}",
)
def test_norms_are_those_of_float64(gradient: Tensor) -> None:
    wide = gradient.to(torch.complex128 if gradient.is_complex() else torch.float64)
    exact = float(wide.abs().square().sum())
    assert square_norms([{0: norm(gradient)}], range(1), 1.0)[0][0] == pytest.approx(exact, rel=1e-6)


def test_a_sparse_gradient_whose_rows_repeat() -> None:
    table = nn.Embedding(6, 3, sparse=True)
    table(torch.tensor([1, 1, 4])).square().sum().backward()
    assert table.weight.grad is not None
    assert float(norm(table.weight.grad)) == pytest.approx(float(table.weight.grad.to_dense().norm()))


def test_a_scale_that_would_overflow_when_squared() -> None:
    scale = 2.0**40
    found = square_norms([{0: norm(torch.full((100,), 1e12))}, {}], range(2), scale)
    assert found == [pytest.approx([100 * (1e12 / scale) ** 2, 0.0], rel=1e-6), [0.0, 0.0]]


def test_zeros_of_all_kinds_and_none() -> None:
    empty = torch.zeros(4).to_sparse()
    assert not any_nonzero([])
    assert not any_nonzero([torch.zeros(3), empty])
    assert any_nonzero([torch.zeros(3), torch.tensor([0.0, float("nan")])])
    assert any_nonzero([torch.tensor([0.0, -1e-30])])
