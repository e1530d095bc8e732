"""The small models: shapes for every image size, and causality."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from batchscope.errors import TaskError
from batchscope.tasks.builtin.models import Norm, Transformer, cnn, linear, mlp, vgg


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 4, 5), (3, 64, 48), (1, 4, 100)])
def test_cnn_takes_images_of_any_size(shape: tuple[int, int, int], norm: Norm) -> None:
    assert cnn(shape, 7, norm=norm)(torch.zeros(2, *shape)).shape == (2, 7)


def test_cnn_refuses_what_it_cannot_halve_twice() -> None:
    with pytest.raises(TaskError, match="at least 4 x 4 pixels, not 3 x 8"):
        cnn((1, 3, 8), 7, norm="none")


def test_chang_and_pathaks_network() -> None:
    """Their count of parameters: convolutions 3 -> 4 -> 8 -> 16 -> 32 -> 64, then 1024 -> 256 -> 256 -> 1."""
    model = vgg((3, 128, 128), 1, dropout=0.2)
    assert sum(p.numel() for p in model.parameters()) == 353_161
    assert [type(layer).__name__ for layer in model.children()] == [
        *["Conv2d", "ReLU", "MaxPool2d", "Dropout"] * 5,
        "Flatten",
        *["Linear", "ReLU", "Dropout"] * 2,
        "Linear",
    ]
    assert {layer.p for layer in model.children() if isinstance(layer, nn.Dropout)} == {0.2}
    assert model(torch.zeros(2, 3, 128, 128)).shape == (2, 1)


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 1, 5), (3, 64, 48)])
def test_vgg_takes_images_of_any_size(shape: tuple[int, int, int], norm: Norm) -> None:
    model = vgg(shape, 7, norm=norm)
    assert model(torch.zeros(2, *shape)).shape == (2, 7)
    kinds = [type(layer) for layer in model.children()]
    kind = {"none": None, "batch": nn.BatchNorm2d, "group": nn.GroupNorm}[norm]
    if kind:
        assert [kinds[i + 1] for i, each in enumerate(kinds) if each is nn.Conv2d] == [kind] * 5
        assert [kinds[i + 1] for i, each in enumerate(kinds) if each is kind] == [nn.ReLU] * 5
    else:
        assert not {nn.BatchNorm2d, nn.GroupNorm} & {*kinds}


@pytest.mark.parametrize("make", [partial(mlp, 4, 2, hidden=8, depth=3), partial(cnn, (1, 8, 8), 2, norm="none")])
def test_dropout_follows_each_hidden_layer_or_pooling_and_is_off_in_evaluation(make: Callable[..., nn.Module]) -> None:
    model, without = make(dropout=0.5), make()
    kinds = [type(layer) for layer in model.children()]
    before = [kinds[i - 1] for i, kind in enumerate(kinds) if kind is nn.Dropout]
    assert before == ([nn.ReLU] * 3 if nn.MaxPool2d not in kinds else [nn.MaxPool2d] * 2)
    assert [kind for kind in kinds if kind is not nn.Dropout] == [type(layer) for layer in without.children()]
    x = torch.ones(5, *((1, 8, 8) if nn.MaxPool2d in kinds else (4,)))
    assert not torch.equal(model.train()(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


@pytest.mark.parametrize(
    "model", [mlp(4, 2, hidden=8, depth=3), cnn((1, 28, 28), 2, norm="batch"), vgg((1, 28, 28), 2, dropout=0.1)]
)
def test_every_activation_is_a_module_of_its_own_in_a_flat_sequence(model: nn.Module) -> None:
    assert isinstance(model, nn.Sequential)
    activations = [layer for layer in model if isinstance(layer, nn.ReLU)]
    assert len({id(layer) for layer in activations}) == len(activations) > 1
    assert not [layer for layer in model if [*layer.children()]]


def test_depth_and_width() -> None:
    assert [tuple(p.shape) for p in mlp(5, 3, hidden=4, depth=2).parameters()] == [
        (4, 5), (4,), (4, 4), (4,), (3, 4), (3,),
    ]  # fmt: skip
    assert [tuple(p.shape) for p in linear(5, 3).parameters()] == [(3, 5), (3,)]


def test_the_transformer_sees_no_later_code() -> None:
    torch.manual_seed(0)
    model = Transformer(vocab=11, context=8, width=64, depth=2).double()
    codes = torch.randint(11, (3, 8))
    changed = codes.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % 11
    with torch.no_grad():
        before, after = model(codes), model(changed)
    assert before.shape == (3, 8, 11)
    torch.testing.assert_close(before[:, :5], after[:, :5], rtol=0, atol=1e-12)
    assert (before[:, 5:] - after[:, 5:]).abs().amin(-1).min() > 1e-6


def test_the_transformer_takes_shorter_inputs_and_says_which_widths() -> None:
    model = Transformer(vocab=11, context=8, width=16, depth=1)
    assert model(torch.zeros(1, 3, dtype=torch.int64)).shape == (1, 3, 11)
    with pytest.raises(TaskError, match="width=72 is not a multiple of 32; write width=64"):
        Transformer(vocab=11, context=8, width=72, depth=1)
