"""The small models that the built-in tasks train.

`mlp`, `cnn` and `vgg` are flat `nn.Sequential`s, and each activation in them is a module of its own that is used once:
a study can put a layer before or after it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import TaskError

__all__ = ["ModelName", "Norm", "Transformer", "cnn", "linear", "mlp", "vgg", "xavier"]

ModelName = Literal["linear", "mlp", "cnn", "vgg"]
Norm = Literal["none", "batch", "group"]
Shape = tuple[int, int, int]

_LARGEST_FINAL_SIDE = 8
_HEAD_WIDTH = 32
_VGG_FILTERS = (4, 8, 16, 32, 64)
_VGG_HIDDEN = 256


def linear(inputs: int, outputs: int) -> nn.Module:
    """One affine map: logistic or linear regression."""
    return nn.Linear(inputs, outputs)


def mlp(inputs: int, outputs: int, *, hidden: int, depth: int, dropout: float = 0.0) -> nn.Module:
    """A perceptron with `depth` hidden layers of `hidden` ReLU units, and dropout after each where it is not 0.

    Example:
        >>> sum(p.numel() for p in mlp(784, 10, hidden=1024, depth=2).parameters())
        1863690
    """
    return nn.Sequential(*_hidden_layers(inputs, hidden, depth, dropout), nn.Linear(hidden, outputs))


def cnn(shape: Shape, outputs: int, *, norm: Norm, dropout: float = 0.0) -> nn.Module:
    """Blocks of 3x3 convolution, norm, ReLU and 2x2 maximum, then an affine map.

    There are two blocks, and more until both sides are at most 8; widths are 16, 32, then 64.

    Args:
        shape: channels, height and width of an image.
        outputs: length of the output.
        norm: none, `batch` (which couples the examples of a batch), or `group` (which does not).
        dropout: share of the values that is set to 0 after each maximum.
    """
    if min(shape[1:]) < 4:
        raise TaskError(f"model=cnn needs images of at least 4 x 4 pixels, not {shape[1]} x {shape[2]}; use model=mlp")
    layers: list[nn.Module] = []
    block = 0
    while block < 2 or max(shape[1:]) > _LARGEST_FINAL_SIDE:
        added, shape = _block(shape, min(16 * 2**block, 64), norm, dropout)
        layers += added
        block += 1
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], outputs))


def vgg(shape: Shape, outputs: int, *, norm: Norm = "none", dropout: float = 0.0) -> nn.Module:
    """The network of Chang and Pathak (2020): five blocks as in `cnn`, two layers of 256 ReLU units, an affine map.

    The blocks have 4, 8, 16, 32 and 64 filters; a side of one pixel is not halved further, so that any image will do.
    Theirs ends in one sigmoid output for two classes, the built-in tasks have one output a class.

    Args:
        shape: channels, height and width of an image.
        outputs: length of the output.
        norm: as in `cnn`; theirs has none. With `batch`, a batch of one image needs sides of 32 pixels or more.
        dropout: share of the values that is set to 0 after each maximum and each hidden layer; theirs is 0.2.

    Example:
        >>> sum(p.numel() for p in vgg((3, 128, 128), 1, dropout=0.2).parameters())
        353161
    """
    layers: list[nn.Module] = []
    for filters in _VGG_FILTERS:
        added, shape = _block(shape, filters, norm, dropout)
        layers += added
    hidden = _hidden_layers(shape[0] * shape[1] * shape[2], _VGG_HIDDEN, 2, dropout)
    return nn.Sequential(*layers, nn.Flatten(), *hidden, nn.Linear(_VGG_HIDDEN, outputs))


def xavier(model: nn.Module) -> nn.Module:
    """Draw the weights of every affine map and convolution anew, and set their biases to 0; the same model is returned.

    The weights are normal with variance 2 / (inputs + outputs), which in a 3x3 convolution are its channels times 9
    (Glorot and Bengio 2010).
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def _block(shape: Shape, filters: int, norm: Norm, dropout: float) -> tuple[list[nn.Module], Shape]:
    """Convolution, norm, ReLU, maximum and dropout; and the shape of what comes out."""
    channels, height, width = shape
    down = (2 if height > 1 else 1, 2 if width > 1 else 1)
    layers: list[nn.Module] = [nn.Conv2d(channels, filters, 3, padding=1, bias=norm == "none")]
    if norm == "batch":
        layers += [nn.BatchNorm2d(filters)]
    elif norm == "group":
        layers += [nn.GroupNorm(min(8, filters // 2), filters)]
    layers += [nn.ReLU(), nn.MaxPool2d(down), *_dropout(dropout)]
    return layers, (filters, height // down[0], width // down[1])


def _hidden_layers(inputs: int, hidden: int, depth: int, dropout: float) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for width in [inputs, *[hidden] * (depth - 1)]:
        layers += [nn.Linear(width, hidden), nn.ReLU(), *_dropout(dropout)]
    return layers


def _dropout(share: float) -> list[nn.Module]:
    return [nn.Dropout(share)] if share else []


class Transformer(nn.Module):
    """A causal language model: learned positions, pre-norm blocks of attention and a GELU perceptron.

    Args:
        vocab: number of codes.
        context: longest input, in codes.
        width: channels; a multiple of 32, one attention head each 32, or any number below (one head).
        depth: blocks.
    """

    def __init__(self, *, vocab: int, context: int, width: int, depth: int) -> None:
        super().__init__()
        if width > _HEAD_WIDTH and width % _HEAD_WIDTH:
            nearest = width // _HEAD_WIDTH * _HEAD_WIDTH
            raise TaskError(f"width={width} is not a multiple of {_HEAD_WIDTH}; write width={nearest}")
        self.codes = nn.Embedding(vocab, width)
        self.positions = nn.Parameter(torch.empty(context, width))
        self.blocks = nn.ModuleList(_Block(width, max(1, width // _HEAD_WIDTH)) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, vocab)
        nn.init.normal_(self.codes.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.02)
        nn.init.normal_(self.output.weight, std=0.02)

    def forward(self, codes: Tensor) -> Tensor:
        """Scores of the next code at every position: (batch, length) int64 -> (batch, length, vocab)."""
        x = self.codes(codes) + self.positions[: codes.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.output(self.norm(x))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_perceptron = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        queries, keys, values = (
            part.view(batch, length, self.heads, -1).transpose(1, 2)
            for part in self.query_key_value(self.norm_attention(x)).chunk(3, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        x = x + self.projection(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.perceptron(self.norm_perceptron(x))
