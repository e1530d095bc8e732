"""Batches, models and losses that cannot be split: the reason says why, and the training stays as it was."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from batchscope.live.beside import is_beside
from batchscope.live.sources.side_pass import SidePass
from batchscope.live.sources.split import SplitSource

from .split_batches import Trained, make_batch, make_model, mean_square, row_of, sgd, window


def contrastive(model: Any, batch: Any) -> Tensor:
    made = F.normalize(model[:1](batch[0]))
    return F.cross_entropy(made @ made.T / 0.1, torch.arange(len(made)))


def test_in_batch_negatives_are_refused() -> None:
    model = make_model()
    source = SplitSource(contrastive)
    source.attach(model, sgd(model))
    source.micro_batch(make_batch(16))
    assert source.take(window(16)) is None
    assert "examples of a batch depend on one another" in source.reason


def test_batch_normalisation_is_refused_and_group_normalisation_is_not() -> None:
    for norm, refused in ((nn.BatchNorm1d(6), True), (nn.GroupNorm(2, 6), False)):
        model = make_model(norm)
        source = SplitSource(mean_square)
        source.attach(model, sgd(model))
        source.micro_batch(make_batch(8))
        assert (source.take(window(8)) is None) is refused
        assert ("2 is batch normalisation" in source.reason) is refused


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (make_batch(1), "a batch of 1 cannot be split in 2"),
        ((*make_batch(8), 3.0), "member without one entry for each of its 8"),
        ({"n": 3}, "holds no tensor"),
    ],
)
def test_batches_that_cannot_be_split(batch: Any, said: str) -> None:
    model = make_model()
    source = SplitSource(mean_square)
    source.attach(model, sgd(model))
    source.micro_batch(batch)
    assert source.take(window(8)) is None
    assert said in source.reason


def test_nothing_handed_over_and_nothing_to_train() -> None:
    model = make_model()
    source = SplitSource(mean_square)
    source.attach(model, sgd(model))
    assert source.take(window(8)) is None
    assert "call micro_batch(batch=batch) before the backward pass" in source.reason
    optimizer = sgd(model)
    model.requires_grad_(False)
    source.attach(model, optimizer)
    source.micro_batch(make_batch(8))
    assert source.take(window(8)) is None
    assert "no parameter of the model that needs a gradient" in source.reason


def test_gradients_that_are_not_finite() -> None:
    model, (x, y) = make_model(), make_batch(8)
    source = SplitSource(lambda model, batch: (model(batch[0]) - batch[1]).abs().mean().sqrt())
    source.attach(model, sgd(model))
    with torch.no_grad():
        for p in model[2].parameters():
            p.zero_()
    source.micro_batch((x, y * 0))
    assert source.take(window(8)) is None
    assert "not finite" in source.reason
    source = SplitSource(mean_square)
    source.attach(model, sgd(model))
    source.micro_batch((x * math.nan, y))
    assert source.take(window(8)) is None
    assert "loss of a batch is nan" in source.reason


def test_a_scale_keeps_small_gradients_of_half_precision() -> None:
    model = make_model()
    batch = make_batch(8)
    plain = row_of(SplitSource(mean_square), model, batch, 8)
    scaled = row_of(SplitSource(mean_square, scale=lambda: 1024.0), model, batch, 8)
    assert scaled["mean_square_norm"] == pytest.approx(plain["mean_square_norm"], rel=1e-12)


def test_a_loss_that_fails_leaves_the_training_as_it_was() -> None:
    model = make_model(nn.Dropout(0.5))
    optimizer = sgd(model)

    def broken(model: Any, batch: Any) -> Tensor:
        torch.rand(3)
        raise RuntimeError("no")

    source = SplitSource(broken)
    source.attach(model, optimizer)
    before = Trained(model, optimizer)
    with pytest.raises(RuntimeError, match="no"):
        source.micro_batch(make_batch(8))
    assert before.same_as(Trained(model, optimizer))
    assert not is_beside()


def test_a_sharded_model_is_refused() -> None:
    class Sharded(nn.Parameter):
        def full_tensor(self) -> Tensor:
            return self.data

    model = nn.Linear(4, 1)
    model.weight = Sharded(model.weight.data)
    assert "sharded" in SidePass(model, sgd(model), mean_square).refusal
