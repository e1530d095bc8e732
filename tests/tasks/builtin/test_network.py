"""Which network is built from the settings of `digits` and `arrays`, and which settings are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from batchscope.errors import TaskError
from batchscope.tasks.builtin.digits import digits
from batchscope.tasks.builtin.network import Network


def network(**settings: Any) -> Network:
    return Network(
        **{"model": "mlp", "hidden": 8, "depth": 1, "norm": "none", "dropout": 0.0, "init": "default"} | settings
    )


def built(network: Network, shape: tuple[int, ...], outputs: int) -> nn.Module:
    torch.manual_seed(0)
    return network.maker(shape, outputs)()


def size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_shens_network_and_its_analogue_on_digits() -> None:
    shen = network(hidden=1024, depth=2)
    assert size(built(shen, (784,), 10)) == 1_863_690
    assert size(digits(hidden=1024, depth=2).model()) == 65 * 1024 + 1025 * 1024 + 1025 * 10


def test_xavier_has_the_variance_of_its_formula_and_no_biases() -> None:
    model = built(network(hidden=1024, depth=2, init="xavier"), (784,), 10)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            expected = 2 / (layer.in_features + layer.out_features)
            sampling = 6 * (2 / layer.weight.numel()) ** 0.5  # six standard errors of the variance of a normal
            assert layer.weight.var().item() == pytest.approx(expected, rel=sampling)
            assert layer.weight.abs().max() > 3 * expected**0.5  # normal: a uniform of this variance ends at 1.73
            assert not layer.bias.any()


@pytest.mark.parametrize(("model", "norm"), [("cnn", "none"), ("cnn", "group"), ("vgg", "none")])
def test_xavier_of_convolutions(model: str, norm: str) -> None:
    """The third convolution: a unit sees its inputs at nine pixels, and is seen at nine."""
    convolutions = [m for m in built(network(model=model, norm=norm, init="xavier"), (3, 64, 64), 2).modules()]
    third = [m for m in convolutions if isinstance(m, nn.Conv2d)][2]
    expected = 2 / (9 * (third.in_channels + third.out_channels))
    assert third.weight.var().item() == pytest.approx(expected, rel=6 * (2 / third.weight.numel()) ** 0.5)
    assert (third.bias is None) if norm != "none" else (third.bias is not None and not third.bias.any())


def test_each_model_is_a_fresh_one() -> None:
    maker = network(init="xavier").maker((4,), 2)
    first, second = maker(), maker()
    assert not torch.equal(next(first.parameters()), next(second.parameters()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": 0}, "hidden=0 must be at least 1"),
        ({"depth": 0}, "depth=0 must be at least 1; a network without hidden layers is model=linear"),
        ({"dropout": 1.0}, "dropout=1.0 must be at least 0 and below 1"),
        ({"dropout": -0.1}, "dropout=-0.1 must be at least 0"),
        ({"dropout": float("nan")}, "dropout=nan must be at least 0"),
        ({"dropout": 0.2, "model": "linear"}, "dropout=0.2 needs hidden layers, model=linear has none"),
        ({"norm": "batch"}, "norm=batch needs model=cnn or model=vgg; model=mlp has no normalisation"),
        ({"norm": "group", "model": "linear"}, "norm=group needs model=cnn or model=vgg; model=linear"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        network(**settings)
