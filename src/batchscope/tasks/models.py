"""The small models that the built-in tasks train."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import TaskError

__all__ = ["ModelName", "Norm", "Transformer", "cnn", "linear", "mlp"]

ModelName = Literal["linear", "mlp", "cnn"]
Norm = Literal["none", "batch", "group"]

_LARGEST_FINAL_SIDE = 8
_HEAD_WIDTH = 32


def linear(inputs: int, outputs: int) -> nn.Module:
    """One affine map: logistic or linear regression."""
    return nn.Linear(inputs, outputs)


def mlp(inputs: int, outputs: int, *, hidden: int, depth: int) -> nn.Module:
    """A perceptron with `depth` hidden layers of `hidden` ReLU units."""
    layers: list[nn.Module] = []
    for width in [inputs, *[hidden] * (depth - 1)]:
        layers += [nn.Linear(width, hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, outputs))


def cnn(shape: tuple[int, int, int], outputs: int, *, norm: Norm) -> nn.Module:
    """Blocks of 3x3 convolution, norm, ReLU and 2x2 maximum, then an affine map.

    There are two blocks, and more until both sides are at most 8; widths are 16, 32, then 64.

    Args:
        shape: channels, height and width of an image.
        outputs: length of the output.
        norm: none, `batch` (which couples the examples of a batch), or `group` (which does not).
    """
    channels, height, width = shape
    if min(height, width) < 4:
        raise TaskError(f"model=cnn needs images of at least 4 x 4 pixels, not {height} x {width}; use model=mlp")
    layers: list[nn.Module] = []
    block = 0
    while block < 2 or max(height, width) > _LARGEST_FINAL_SIDE:
        wide = min(16 * 2**block, 64)
        layers += [nn.Conv2d(channels, wide, 3, padding=1, bias=norm == "none")]
        layers += {"none": [], "batch": [nn.BatchNorm2d(wide)], "group": [nn.GroupNorm(8, wide)]}[norm]
        layers += [nn.ReLU()]
        down = (2 if height > 1 else 1, 2 if width > 1 else 1)
        layers += [nn.MaxPool2d(down)]
        channels, height, width, block = wide, height // down[0], width // down[1], block + 1
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * width, outputs))


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
