"""What an optimizer's class and defaults say of its best learning rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn, optim

from batchscope.testing.small_trainings import Lion
from batchscope.training.lr_prior import LrPrior, has_normalisation, lr_ratio, prior_of


class OwnAdam(optim.AdamW):
    """A class that a user derives."""


class OwnRMSNorm(nn.Module):
    """A layer that a library has for itself."""


class Signed(optim.Optimizer):
    """A class of nobody's name."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})


def known(
    make: Callable[..., optim.Optimizer], *, normalised: bool = False, share: float = 1.0, **more: Any
) -> LrPrior:
    return prior_of(
        make(nn.Linear(3, 2).parameters(), lr=1e-6 * share, **more), 1e-6, batch_size=32, normalised=normalised
    )


@pytest.mark.parametrize("kind", [optim.Adam, optim.AdamW, optim.NAdam, optim.RAdam, optim.Adamax, OwnAdam])
def test_all_kinds_of_adam_have_one_prior(kind: Callable[..., optim.Optimizer]) -> None:
    assert known(kind) == known(optim.Adam)
    assert known(kind).normalised
    assert 1e-3 <= known(kind).lr <= 1e-2


def test_others_that_normalise_are_known_by_their_class_as_well() -> None:
    adam = known(optim.Adam).lr
    assert known(Lion).lr < adam
    assert known(optim.RMSprop).lr < adam < known(optim.Adagrad).lr
    assert known(optim.Adafactor).normalised


def test_sgd_is_known_to_a_factor_of_thirty_and_to_want_less_with_momentum() -> None:
    plain, momentum = known(optim.SGD), known(optim.SGD, momentum=0.9)
    assert not plain.normalised
    assert plain.factor >= 30.0
    assert momentum.lr == pytest.approx(plain.lr / 10)
    assert known(optim.SGD, momentum=0.9, nesterov=True) == momentum


@pytest.mark.parametrize("normalised", [False, True])
def test_of_an_unknown_class_it_counts_what_was_measured(normalised: bool) -> None:
    found = known(Signed, normalised=normalised)
    assert found.normalised == normalised
    assert found.factor >= (10.0 if normalised else 30.0)
    assert known(optim.SGD, normalised=True).normalised  # a class derived from SGD that normalises


def test_a_factor_on_the_learning_rate_is_divided_out_by_the_number_of_weights() -> None:
    adam = known(optim.Adam).lr
    assert known(optim.Adam, share=0.01).lr == pytest.approx(100 * adam)
    few, many = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(3))
    groups = [{"params": [few], "lr": 1e-6}, {"params": [many], "lr": 1e-7}, {"params": [], "lr": 1e-6}]
    found = prior_of(optim.Adam(groups, lr=1e-6), 1e-6, batch_size=32, normalised=True)
    assert found.lr == pytest.approx(adam * 10**0.75)
    frozen = [{"params": [few], "lr": 1e-6}, {"params": [many], "lr": 0.0}]
    assert prior_of(optim.Adam(frozen, lr=1e-6), 1e-6, batch_size=32, normalised=True).lr == pytest.approx(adam)


def test_a_group_with_a_learning_rate_of_its_own_says_nothing() -> None:
    free, fixed = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(99))
    optimizer = optim.Adam([{"params": [free], "lr": 1e-6}, {"params": [fixed], "lr": 1e-3}], lr=1e-6)
    following = optimizer.param_groups[:1]
    found = prior_of(optimizer, 1e-6, batch_size=32, normalised=True, groups=following)
    assert found.lr == pytest.approx(known(optim.Adam).lr)


def test_normalisation_layers_make_sgd_known_better_and_hide_its_edge() -> None:
    plain = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    assert not has_normalisation(plain)
    for layer in (nn.BatchNorm2d(2), nn.LayerNorm(2), nn.GroupNorm(1, 2), nn.RMSNorm(2), OwnRMSNorm()):
        assert has_normalisation(nn.Sequential(plain, layer))
    with_layers = [
        prior_of(kind(plain.parameters(), lr=1e-6), 1e-6, batch_size=32, normalised=False, layers_normalise=True)
        for kind in (optim.SGD, optim.Adam)
    ]
    assert [prior.hides_the_edge for prior in with_layers] == [True, False]
    assert with_layers[0].factor < known(optim.SGD).factor
    assert with_layers[1] == known(optim.Adam)


def test_what_is_found_at_one_batch_size_is_scaled_to_a_smaller_one_as_a_search_expects() -> None:
    assert lr_ratio(32, 32, normalised=False) == (1.0, 1.0)
    plain, off = lr_ratio(32, 8, normalised=False)
    normalised, _ = lr_ratio(32, 8, normalised=True)
    assert 0.25 < plain < normalised < 1.0 < off < 2.0


def test_where_the_gradient_is_normalised_it_grows_with_the_root_of_small_batch_sizes() -> None:
    def at(kind: type[optim.Adam | optim.SGD], size: int) -> float:
        return prior_of(kind(nn.Linear(3, 2).parameters(), lr=1e-6), 1e-6, batch_size=size, normalised=False).lr

    assert at(optim.Adam, 4) / at(optim.Adam, 1) == pytest.approx(2.0, rel=0.05)
    assert 1.0 < at(optim.Adam, 8192) / at(optim.Adam, 1024) < 1.1
    assert at(optim.SGD, 4) == at(optim.SGD, 1024)
