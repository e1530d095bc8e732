"""Network that a built-in task trains: the settings of `digits` and `arrays` about it, checked together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Literal

from torch import nn

from ...errors import TaskError
from .models import ModelName, Norm, cnn, linear, mlp, vgg, xavier

__all__ = ["Init", "Network"]

Init = Literal["default", "xavier"]

_ON_IMAGES = ("cnn", "vgg")


@dataclass(frozen=True, kw_only=True)
class Network:
    """Network by its settings.

    Attributes:
        model: `linear`, `mlp`, or for images `cnn` or `vgg`.
        hidden: units in each hidden layer of the perceptron.
        depth: its hidden layers.
        norm: normalisation between the convolutions and the ReLUs of `cnn` and `vgg`.
        dropout: share of the values that is set to 0 after each pooling and each hidden layer.
        init: `default` is PyTorch's, `xavier` has Xavier normal weights and biases of 0.

    Raises:
        TaskError: a number is out of its range, or a setting is given that the model has no use for.
    """

    model: ModelName
    hidden: int
    depth: int
    norm: Norm
    dropout: float
    init: Init

    def __post_init__(self) -> None:
        for name, value in {"hidden": self.hidden, "depth": self.depth}.items():
            if value < 1:
                raise TaskError(f"{name}={value} must be at least 1; a network without hidden layers is model=linear")
        if not 0.0 <= self.dropout < 1.0:
            raise TaskError(f"dropout={self.dropout} must be at least 0 and below 1")
        if self.dropout and self.model == "linear":
            raise TaskError(
                f"dropout={self.dropout} needs hidden layers, model=linear has none: leave it out or write model=mlp"
            )
        if self.norm != "none" and not self.takes_images:
            raise TaskError(
                f"norm={self.norm} needs model=cnn or model=vgg; model={self.model} has no normalisation: leave it out"
            )

    @property
    def takes_images(self) -> bool:
        """Whether inputs are (channels, height, width); the other models take one row of numbers."""
        return self.model in _ON_IMAGES

    def maker(self, shape: Sequence[int], outputs: int) -> Callable[[], nn.Module]:
        """Function that builds a fresh model.

        Args:
            shape: of one input.
            outputs: length of the output.
        """
        return partial(self._build, tuple(shape), outputs)

    def _build(self, shape: tuple[int, ...], outputs: int) -> nn.Module:
        model = self._layers(shape, outputs)
        return xavier(model) if self.init == "xavier" else model

    def _layers(self, shape: tuple[int, ...], outputs: int) -> nn.Module:
        if self.model == "linear":
            return linear(prod(shape), outputs)
        if self.model == "mlp":
            return mlp(prod(shape), outputs, hidden=self.hidden, depth=self.depth, dropout=self.dropout)
        build = cnn if self.model == "cnn" else vgg
        channels, height, width = shape
        return build((channels, height, width), outputs, norm=self.norm, dropout=self.dropout)
