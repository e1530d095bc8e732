"""Whether examples of a batch are independent of one another."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from batchscope.tasks.preflight.check import check
from batchscope.tasks.workload import Workload

from .parts import Parts, make_data, run, stacked


class OwnBatchNorm(nn.Module):
    """Batch normalisation of no known type."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt() if self.training else x


class FunctionalDropout(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, self.training)


def contrast(model: nn.Module, batch: Any) -> Tensor:
    """Each example against the others of its batch."""
    z = F.normalize(model(batch[0]), dim=1)
    return F.cross_entropy(z @ z.T / 0.5, torch.arange(len(z)))


def token_mean(model: nn.Module, batch: Any) -> Tensor:
    """A mean over tokens, of which examples have 1, 2 or 3."""
    each = F.cross_entropy(model(batch[0]), batch[1], reduction="none")
    return (each * (batch[1] + 1)).sum() / (batch[1] + 1).sum()


@pytest.mark.parametrize(
    "middle", [nn.ReLU(), nn.LayerNorm(8), nn.Dropout(0.5), nn.AlphaDropout(0.5), FunctionalDropout()]
)
def test_independent(middle: nn.Module) -> None:
    workload = Workload(Parts(make_model=stacked(middle)))
    assert check(workload).independent
    assert workload.independent


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"make_model": stacked(nn.BatchNorm1d(8))}, r"1 batch normalisation layers \(1, ...\)"),
        ({"make_model": stacked(nn.BatchNorm1d(8), nn.Dropout(0.5))}, r"1 batch normalisation layers"),
        (
            {"make_model": stacked(OwnBatchNorm())},
            r"the loss of 16 examples is [\d.]+ as one batch and [\d.]+ as the mean",
        ),
        ({"compute_loss": contrast}, r"the loss of 16 examples is"),
        ({"compute_loss": token_mean}, r"the loss of 16 examples is"),
    ],
)
def test_not_independent(parts: Any, said: str) -> None:
    workload = Workload(Parts(**parts))
    found = check(workload)
    assert not found.independent
    assert not workload.independent
    assert any("examples of a batch are not independent of one another" in note for note in found.notes)
    assert any("Per-example statistics (the gradient noise scale) are switched off" in note for note in found.notes)
    assert any(re.search(said, note) for note in found.notes)


def test_a_batch_norm_that_fails_on_one_example() -> None:
    found = run(make_model=stacked(nn.BatchNorm1d(8)))
    assert found.smallest_micro_batch_size == 2
    assert "a batch of one example cannot be trained on; the smallest micro-batch is 2" in found.notes
    assert run(make_model=stacked(nn.BatchNorm1d(8)), data=make_data(3)).smallest_micro_batch_size == 2
